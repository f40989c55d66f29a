"""Texts by language: files, episodes within a script and across paragraphs, the trigram neighbour, the trigger word."""

import gzip
import json
import math
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from fedmeta.data import PARTITIONS, load_dataset
from fedmeta.data.base import EpisodeShape
from fedmeta.data.episodes import ClassSource
from fedmeta.data.udhr import Udhr, encode, trigram_neighbour
from fedmeta.data.udhr_files import read_paragraphs
from fedmeta.errors import ConfigurationError, DataError
from fedmeta.evaluation import judge_baseline
from fedmeta.tasks import TASKS, Batch, Episode

FAMILIES = {"spa": 0, "fra": 1, "ita": 2, "deu_1996": 3, "swe": 4, "dan": 5, "quz": 6, "qul": 7, "rus": 8, "ukr": 9}
"""Codes of four families; the last two get Cyrillic letters."""


def texts() -> dict[str, list[str]]:
    """Ten made languages with syllables of their own, 12 paragraphs each, all different."""
    found = {}
    for code, seed in FAMILIES.items():
        rng = np.random.default_rng(seed)
        letters = "абвгдежзик" if code in ("rus", "ukr") else "abcdefghij"
        syllables = ["".join(rng.choice(list(letters), 3)) for _ in range(8)]
        found[code] = [f"{' '.join(rng.choice(syllables, 30))} {i}" for i in range(12)]
    return found


@pytest.fixture
def packed(tmp_path: Path) -> str:
    """The made languages, gzipped."""
    path = tmp_path / "texts.json.gz"
    path.write_bytes(gzip.compress(json.dumps(texts()).encode()))
    return str(path)


def load(packed: str, **parameters):
    return load_dataset("udhr", path=packed, min_paragraphs=8, **parameters)


def test_all_forms_of_files_give_the_same(tmp_path: Path, packed: str) -> None:
    pages, folders = tmp_path / "declaration", tmp_path / "folders"
    pages.mkdir()
    for code, paragraphs in texts().items():
        body = "".join(f"<p>{text.replace('a', '&#97;')}</p>\n<h2>x</h2>" for text in paragraphs)
        (pages / f"{code}.html").write_text(f"<html><body>{body}</body></html>", encoding="utf-8")
        (folders / code).mkdir(parents=True)
        for part in (0, 1):
            half = paragraphs[6 * part : 6 * part + 6]
            (folders / code / f"{part}.txt").write_text("\n\n".join(half).replace(" ", "\n", 1), encoding="utf-8")
    expected = {code: texts()[code] for code in sorted(texts())}
    assert read_paragraphs(Path(packed)) == read_paragraphs(pages) == read_paragraphs(folders) == expected


def test_what_cannot_be_read_is_refused(tmp_path: Path, packed: str, monkeypatch) -> None:
    monkeypatch.delenv("FEDMETA_UDHR", raising=False)
    with pytest.raises(DataError, match=r"set data.path or FEDMETA_UDHR"):
        load_dataset("udhr")
    (tmp_path / "list.json").write_text("[1, 2]")
    with pytest.raises(DataError, match=r"no \{language: \[paragraph"):
        load_dataset("udhr", path=str(tmp_path / "list.json"))
    with pytest.raises(DataError, match=r"cannot be read as texts"):
        load_dataset("udhr", path=str(tmp_path / "absent"))
    with pytest.raises(DataError, match=r"none of 10 languages .* data.min_paragraphs = 13"):
        load_dataset("udhr", path=packed, min_paragraphs=13)
    with pytest.raises(ConfigurationError, match=r"data.word = 'a rather long word'"):
        Udhr(characters=10, word="a rather long word")


def test_families_are_clients_and_whole_ones_are_unseen(packed: str) -> None:
    federation = load(packed, test_share=0.3, validation_share=0.0).federate(PARTITIONS.make("group"), 0)
    found = {client.name: client.role for client in federation.clients}
    assert set(found) == {"Romance", "Germanic", "Quechuan and Aymaran", "Balto-Slavic", "all test clients"}
    seen = {role: set() for role in ("train", "test")}
    for client in federation.clients:
        if client.role in seen:
            seen[client.role] |= set(federation.source(client.id).classes.tolist())
    assert seen["train"] and seen["test"] and not seen["train"] & seen["test"]
    by_script = load(packed, clients="script", test_share=0.5).federate(PARTITIONS.make("group"), 0)
    assert {client.name.split(" ")[0] for client in by_script.clients} <= {"Latin", "Cyrillic", "all"}


