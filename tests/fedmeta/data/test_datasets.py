"""Omniglot in all its forms, Hershey, sine waves, and the cache."""

import base64
import hashlib
import io
import json
import urllib.error
import urllib.request
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedmeta.data import DATASETS, PARTITIONS, hershey_glyphs, load_dataset, omniglot_files
from fedmeta.data.base import EpisodeShape
from fedmeta.data.cache import cached_array
from fedmeta.data.class_dataset import ClassDataset
from fedmeta.data.episodes import frozen_episodes
from fedmeta.data.hershey import Hershey
from fedmeta.data.hershey_glyphs import ALIKE_ACROSS, ALPHABETS, LETTERLESS, _blurred, glyphs
from fedmeta.data.omniglot_files import _small
from fedmeta.errors import ConfigurationError, DataError
from fedmeta.evaluation import judge_baseline, nearest_neighbour
from fedmeta.tasks import TASKS

VINYALS = "2886aa3d63582dff60bb6ce240544c5dc44d1025f54ba3b2d9b1d32482a52fda"
"""Of the lines `split alphabet/character`, sorted, made of the three lists that Snell et al. 2017 published."""


def test_omniglot_sizes(omniglot_path: str) -> None:
    original = load_dataset("omniglot", path=omniglot_path)
    assert original.examples.shape == (32460, 28, 28) and set(np.unique(original.examples[:50])) == {0, 255}
    assert Counter(original.splits) == {"train": 964, "test": 659}
    vinyals = load_dataset("omniglot", path=omniglot_path, split="vinyals")
    assert Counter(vinyals.splits) == {"train": 1028, "validation": 172, "test": 423}
    listed = "\n".join(
        sorted(f"{split} {name}" for split, name in zip(vinyals.splits, vinyals.names["class"], strict=True))
    )
    assert hashlib.sha256(listed.encode()).hexdigest() == VINYALS, "as the published lists"
    drawn = load_dataset("omniglot", path=omniglot_path, split="random:0")
    assert Counter(drawn.splits) == {"train": 1100, "validation": 100, "test": 423}
    assert drawn.splits != load_dataset("omniglot", path=omniglot_path, split="random:1").splits


def test_omniglot_federation_is_thirty_and_twenty_alphabets(omniglot_path: str) -> None:
    federation = load_dataset("omniglot", path=omniglot_path).federate(PARTITIONS.make("alphabet"), 0)
    assert Counter(client.role for client in federation.clients) == {"train": 30, "test": 20, "pooled": 1}


def test_pixel_neighbour_on_omniglot_is_what_others_measure(omniglot_path: str) -> None:
    federation = load_dataset("omniglot", path=omniglot_path).federate(PARTITIONS.make("alphabet"), 0)
    pooled = federation.source(federation.clients[-1].id)
    episodes = frozen_episodes(pooled, EpisodeShape(5, 1, 15), 200, 0, "pooled")
    scores = judge_baseline(nearest_neighbour, TASKS["classification"], episodes)["accuracy"]
    assert 0.37 < np.mean(scores) < 0.45, "chance is 0.2"


def test_rotations_are_classes_of_their_own(omniglot_path: str, own_cache: Path) -> None:
    plain = load_dataset("omniglot", path=omniglot_path)
    turned = load_dataset("omniglot", path=omniglot_path, rotations=True)
    assert turned.classes == 4 * plain.classes
    quarter = turned.examples[turned.labels == 1623]
    assert np.array_equal(quarter[0], np.rot90(plain.examples[0]))
    assert turned.splits[1623:3246] == plain.splits


