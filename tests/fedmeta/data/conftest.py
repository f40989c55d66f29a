"""Small data sets, and the real one where it is at hand."""

import os
from pathlib import Path

import numpy as np
import pytest

from fedmeta.data.class_dataset import ClassDataset


@pytest.fixture
def omniglot_path() -> str:
    """The packed file: $FEDMETA_OMNIGLOT, or shared/data beside the checkout; the test is skipped without it."""
    beside = Path(__file__).resolve().parents[4] / "shared" / "data" / "omniglot28.npz"
    path = Path(os.environ.get("FEDMETA_OMNIGLOT", beside))
    if not path.exists():
        pytest.skip("real Omniglot is not here: set FEDMETA_OMNIGLOT to omniglot28.npz")
    return str(path)


@pytest.fixture
def own_cache(tmp_path, monkeypatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("FEDMETA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def toy() -> ClassDataset:
    """24 classes of 4 alphabets by 10 writers, 2 examples each; the first pixel is the position in the class."""
    classes, writers, each = 24, 10, 2
    labels = np.repeat(np.arange(classes), writers * each)
    examples = np.zeros((len(labels), 4, 4), dtype=np.uint8)
    examples[:, 0, 0] = np.tile(np.arange(writers * each), classes)
    examples[:, 0, 1] = labels
    alphabets = np.arange(classes) // 6
    return ClassDataset(
        examples,
        labels,
        ["test" if alphabet == 3 else "train" for alphabet in alphabets],
        {"alphabet": alphabets[labels], "writer": np.tile(np.repeat(np.arange(writers), each), classes)},
        {"alphabet": ["A", "B", "C", "D"]},
    )