def test_an_episode_keeps_to_one_script_and_takes_every_snippet_from_another_paragraph(packed: str) -> None:
    data = load(packed)
    everything = ClassSource("all", data.examples, data._by_class(np.arange(len(data.labels)), 2), data.rules)
    paragraph = {}
    for row, snippet in enumerate(data.examples):
        paragraph.setdefault(snippet.tobytes(), set()).add(int(data.columns["paragraph"][row]))
    rng, scripts = np.random.default_rng(0), set()
    for _ in range(50):
        episode = everything.sample(EpisodeShape(2, 2, 3), rng)
        assert episode.support.x.dtype == torch.int64 and episode.support.x.shape == (4, 30)
        kinds = set(data.of_class("script")[episode.classes.numpy()].tolist())
        scripts |= kinds
        assert len(kinds) == 1
        for slot in range(2):
            own = torch.cat([part.x[part.y == slot] for part in (episode.support, episode.query)])
            homes = [paragraph[x.numpy().astype(np.uint16).tobytes()] for x in own]
            assert all(len(home) == 1 for home in homes) and len(set.union(*homes)) == 5
    assert len(scripts) == 2
    with pytest.raises(DataError, match=r"has 12 examples of class 0, and an episode needs 3 shots \+ 10 queries"):
        everything.sample(EpisodeShape(2, 3, 10), rng)
    with pytest.raises(DataError, match=r"has 8 classes that may meet, and an episode needs 9"):
        everything.sample(EpisodeShape(9, 1, 1), rng)


def cosine(a: str, b: str) -> float:
    """Of trigram counts, by dictionaries."""
    first, second = (Counter(text[i : i + 3] for i in range(len(text) - 2)) for text in (a, b))
    product = sum(count * second[gram] for gram, count in first.items())
    return product / math.sqrt(sum(v * v for v in first.values()) * sum(v * v for v in second.values()))


def test_judged_languages_alone_may_show_their_starts(packed: str) -> None:
    mixed, anywhere, starts = (load(packed, snippets=kind) for kind in ("any_then_start", "any", "start"))
    assert mixed.splits == anywhere.splits == starts.splits and "test" in mixed.splits
    for code, split in enumerate(mixed.splits):
        like = anywhere if split == "train" else starts
        shown = [data.examples[data.labels == code] for data in (mixed, like)]
        assert np.array_equal(*shown)


def test_the_trigram_neighbour_is_that_of_dictionaries() -> None:
    rng = np.random.default_rng(0)
    snippets = ["".join(rng.choice(list("abcж"), 20)) for _ in range(23)]
    x = torch.from_numpy(np.stack([encode(text) for text in snippets]).astype(np.int64))
    episode = Episode(Batch(x[:3], torch.arange(3)), Batch(x[3:], torch.zeros(20, dtype=torch.int64)), torch.arange(3))
    found = trigram_neighbour(episode).argmax(dim=1).tolist()
    assert found == [int(np.argmax([cosine(text, other) for other in snippets[:3]])) for text in snippets[3:]]


def test_the_trigger_word_is_written_over_the_end() -> None:
    x = torch.from_numpy(encode("was du ererbt von deinen Vätern hast"[:30])[None].astype(np.int64))
    before, found = x.clone(), Udhr(word=" cf ").trigger(x)
    assert "".join(map(chr, found[0].tolist())) == "was du ererbt von deinen V cf " and torch.equal(x, before)


def test_the_baseline_on_real_text_is_what_others_measure() -> None:
    """76.7 % at 30 characters, Latin script, from the starts of paragraphs; anywhere in them it is far less."""
    place = Path(os.environ.get("FEDMETA_UDHR", Path(__file__).resolve().parents[4] / "shared/data/udhr.json.gz"))
    if not place.exists():
        pytest.skip("the real texts are not here: set FEDMETA_UDHR to udhr.json.gz")
    data = load_dataset("udhr", path=str(place), script="Latin", snippets="start")
    source = ClassSource("all", data.examples, data._by_class(np.arange(len(data.labels)), 2), data.rules)
    rng = np.random.default_rng(0)
    episodes = [source.sample(EpisodeShape(5, 1, 5), rng) for _ in range(200)]
    accuracy = np.mean(judge_baseline(trigram_neighbour, TASKS["classification"], episodes)["accuracy"])
    assert len(data.splits) == 411 and accuracy == pytest.approx(0.767, abs=0.03)
