"""Letters of a script, and their names as people write them: in several word orders, with a slip of the pen."""

import unicodedata

import numpy as np

LETTERS = 32
"""Places for the letters of a name."""

SYMBOLS = " abcdefghijklmnopqrstuvwxyz"
"""A name's letters are numbered from 1 in this order; 0 is behind its end."""

CASES = {"capital": ("capital", "upper case", "big"), "small": ("small", "lower case", "little")}
ORDERS = ("{script} {case} letter {letter}", "{case} {letter}", "{letter} {case}", "letter {letter} {case}")
SLIP = 0.5
"""Probability of a slip: a letter of a word of four or more is left out, doubled, or swapped with the next."""


def letters_of(script: str) -> str:
    """The letters of a script, capitals first."""
    capitals, small = ("AZ", "az") if script == "latin" else ("ΑΩ", "αω")
    spans = [range(ord(span[0]), ord(span[1]) + 1) for span in (capitals, small)]
    return "".join(chr(code) for span in spans for code in span if chr(code) not in "\u03a2ς")


def key_in_font(letter: str, script: str) -> str:
    """The character under which a font keeps a letter: Greek ones are A to X and a to x in their order."""
    if script == "latin":
        return letter
    greek = letters_of("greek")
    place = greek.index(letter)
    return chr(ord("A") + place) if place < len(greek) // 2 else chr(ord("a") + place - len(greek) // 2)


def write_name(letter: str, rng: np.random.Generator) -> str:
    """A letter's name as somebody writes it down.

    >>> write_name("A", np.random.default_rng(0)), write_name("ω", np.random.default_rng(1))
    ('etter a upper case', 'lower case omega')
    """
    script, case, _, *words = unicodedata.name(letter).lower().split()
    name = str(rng.choice(ORDERS)).format(script=script, case=rng.choice(CASES[case]), letter=" ".join(words))
    long = [i for i, word in enumerate(name.split()) if len(word) >= 4]
    if not long or rng.random() >= SLIP:
        return name
    written, slipped = name.split(), int(rng.choice(long))
    word = written[slipped]
    at, kind = int(rng.integers(len(word) - 1)), int(rng.integers(3))
    middle = ("", word[at] * 2, word[at + 1] + word[at])[kind]
    written[slipped] = word[:at] + middle + word[at + (2 if kind == 2 else 1) :]
    return " ".join(written)


def encode(name: str) -> np.ndarray:
    """uint8 `[32]`, the numbers of a name's letters."""
    row = np.zeros(LETTERS, dtype=np.uint8)
    row[: len(name)] = [SYMBOLS.index(letter) + 1 for letter in name]
    return row
