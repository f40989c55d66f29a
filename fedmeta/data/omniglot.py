"""Omniglot (Lake, Salakhutdinov & Tenenbaum 2015): 1,623 characters of 50 alphabets, each by 20 drawers."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from fedmeta.data.cache import cached_array
from fedmeta.data.class_dataset import ClassDataset, Split
from fedmeta.data.omniglot_download import download
from fedmeta.data.omniglot_files import CHARACTERS, FORMAT, Characters, fingerprint, read
from fedmeta.data.paper import on_paper, smoothed
from fedmeta.errors import ConfigurationError
from fedmeta.parameters import parameter
from fedmeta.seeding import numpy_generator
from fedmeta.tasks import TASKS, Task

ROTATIONS = 4
TEST: Split = "test"
VINYALS_VALIDATION = ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
VINYALS_TEST = (
    "Kannada", "Keble", "Malayalam", "Manipuri", "Mongolian", "Old_Church_Slavonic_(Cyrillic)", "Oriya",
    "Sylheti", "Syriac_(Serto)", "Tengwar", "Tibetan", "ULOG",
)  # fmt: skip
VINYALS_CUT = ("Gurmukhi", 41)
"""The split of Vinyals et al. 2016 as Snell et al. published it (github.com/jakesnell/prototypical-networks, MIT,
data/omniglot/splits/vinyals): whole alphabets, but for one whose characters from the 42nd on are test characters. It
says the same of each of the 1,623 characters as those three lists do."""


@dataclass(frozen=True)
class Omniglot:
    """28x28 glyphs, ink 1 on 0, or grey on paper; quarter turns are classes of their own where asked for."""

    path: str | None = parameter(
        None,
        doc="packed file, torchvision folder, or folder of the official zips; none: $FEDMETA_OMNIGLOT, else download",
    )
    split: str = parameter(
        "original", doc="original (964/659 by alphabet), random:SEED (1100/100/423), or vinyals (1028/172/423)"
    )
    rotations: bool = parameter(False, doc="also the three quarter turns of every character, as classes of their own")
    style: Literal["binary", "grey"] = parameter(
        "binary", doc="ink or none, or grey: soft edges and weaker ink on paper with shading and grain"
    )

    def __post_init__(self) -> None:
        kind, _, seed = self.split.partition(":")
        if self.split not in ("original", "vinyals") and not (kind == "random" and seed.isdigit()):
            raise ConfigurationError(
                f"data.split = '{self.split}' is not known: use original, vinyals, or random:SEED such as random:0"
            )

    @property
    def task(self) -> Task:
        """Classification."""
        return TASKS["classification"]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """One channel of 28x28."""
        return (1, 28, 28)

    @property
    def classes(self) -> int:
        """1,623, or four times as many with rotations."""
        return CHARACTERS * (ROTATIONS if self.rotations else 1)

    def load(self) -> ClassDataset:
        """Read the images, or the prepared copy of them.

        Raises:
            DataError: missing or damaged files, or no network for the download.
        """
        place = Path(self.path) if self.path is not None else _from_environment() or download()
        characters = read(place)
        specification = {
            "data": "omniglot",
            "format": FORMAT,
            "source": fingerprint(place),
            "rotations": self.rotations,
            # Pictures from before there was paper keep their key.
            **({} if self.style == "binary" else {"style": self.style}),
        }
        images = cached_array("omniglot", specification, lambda: self._prepared(characters))
        return _dataset(images, characters, self._splits(characters), self.rotations)

    def _prepared(self, characters: Characters) -> np.ndarray:
        images = _turned(characters.images(), self.rotations)
        if self.style == "binary":
            return images
        papers = (numpy_generator(0, 0, place, "omniglot paper") for place in range(len(images)))
        return on_paper(smoothed(images), papers)

    def _splits(self, characters: Characters) -> list[Split]:
        if self.split == "original":
            return ["train" if background else "test" for background in characters.background]
        if self.split == "vinyals":
            return _vinyals(characters)
        order = np.random.default_rng(int(self.split.partition(":")[2])).permutation(CHARACTERS)
        splits: list[Split] = ["test"] * CHARACTERS
        for i in order[:1100]:
            splits[i] = "train"
        for i in order[1100:1200]:
            splits[i] = "validation"
        return splits


def _vinyals(characters: Characters) -> list[Split]:
    """1,028 training, 172 validation and 423 test characters."""
    splits: list[Split] = []
    for code, name in enumerate(characters.alphabets):
        count = characters.alphabet_of.count(code)
        whole: Split = "validation" if name in VINYALS_VALIDATION else "test" if name in VINYALS_TEST else "train"
        kept = VINYALS_CUT[1] if name == VINYALS_CUT[0] else count
        splits += [whole] * kept
        splits += [TEST] * (count - kept)
    return splits


def _from_environment() -> Path | None:
    chosen = os.environ.get("FEDMETA_OMNIGLOT")
    return Path(chosen) if chosen else None


def _turned(images: np.ndarray, rotations: bool) -> np.ndarray:
    """`[characters, drawers, 28, 28]` to `[turns * characters * drawers, 28, 28]`, the unturned first."""
    turns = [np.rot90(images, turn, axes=(2, 3)) for turn in range(ROTATIONS if rotations else 1)]
    return np.concatenate(turns).reshape(-1, 28, 28)


def _dataset(images: np.ndarray, characters: Characters, splits: list[Split], rotations: bool) -> ClassDataset:
    turns = ROTATIONS if rotations else 1
    drawers, classes = len(images) // (CHARACTERS * turns), CHARACTERS * turns
    labels = np.repeat(np.arange(classes), drawers)
    alphabet_of = np.tile(np.asarray(characters.alphabet_of), turns)
    return ClassDataset(
        examples=images,
        labels=labels,
        splits=splits * turns,
        columns={"alphabet": alphabet_of[labels], "writer": np.tile(np.arange(drawers), classes)},
        names={
            "alphabet": characters.alphabets,
            "writer": [f"drawer {i + 1}" for i in range(drawers)],
            "class": _class_names(characters, turns),
        },
    )


def _class_names(characters: Characters, turns: int) -> list[str]:
    """`Greek/character03`, and `Greek/character03/rot090` where there are turned ones."""
    codes = characters.alphabet_of
    names = [f"{characters.alphabets[code]}/character{i - codes.index(code) + 1:02}" for i, code in enumerate(codes)]
    return names if turns == 1 else [f"{name}/rot{90 * turn:03}" for turn in range(turns) for name in names]