PICTURES = {
    "Balinese/character01": (
        "iVBORw0KGgoAAAANSUhEUgAAAGkAAABpAQAAAAAR+TCXAAAAB3RJTUUH3woUEi83D3Q2TwAAANFJREFUOI3t0s0JAyEQBeBZDHiL6WBTQjow"
        "paSEdODKNmY6sYQ5zkGcrIu/BPYeWMHDh/Ac8QH3a4GT/8NpYATTM8Dck0CNp7Iw7XApDCklCpGJe+i0DrQ20+90LtO9E/2zEHXiK9NSIt4H"
        "0t0MfGSumKLoNjAUsj/kNo/q+OEgOlom0ZI34tTu5XV7FGOlYLfxXSjZvUxllLyg9pWKLWqHjSvNPQXNtjHKcBWNQQboSCqCrJQ4MygqYwBo"
        "Bt3RsDO1DMv+K43T0Bwvf4t08uQxv46TGIYauEIpAAAAAElFTkSuQmCC"
    ),
    "Greek/character01": (
        "iVBORw0KGgoAAAANSUhEUgAAAGkAAABpAQAAAAAR+TCXAAAAB3RJTUUH3woUEjAah/FkpAAAAMNJREFUOI3t0rENwjAQBVBbLlx6A2AEJsCM"
        "wgjZwImymLOJJRa40kXkIyKS/S+IVHTkuqcrTvr3FeP06k9Z3I9IPCOjz+fGos7IWbnskRaZlUHSSRMweU0BGCZBFowckQOnJPkAjpzuEI5h"
        "0kC7Zd7lbASLJG+2eo+zkoe2DIIXQbrushNMXXgiKUzA+MEBOJAfgWO+GaBZftpYbFa25Vzs0of2heyWtrQfJcd9qIzvFdAj05pFbc6acu2V"
        "E6xz8OBXvgDKyRu2f3BinQAAAABJRU5ErkJggg=="
    ),
}
"""The first drawer's picture of two characters, 105x105, from github.com/brendenlake/omniglot (MIT, Brenden Lake)."""


@pytest.mark.parametrize("character", PICTURES)
def test_official_pictures_become_those_of_the_packed_file(omniglot_path: str, character: str) -> None:
    packed = load_dataset("omniglot", path=omniglot_path)
    row = packed.names["class"].index(character) * 20
    assert np.array_equal(_small(base64.b64decode(PICTURES[character]), character), packed.examples[row])


DRAWN = 2
"""Drawers of the small copy, so that it is made in a second."""


