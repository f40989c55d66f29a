"""Hershey: stroke glyphs of 19 alphabets, drawn by simulated writers; the embedded default data set.

Like Omniglot it has few examples of many classes, with writers and alphabets as natural divisions; unlike it, every
writer draws a glyph several times. No download: the strokes are those of the PyPI package `Hershey-Fonts` (the Hershey
fonts of 1967 are in the public domain).
"""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

import numpy as np

from fedmeta.data.cache import cached_array
from fedmeta.data.class_dataset import ClassDataset, Split
from fedmeta.data.hershey_glyphs import ALPHABETS, LETTERLESS, Glyph, glyphs
from fedmeta.data.hershey_writers import SIDE, Styles, draw, writers_styles
from fedmeta.data.paper import on_paper
from fedmeta.errors import ConfigurationError
from fedmeta.parameters import parameter
from fedmeta.seeding import numpy_generator
from fedmeta.tasks import TASKS, Task

FORMAT = 2
"""Changes whenever the pictures would: part of the cache key."""

TEST_ALPHABETS = 3


@dataclass(frozen=True)
class Hershey:
    """Anti-aliased 28x28 glyphs, ink 1 on 0, or grey on paper.

    Test alphabets are Japanese, music and symbols, unless drawn by a seed.
    """

    writers: int = parameter(10, ge=1, doc="simulated writers, each with a style", unit="writers")
    examples_per_writer: int = parameter(8, ge=1, doc="times that a writer draws each glyph", unit="examples")
    drawing_seed: int = parameter(0, ge=0, doc="of styles, strokes and paper")
    split: str = parameter(
        "fixed", doc="fixed, or random:SEED, which draws the 3 test alphabets of the 5 that hold no letters"
    )
    style: Literal["ink", "grey"] = parameter(
        "ink", doc="ink on a blank sheet, or grey: weaker ink on paper with shading and grain"
    )

    def __post_init__(self) -> None:
        kind, _, seed = self.split.partition(":")
        if self.split != "fixed" and not (kind == "random" and seed.isdigit()):
            raise ConfigurationError(
                f"data.split = '{self.split}' is not known: use fixed, or random:SEED such as random:0"
            )

    @property
    def task(self) -> Task:
        """Classification."""
        return TASKS["classification"]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """One channel of 28x28."""
        return (1, SIDE, SIDE)

    @property
    def classes(self) -> int:
        """Distinct glyphs over all alphabets."""
        return sum(alphabet.size for alphabet in ALPHABETS.values())

    def load(self) -> ClassDataset:
        """Draw all pictures, or map the ones drawn before."""
        specification = {
            "data": "hershey",
            "format": FORMAT,
            "fonts": version("Hershey-Fonts"),
            "alphabets": [[name, alphabet.size] for name, alphabet in ALPHABETS.items()],
            "writers": self.writers,
            "examples_per_writer": self.examples_per_writer,
            "drawing_seed": self.drawing_seed,
            # Pictures from before there was paper keep their key.
            **({} if self.style == "ink" else {"style": self.style}),
        }
        each = self.writers * self.examples_per_writer
        images = cached_array("hershey", specification, self._draw_all)
        labels = np.repeat(np.arange(self.classes), each)
        alphabet_of = np.repeat(np.arange(len(ALPHABETS)), [alphabet.size for alphabet in ALPHABETS.values()])
        splits = self._splits()
        return ClassDataset(
            examples=images,
            labels=labels,
            splits=[splits[code] for code in alphabet_of],
            columns={
                "alphabet": alphabet_of[labels],
                "writer": np.tile(np.repeat(np.arange(self.writers), self.examples_per_writer), self.classes),
            },
            names={
                "alphabet": list(ALPHABETS),
                "writer": [f"writer {i + 1}" for i in range(self.writers)],
                "class": [f"{name}/glyph{i + 1:03}" for name, entry in ALPHABETS.items() for i in range(entry.size)],
            },
        )

    def _draw_all(self) -> np.ndarray:
        styles = writers_styles(self.writers, self.drawing_seed)
        return np.concatenate([self._draw(i, glyph, styles) for i, glyph in enumerate(glyphs())])

    def _draw(self, code: int, glyph: Glyph, styles: Styles) -> np.ndarray:
        rng = numpy_generator(self.drawing_seed, 0, code, "hershey glyph")
        pictures = draw(glyph, styles, self.examples_per_writer, rng)
        if self.style == "ink":
            return pictures
        places = [(writer, example) for writer in range(self.writers) for example in range(self.examples_per_writer)]
        papers = (
            numpy_generator(self.drawing_seed, example, writer, f"hershey paper/{code}") for writer, example in places
        )
        return on_paper(pictures, papers)

    def _splits(self) -> tuple[Split, ...]:
        splits = [alphabet.split for alphabet in ALPHABETS.values()]
        if self.split == "fixed":
            return tuple(splits)
        order = np.random.default_rng(int(self.split.partition(":")[2])).permutation(LETTERLESS)
        for i, code in enumerate(order):
            splits[code] = "test" if i < TEST_ALPHABETS else "validation"
        return tuple(splits)
