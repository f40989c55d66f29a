"""Data of one's own: every form gives the same data set, and what does not fit is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from fedmeta.data import from_arrays, from_folder, from_partitions, from_rows, from_torchmeta, load_dataset
from fedmeta.data.class_dataset import ClassDataset
from fedmeta.data.given import digest_of, hand_over
from fedmeta.errors import ConfigurationError, DataError
from fedmeta.workload import Workload
from server.configuration import load

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (24, 6, 5)).astype(np.uint8)
LABELS = np.repeat(["ape", "bee", "cow", "dog"], 6)
OWNERS = np.tile(["north", "south"], 12)


class Torch(Dataset):
    """Tensors and numbers, as torchvision gives them."""

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor, str]:
        return torch.from_numpy(IMAGES[i]), torch.tensor("abcd".index(LABELS[i][0])), OWNERS[i]


class HuggingFace:
    """Rows as mappings, images of Pillow; like `datasets.Dataset`."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        row = self.rows[i]
        return {"image": Image.fromarray(IMAGES[row]), "label": str(LABELS[row]), "writer": str(OWNERS[row])}


class Partitioned:
    """Like a partitioner of flwr-datasets."""

    num_partitions = 2

    def load_partition(self, partition_id: int) -> HuggingFace:
        return HuggingFace(np.flatnonzero(np.unique(OWNERS, return_inverse=True)[1] == partition_id))


class Meta:
    """Like torchmeta's CombinationMetaDataset: a task's targets only tell its classes apart."""

    num_classes_per_task = 2

    def __init__(self, labels: list[str]) -> None:
        self.dataset = labels

    def __getitem__(self, classes: tuple[int, ...]) -> list[tuple[np.ndarray, int]]:
        if len(classes) != 2:
            raise ValueError("wrong number of classes")
        rng = np.random.default_rng(sum(classes))
        slots = rng.permutation(2)
        return [
            (image, int(slots[place])) for place, c in enumerate(classes) for image in IMAGES[self.dataset[c] == LABELS]
        ]


def content(data: ClassDataset) -> set[tuple[bytes, str, str]]:
    """What is in it, in any order."""
    owners = data.columns.get("client", np.zeros(len(data.labels), dtype=int))
    names = data.names.get("client", ["nobody"])
    return {
        (x.tobytes(), data.names["class"][label][0], names[owner][-1])
        for x, label, owner in zip(data.examples, data.labels, owners, strict=True)
    }


def test_arrays_rows_and_folders_give_the_same(tmp_path: Path) -> None:
    for i, image in enumerate(IMAGES):
        folder = tmp_path / OWNERS[i] / LABELS[i]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:02}.png")
    expected = from_arrays(IMAGES, LABELS, OWNERS)
    assert expected.input_shape == (1, 6, 5) and expected.splits.count("test") == 1
    hugging = from_rows(HuggingFace(np.arange(24)), x="image", label="label", client="writer")
    assert content(hugging) == content(from_folder(tmp_path, (1, 6, 5))) == content(expected)
    assert digest_of(hugging) == digest_of(expected) != digest_of(from_arrays(IMAGES, LABELS, OWNERS, seed=1))
    torches = from_rows(Torch(), client=2)
    assert np.array_equal(torches.examples, IMAGES) and torches.names["class"] == ["0", "1", "2", "3"]
    assert torches.names["client"] == ["north", "south"]
    named = load_dataset("images", path=str(tmp_path), shape=[1, 6, 5])
    assert content(named) == content(expected)


def test_partitions_are_clients() -> None:
    found = from_partitions(Partitioned(), x="image", label="label")
    assert found.names["client"] == ["client 0", "client 1"]
    assert {(x, c) for x, c, _ in content(found)} == {(x, c) for x, c, _ in content(from_arrays(IMAGES, LABELS))}


def test_torchmeta_shaped_objects_keep_their_splits() -> None:
    found = from_torchmeta(Meta(["ape", "bee", "cow"]), Meta(["dog", "ape"]))
    assert found.splits == ["test", "test", "train", "train", "train"] and len(found.labels) == 30
    for label in range(5):
        name = ["dog", "ape", "ape", "bee", "cow"][label]
        own = {x.tobytes() for x in found.examples[found.labels == label]}
        assert own == {x.tobytes() for x in IMAGES[name == LABELS]}, name


def test_colours_and_floats() -> None:
    picture = Image.fromarray(RNG.integers(0, 256, (6, 5, 3)).astype(np.uint8))
    assert from_rows([(picture, 0), (picture, 1)], test_share=0.0).input_shape == (3, 6, 5)
    floats = from_rows([(np.ones(4), 0), (np.zeros(4), 1)], test_share=0.0)
    assert floats.examples.dtype == np.float32 and floats.input_shape == (4,)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 0 has no 'picture', but keys image, label, writer: say where its x is"):
        from_rows(HuggingFace(np.arange(2)), x="picture", label="label")
    with pytest.raises(DataError, match=r"inputs have shapes \(2,\), \(3,\): bring them to one"):
        from_rows([(np.ones(2), 0), (np.ones(3), 1)])
    with pytest.raises(DataError, match=r"2 examples, 2 labels and 1 clients"):
        from_rows([(np.ones(2), 0), (np.ones(2), 1)], client=[1])
    with pytest.raises(DataError, match=r"holds no folders"):
        from_folder(tmp_path)
    (tmp_path / "north").mkdir()
    with pytest.raises(DataError, match=r"the client's folder '.*north': it holds no folders"):
        from_folder(tmp_path)
    with pytest.raises(DataError, match=r"splits says nothing of class 1"):
        from_arrays(np.ones((2, 3)), [0, 1], splits={0: "train"})
    with pytest.raises(DataError, match=r"needs data.path"):
        load_dataset("images")