@pytest.fixture
def zips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The official layout with every character, and few nearly empty pictures of each."""
    monkeypatch.setattr(omniglot_files, "DRAWERS", DRAWN)

    def png(ink: int) -> bytes:
        picture = np.full((105, 105), 255, dtype=np.uint8)
        picture[:, : 15 * ink] = 0
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        return buffer.getvalue()

    contents = {ink: png(ink) for ink in range(1, 4)}
    for name, numbers in (("images_background", range(1, 965)), ("images_evaluation", range(965, 1624))):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            for number in numbers:
                for drawer in range(1, DRAWN + 1):
                    # The numbers do not follow the alphabetical order of the alphabets, as in the original.
                    folder = f"{name}/Alphabet_{99 - number // 40}/character{number % 40 + 1:02}"
                    archive.writestr(f"{folder}/{number:04}_{drawer:02}.png", contents[number % 3 + 1])
    return tmp_path


def test_zips_folders_and_packed_file_give_the_same(zips: Path, own_cache: Path) -> None:
    zipped = load_dataset("omniglot", path=str(zips))
    assert zipped.examples.shape == (1623 * DRAWN, 28, 28) and Counter(zipped.splits) == {"train": 964, "test": 659}
    assert [int(zipped.examples[DRAWN * c].sum() // 255 // 28) for c in range(3)] == [8, 12, 4]
    (zips / "extracted" / "omniglot-py").mkdir(parents=True)
    for name in ("images_background", "images_evaluation"):
        zipfile.ZipFile(zips / f"{name}.zip").extractall(zips / "extracted" / "omniglot-py")
    np.savez(zips / "packed.npz", images=np.packbits(zipped.examples.reshape(1623, DRAWN, -1) > 0, axis=-1))
    (zips / "packed.json").write_text(json.dumps(description(zipped)))
    for other in ("extracted", "packed.npz"):
        same = load_dataset("omniglot", path=str(zips / other))
        assert np.array_equal(zipped.examples, same.examples)
        assert zipped.splits == same.splits and zipped.names == same.names
    (zips / "extracted/omniglot-py/images_evaluation/Alphabet_75/character08/0967_01.png").unlink()
    with pytest.raises(DataError, match=f"holds 1623 characters and {1623 * DRAWN - 1} images"):
        load_dataset("omniglot", path=str(zips / "extracted"))


def description(dataset: ClassDataset) -> list[dict]:
    """What stands beside the packed file."""
    codes = dataset.columns["alphabet"][::DRAWN]
    rows = [np.flatnonzero(codes == code) for code in range(len(dataset.names["alphabet"]))]
    sets = {"train": "background", "test": "evaluation"}
    return [
        {"name": name, "set": sets[dataset.splits[own[0]]], "first": int(own[0]), "stop": int(own[-1]) + 1}
        for name, own in zip(dataset.names["alphabet"], rows, strict=True)
    ]


def test_a_damaged_zip_is_named(zips: Path, own_cache: Path) -> None:
    path = zips / "images_evaluation.zip"
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 3] ^= 255
    path.write_bytes(bytes(damaged))
    with pytest.raises(DataError, match=r"images_evaluation\.zip' is (missing or )?damaged"):
        load_dataset("omniglot", path=str(zips))
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"images_evaluation\.zip' is missing or damaged"):
        load_dataset("omniglot", path=str(zips))
    path.unlink()
    with pytest.raises(DataError, match=r"images_evaluation\.zip' is missing or damaged"):
        load_dataset("omniglot", path=str(zips))


def test_without_a_network_the_remedy_is_told(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEDMETA_OMNIGLOT", raising=False)

    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    with pytest.raises(DataError, match=r"cannot be downloaded.*no route.*set data\.path"):
        load_dataset("omniglot")
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: io.BytesIO(b"<html>sorry</html>"))
    with pytest.raises(DataError, match="is not the official file"):
        load_dataset("omniglot")
    assert not list(own_cache.rglob("*.zip"))


def test_missing_and_damaged_files_are_named(tmp_path: Path, own_cache: Path) -> None:
    with pytest.raises(DataError, match=r"no Omniglot at '.*nowhere'"):
        load_dataset("omniglot", path=str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="no Omniglot in a known form"):
        load_dataset("omniglot", path=str(tmp_path))
    (tmp_path / "packed.npz").write_bytes(b"not a zip")
    with pytest.raises(DataError, match=r"packed\.json"):
        load_dataset("omniglot", path=str(tmp_path / "packed.npz"))
    entries = [{"name": "A", "set": "background", "first": 0, "stop": 1623}]
    (tmp_path / "packed.json").write_text(json.dumps(entries))
    with pytest.raises(DataError, match=r"packed\.npz' is damaged"):
        load_dataset("omniglot", path=str(tmp_path / "packed.npz"))
    with pytest.raises(ConfigurationError, match=r"data\.split = 'orignal'"):
        load_dataset("omniglot", split="orignal")


def test_hershey_is_deterministic_and_shaped_as_it_says(own_cache: Path) -> None:
    small = {"writers": 2, "examples_per_writer": 2}
    one = load_dataset("hershey", **small)
    spec = DATASETS.make("hershey", **small)
    assert one.examples.shape == (spec.classes * 4, 28, 28) and one.input_shape == spec.input_shape
    assert len(set(one.columns["alphabet"].tolist())) == len(ALPHABETS) == 19
    before = one.examples.copy()
    for path in own_cache.iterdir():
        path.unlink()
    assert np.array_equal(before, load_dataset("hershey", **small).examples)
    other = load_dataset("hershey", **small, drawing_seed=1)
    assert not np.array_equal(before, other.examples)
    assert before.reshape(len(before), -1).max(axis=1).min() > 100, "every picture has ink"
    assert before.mean() / 255 < 0.3


def test_what_a_server_asks_needs_no_font_and_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEDMETA_OMNIGLOT", raising=False)
    glyphs.cache_clear()
    specs = {name: DATASETS.make(name) for name in ("hershey", "omniglot", "sinusoid")}
    assert {name: (spec.task.kind, spec.input_shape, spec.classes) for name, spec in specs.items()} == {
        "hershey": ("classification", (1, 28, 28), 1148),
        "omniglot": ("classification", (1, 28, 28), 1623),
        "sinusoid": ("regression", (1,), 0),
    }
    assert glyphs.cache_info().currsize == 0
    assert DATASETS.make("omniglot", rotations=True).classes == 4 * 1623


def test_letters_are_never_test_alphabets(own_cache: Path) -> None:
    """An A in Gothic script has been seen by whoever has seen one in Roman."""
    drawn = [
        DATASETS.make("hershey", split=split)._splits() for split in ("fixed", *(f"random:{i}" for i in range(20)))
    ]
    for splits in drawn:
        assert Counter(splits) == {"train": 14, "validation": 2, "test": 3} and set(splits[:14]) == {"train"}
    assert len(set(drawn)) > 5 and drawn[1] == DATASETS.make("hershey", split="random:0")._splits() != drawn[2]


def test_no_test_glyph_looks_like_a_training_glyph() -> None:
    pictures = np.stack([_blurred(glyph.points) for glyph in glyphs()])
    tested = np.array([glyph.alphabet in LETTERLESS for glyph in glyphs()])
    assert (pictures[tested] @ pictures[~tested].T).max() <= ALIKE_ACROSS


def test_another_version_of_the_fonts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fewer = {name: entry._replace(size=entry.size - 1) for name, entry in ALPHABETS.items()}
    monkeypatch.setattr(hershey_glyphs, "ALPHABETS", fewer)
    with pytest.raises(DataError, match=r"install Hershey-Fonts 2\.1"):
        glyphs.__wrapped__()


def test_every_drawing_parameter_has_its_own_cached_file(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The split divides the same pictures, so it has none."""
    monkeypatch.setattr(Hershey, "_draw_all", lambda spec: np.zeros((spec.classes, 28, 28), dtype=np.uint8))
    drawing = ({}, {"writers": 3}, {"examples_per_writer": 3}, {"drawing_seed": 1}, {"style": "grey"})
    for parameters in (*drawing, {"split": "random:0"}, {"style": "ink"}):
        Hershey(**parameters).load()
    assert len(list(own_cache.glob("hershey-*.npy"))) == 5
    monkeypatch.setattr("fedmeta.data.hershey.FORMAT", 99)
    Hershey().load()
    assert len(list(own_cache.glob("hershey-*.npy"))) == 6


