"""Omniglot in all its forms, Hershey, sine waves, and the cache."""

import json
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fedmeta.data import DATASETS, PARTITIONS, load_dataset
from fedmeta.data.base import EpisodeShape
from fedmeta.data.cache import cached_array
from fedmeta.data.episodes import frozen_episodes
from fedmeta.data.hershey_glyphs import ALPHABETS
from fedmeta.errors import ConfigurationError, DataError
from fedmeta.evaluation import nearest_neighbour


def test_omniglot_sizes(omniglot_path: str) -> None:
    original = load_dataset("omniglot", path=omniglot_path)
    assert original.examples.shape == (32460, 28, 28) and set(np.unique(original.examples[:50])) == {0, 255}
    assert Counter(original.splits) == {"train": 964, "test": 659}
    vinyals = load_dataset("omniglot", path=omniglot_path, split="vinyals")
    assert Counter(vinyals.splits) == {"train": 1028, "validation": 172, "test": 423}
    drawn = load_dataset("omniglot", path=omniglot_path, split="random:0")
    assert Counter(drawn.splits) == {"train": 1100, "validation": 100, "test": 423}
    assert drawn.splits != load_dataset("omniglot", path=omniglot_path, split="random:1").splits


def test_omniglot_federation_is_thirty_and_twenty_alphabets(omniglot_path: str) -> None:
    federation = load_dataset("omniglot", path=omniglot_path).federate(PARTITIONS.make("alphabet"), 0)
    assert Counter(client.role for client in federation.clients) == {"train": 30, "test": 20, "pooled": 1}


def test_pixel_neighbour_on_omniglot_is_what_others_measure(omniglot_path: str) -> None:
    federation = load_dataset("omniglot", path=omniglot_path).federate(PARTITIONS.make("alphabet"), 0)
    pooled = federation.source(federation.clients[-1].id)
    scores = [nearest_neighbour(e) for e in frozen_episodes(pooled, EpisodeShape(5, 1, 15), 200, 0, 0)]
    assert 0.37 < np.mean(scores) < 0.45, "chance is 0.2"


def test_rotations_are_classes_of_their_own(omniglot_path: str, own_cache: Path) -> None:
    plain = load_dataset("omniglot", path=omniglot_path)
    turned = load_dataset("omniglot", path=omniglot_path, rotations=True)
    assert turned.classes == 4 * plain.classes
    quarter = turned.examples[turned.labels == 1623]
    assert np.array_equal(quarter[0], np.rot90(plain.examples[0]))
    assert turned.splits[1623:3246] == plain.splits


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """All 32,460 files of the official layout, tiny and nearly empty."""
    import io

    from PIL import Image

    def png(ink: int) -> bytes:
        picture = np.full((105, 105), 255, dtype=np.uint8)
        picture[:, : 15 * ink] = 0
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        return buffer.getvalue()

    contents = {ink: png(ink) for ink in range(1, 4)}
    for name, characters in (("images_background", 964), ("images_evaluation", 659)):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            for c in range(characters):
                for drawer in range(1, 21):
                    path = f"{name}/Alphabet_{c // 40:02}/character{c % 40 + 1:02}/{c:04}_{drawer:02}.png"
                    archive.writestr(path, contents[c % 3 + 1])
    return tmp_path


def test_zips_and_folders_give_the_same(tree: Path, own_cache: Path) -> None:
    zipped = load_dataset("omniglot", path=str(tree))
    assert zipped.examples.shape == (32460, 28, 28)
    assert [int(zipped.examples[20 * c].sum() // 255 // 28) for c in range(3)] == [4, 8, 12]
    folder = tree / "extracted" / "omniglot-py"
    for name in ("images_background", "images_evaluation"):
        zipfile.ZipFile(tree / f"{name}.zip").extractall(folder)
    extracted = load_dataset("omniglot", path=str(tree / "extracted"))
    assert np.array_equal(zipped.examples, extracted.examples)
    assert zipped.splits == extracted.splits and zipped.names == extracted.names
    (folder / "images_evaluation" / "Alphabet_00" / "character01" / "0000_01.png").unlink()
    with pytest.raises(DataError, match="holds 1623 characters and 32459 images"):
        load_dataset("omniglot", path=str(tree / "extracted"))


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


def test_unwritable_cache_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEDMETA_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="FEDMETA_CACHE"):
        cached_array("x", {"a": 1}, lambda: np.zeros(1))