def test_what_is_missing_makes_no_class_and_no_client() -> None:
    """None, NaN and empty names are told by row: as a class of their own they would be learnt."""
    x = np.ones((3, 2), dtype=np.float32)
    for missing in (None, float("nan"), "", np.datetime64("NaT")):
        with pytest.raises(DataError, match=r"row 1 has no label .*, nor has 1 other: fill it in, or drop"):
            from_rows([(row, label) for row, label in zip(x, ["a", missing, missing], strict=True)])
        with pytest.raises(DataError, match=r"row 2 has no client"):
            from_arrays(x, [0, 1, 2], ["n", "s", missing])
    with pytest.raises(DataError, match=r"row 0 has no label"):
        from_arrays(x, np.array([np.nan, 1.0, 2.0]))
    with pytest.raises(DataError, match=r"labels have shape \(3, 1\): give a flat list"):
        from_arrays(x, np.ones((3, 1)))
    with pytest.raises(DataError, match=r"example 2 holds values that are NaN or infinite"):
        from_arrays(np.array([[0.0], [1.0], [np.inf]]), [0, 1, 2])


def test_pictures_are_not_taken_for_something_else() -> None:
    colour = np.zeros((4, 9, 8, 3), dtype=np.uint8)
    with pytest.raises(DataError, match=r"\(4, 9, 8, 3\), channels last: .*np.moveaxis\(examples, -1, 1\)"):
        from_arrays(colour, [0, 0, 1, 1])
    assert from_arrays(np.moveaxis(colour, -1, 1), [0, 0, 1, 1], test_share=0.5).input_shape == (3, 9, 8)
    assert from_arrays(np.zeros((4, 22, 50, 1)), [0, 0, 1, 1], test_share=0.5).input_shape == (22, 50, 1)
    for grey in (IMAGES.astype(np.int64), IMAGES.tolist()):
        with pytest.raises(DataError, match=r"examples are int64 of shape \(24, 6, 5\): give pictures as uint8"):
            from_arrays(grey, LABELS)
    with pytest.raises(DataError, match=r"examples are int32 of shape .*uint8"):
        from_rows([(image.astype(np.int32), label) for image, label in zip(IMAGES, LABELS, strict=True)])
    tensors = from_arrays(torch.from_numpy(IMAGES), torch.arange(24) % 4, [*OWNERS])  # type: ignore[arg-type]
    assert np.array_equal(tensors.examples, IMAGES) and tensors.classes == 4
    assert from_rows([([1, 2], 0), ([3, 4], 1)], test_share=0.0).examples.dtype == np.float32


def test_unknown_splits_are_refused_with_those_that_there_are() -> None:
    with pytest.raises(DataError, match=r"no split 'val': use train, validation, test"):
        from_arrays(np.ones((2, 3)), [0, 1], splits={0: "train", 1: "val"})  # type: ignore[dict-item]
    data = from_arrays(IMAGES, LABELS)
    with pytest.raises(DataError, match=r"no split 'dev'"):
        data.split_rows("dev")  # type: ignore[arg-type]


def test_own_tasks_of_data_that_cannot_have_them_are_refused(own_cache: Path) -> None:
    glyphs = {
        "data": {"name": "glyph_names", "writers": 1, "examples_per_writer": 2},
        "model": {"name": "two_encoders"},
    }
    waves = {"data": {"name": "sinusoid"}, "partition": {"name": "iid"}, "model": {"name": "mlp"}}
    for raw, reason in ((glyphs, "a task shows one modality in its support"), (waves, "hold no examples of classes")):
        learner = {"name": "maml"}
        experiment = load({**raw, "learner": learner, "task": {"kind": "own", "ways": 1}})
        with pytest.raises(
            ConfigurationError, match=rf"task.kind = 'own' splits .*{reason}.*Set task.kind to episodes"
        ):
            _ = Workload(experiment).federation


def test_a_run_without_its_data_says_so() -> None:
    data = from_arrays(IMAGES, LABELS, OWNERS)
    raw = {"partition": {"name": "column"}, "task": {"ways": 2}, "model": {"name": "mlp", "hidden": [4]}}
    experiment = load(raw, hand_over(data))
    assert Workload(experiment).dataset is data
    other = load(raw, {**hand_over(data), "data.digest": "of another"})
    with pytest.raises(DataError, match=r"Hand over the same ones again"):
        _ = Workload(other).dataset