def test_more_writers_do_not_change_those_there_are(own_cache: Path) -> None:
    from fedmeta.data.hershey_writers import writers_styles

    few, many = writers_styles(2, 0), writers_styles(5, 0)
    assert np.array_equal(few.pen, many.pen[:2])


def test_sine_waves_lie_on_one_wave() -> None:
    dataset = load_dataset("sinusoid")
    federation = dataset.federate(PARTITIONS.make("iid", clients=2, test_clients=1), 0)
    episode = federation.source(0).sample(EpisodeShape(1, 10, 5), np.random.default_rng(0))
    x = np.concatenate([episode.support.x, episode.query.x])[:, 0].astype(np.float64)
    y = np.concatenate([episode.support.y, episode.query.y])[:, 0]
    basis = np.stack([np.sin(x), np.cos(x)], axis=1)
    fit = np.linalg.lstsq(basis, y, rcond=None)
    assert np.allclose(basis @ fit[0], y, atol=1e-5)
    assert 0.1 <= np.linalg.norm(fit[0]) <= 5.0 + 1e-6


def test_cache_key_checksum_and_repair(own_cache: Path) -> None:
    calls = []

    def make() -> np.ndarray:
        calls.append(1)
        return np.arange(6, dtype=np.uint8)

    first = cached_array("x", {"a": 1}, make)
    assert np.array_equal(first, cached_array("x", {"a": 1}, make)) and len(calls) == 1
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 9
    cached_array("x", {"a": 2}, make)
    assert len(calls) == 2, "another specification is another file"
    [path] = [p for p in own_cache.glob("*.npy") if np.array_equal(np.load(p), first)][:1]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    assert np.array_equal(cached_array("x", {"a": 1}, make), np.arange(6)), "a damaged file is made again"


def test_a_damaged_cache_is_told(own_cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    cached_array("x", {"a": 1}, lambda: np.arange(6))
    assert not caplog.records
    [path] = own_cache.glob("*.npy")
    for damage in (b"", path.read_bytes()[:-3], b"nonsense"):
        path.write_bytes(damage)
        assert np.array_equal(cached_array("x", {"a": 1}, lambda: np.arange(6)), np.arange(6))
    path.with_suffix(".sha256").unlink()
    assert np.array_equal(cached_array("x", {"a": 1}, lambda: np.arange(6)), np.arange(6))
    assert [str(path) in record.message for record in caplog.records] == [True] * 4


def test_many_makers_at_once(own_cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Every one gets the whole array, and nobody takes another's half-finished work for damage."""
    content = np.random.default_rng(0).integers(0, 255, size=200_000, dtype=np.uint8)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: cached_array("x", {"a": 1}, lambda: content), range(64)))
    assert all(np.array_equal(array, content) for array in found)
    assert not caplog.records and len(list(own_cache.iterdir())) == 2


def test_unwritable_cache_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEDMETA_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="FEDMETA_CACHE"):
        cached_array("x", {"a": 1}, lambda: np.zeros(1))
