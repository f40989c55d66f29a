"""Glyphs and their written names: the support in one modality, the query in the other.

A class is a letter in a style of the Hershey fonts. Each of its examples is a picture by a simulated writer and a name
as that writer puts it: in one of several word orders, perhaps with a slip of the pen. An example is one row of numbers,
the picture's and then the name's letters; the modality that is not shown is all zeros.

Clients may own one modality only (`owners`): such a client trains on tasks of its modality alone, and says which
parameters its data cannot train (`ClientInfo.lacks`), so that no average counts it there.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.metadata import version
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fedmeta.data.base import ClientInfo, EpisodeShape
from fedmeta.data.cache import cached_array
from fedmeta.data.class_dataset import ClassDataset, ClassFederation, Split
from fedmeta.data.episodes import ClassSource
from fedmeta.data.hershey_glyphs import Glyph, along
from fedmeta.data.hershey_writers import SIDE, draw, writers_styles
from fedmeta.data.letter_names import CASES, LETTERS, ORDERS, SLIP, SYMBOLS, encode, key_in_font, letters_of, write_name
from fedmeta.errors import ConfigurationError
from fedmeta.evaluation import nearest_labels
from fedmeta.parameters import parameter
from fedmeta.seeding import SERVER, numpy_generator
from fedmeta.tasks import TASKS, Baseline, Batch, Episode, Task

FORMAT = 1
"""Changes whenever pictures or names would: part of the cache key."""

PIXELS = SIDE * SIDE

STYLES: dict[str, tuple[Split, str, str]] = {
    "Latin plain": ("train", "futural", "latin"),
    "Latin bold": ("train", "futuram", "latin"),
    "Roman": ("train", "rowmant", "latin"),
    "Times": ("train", "timesr", "latin"),
    "Times italic": ("train", "timesi", "latin"),
    "Script": ("train", "scripts", "latin"),
    "Gothic English": ("train", "gothgbt", "latin"),
    "Gothic German": ("train", "gothgrt", "latin"),
    "Greek": ("train", "greeks", "greek"),
    "Times bold italic": ("validation", "timesib", "latin"),
    "Script double": ("test", "scriptc", "latin"),
    "Gothic Italian": ("test", "gothitt", "latin"),
    "Greek double": ("test", "greekc", "greek"),
}
"""Name -> split, font of the package, script."""

Modality = Literal["image", "name"]
OWN: dict[Modality, slice] = {"image": slice(0, PIXELS), "name": slice(PIXELS, PIXELS + LETTERS)}
LACKS: dict[str, tuple[str, ...]] = {"both": (), "image": ("*.name.*",), "name": ("*.image.*",)}
"""What a client owns -> patterns of parameters of model `two_encoders` that its data cannot train."""


@dataclass(frozen=True)
class GlyphNames:
    """Rows of 784 grey values and 32 letters, both over 255. Test styles are new, their letters are not."""

    writers: int = parameter(8, ge=1, doc="simulated writers, each with a style", unit="writers")
    examples_per_writer: int = parameter(4, ge=1, doc="times that a writer draws and names a glyph", unit="examples")
    drawing_seed: int = parameter(0, ge=0, doc="of styles, strokes and names")
    owners: tuple[str, ...] = parameter(
        ("both",), doc="what training clients own, in turn: both, image or name, such as ['both', 'image', 'name']"
    )
    episodes: Literal["cross", "image", "name"] = parameter(
        "cross", doc="support in one modality and query in the other; or both in one, to compare with"
    )

    def __post_init__(self) -> None:
        strange = [owner for owner in self.owners if owner not in LACKS]
        if strange or not self.owners:
            raise ConfigurationError(f"data.owners = {list(self.owners)}: choose among {', '.join(LACKS)}")
        if self.episodes != "cross" and self.owners != ("both",):
            raise ConfigurationError(
                f"data.owners has no effect with data.episodes = '{self.episodes}', in which every client uses that "
                "modality alone: leave it away"
            )

    @property
    def task(self) -> Task:
        """Classification."""
        return TASKS["classification"]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """One row of numbers."""
        return (PIXELS + LETTERS,)

    @property
    def classes(self) -> int:
        """Letters of all styles."""
        return sum(len(letters_of(script)) for _, _, script in STYLES.values())

    def load(self) -> "GlyphNamesData":
        """Draw and write everything, or map what was made before."""
        specification = {
            "data": "glyph_names",
            "format": FORMAT,
            "fonts": version("Hershey-Fonts"),
            "styles": [[name, *entry] for name, entry in STYLES.items()],
            "words": [CASES, ORDERS, SLIP],
            "writers": self.writers,
            "examples_per_writer": self.examples_per_writer,
            "drawing_seed": self.drawing_seed,
        }
        each = self.writers * self.examples_per_writer
        style_of = np.repeat(np.arange(len(STYLES)), [len(letters_of(script)) for _, _, script in STYLES.values()])
        labels = np.repeat(np.arange(len(style_of)), each)
        names = [unicodedata.name(letter).lower() for _, _, script in STYLES.values() for letter in letters_of(script)]
        dataset = ClassDataset(
            examples=cached_array("glyph_names", specification, self._make),
            labels=labels,
            splits=[list(STYLES.values())[code][0] for code in style_of],
            columns={
                "alphabet": style_of[labels],
                "writer": np.tile(np.repeat(np.arange(self.writers), self.examples_per_writer), len(style_of)),
            },
            names={
                "alphabet": list(STYLES),
                "writer": [f"writer {i + 1}" for i in range(self.writers)],
                "class": [f"{list(STYLES)[code]}/{name}" for code, name in zip(style_of, names, strict=True)],
            },
        )
        return GlyphNamesData(self, dataset)

    def _make(self) -> np.ndarray:
        from HersheyFonts import HersheyFonts

        hands, reader, rows = writers_styles(self.writers, self.drawing_seed), HersheyFonts(), []
        for style, (_, font, script) in enumerate(STYLES.values()):
            reader.load_default_font(font)
            for place, letter in enumerate(letters_of(script)):
                glyph = along(reader.all_glyphs[key_in_font(letter, script)].strokes, 0)
                assert isinstance(glyph, Glyph)  # the fonts of `STYLES` have every letter
                rng = numpy_generator(self.drawing_seed, style, place, "glyph name")
                pictures = draw(glyph, hands, self.examples_per_writer, rng).reshape(-1, PIXELS)
                written = np.stack([encode(write_name(letter, rng)) for _ in pictures])
                rows.append(np.concatenate([pictures, written], axis=1))
        return np.concatenate(rows)


@dataclass(frozen=True)
class GlyphNamesData:
    """The loaded data with what its clients own."""

    no_own: ClassVar[str] = (
        "a task shows one modality in its support and perhaps another in its query, which clients' own examples do not"
    )

    settings: GlyphNames
    dataset: ClassDataset

    @property
    def task(self) -> Task:
        """Classification."""
        return self.settings.task

    @property
    def input_shape(self) -> tuple[int, ...]:
        """One row of numbers."""
        return self.settings.input_shape

    @property
    def classes(self) -> int:
        """Letters of all styles."""
        return self.dataset.classes

    def federate(self, partition: Any, seed: int) -> "GlyphNamesFederation":
        """Divide as any class data set; training clients own modalities in turn, all others both."""
        return GlyphNamesFederation(self.settings, self.dataset.federate(partition, seed))


@dataclass(frozen=True)
class GlyphNamesFederation:
    """Clients of pairs, of pictures alone, and of names alone."""

    settings: GlyphNames
    pairs: ClassFederation

    @cached_property
    def clients(self) -> Sequence[ClientInfo]:
        """The clients by id, each with what it lacks."""
        owned = [(info, self._owner(info)) for info in self.pairs.clients]
        return tuple(
            info if owner == "both" else replace(info, name=f"{info.name} ({owner})", lacks=LACKS[owner])
            for info, owner in owned
        )

    def source(self, client: int) -> "PairSource":
        """The tasks of one client."""
        return PairSource(self.pairs.source(client), self._owner(self.pairs.clients[client]), self.settings.episodes)

    @property
    def baselines(self) -> Mapping[str, Baseline]:
        """Chance, and nearest neighbours in one modality alone, on fresh examples of the same classes."""
        return {
            "chance": lambda episode: torch.zeros(len(episode.query.y), len(episode.classes)),
            "pixel neighbour, images alone": partial(_alone, self.pairs.dataset, "image"),
            "trigram neighbour, names alone": partial(_alone, self.pairs.dataset, "name"),
        }

    def _owner(self, info: ClientInfo) -> str:
        # Ids of training clients come first, from 0.
        owners = self.settings.owners
        return owners[info.id % len(owners)] if info.role == "train" else "both"


@dataclass(frozen=True)
class PairSource:
    """One client's tasks, by what it owns."""

    pairs: ClassSource
    owner: str
    episodes: str

    def sample(self, shape: EpisodeShape, rng: np.random.Generator) -> Episode:
        """Draw an episode: across modalities in a direction by chance, or within the only one.

        Raises:
            DataError: the client cannot give such an episode.
        """
        episode = self.pairs.sample(shape, rng)
        only = self.owner if self.owner != "both" else self.episodes
        shown = [only, only] if only != "cross" else [("image", "name"), ("name", "image")][int(rng.integers(2))]
        support, query = (
            Batch(only_in(batch.x, modality), batch.y)
            for batch, modality in zip((episode.support, episode.query), shown, strict=True)
        )
        return Episode(support, query, episode.classes)


def only_in(x: Tensor, modality: str) -> Tensor:
    """Rows `[n, 816]` with one modality, the other all zeros."""
    shown, kept = torch.zeros_like(x), OWN[modality]  # type: ignore[index]
    shown[:, kept] = x[:, kept]
    return shown


def _alone(dataset: ClassDataset, modality: Modality, episode: Episode) -> Tensor:
    """Nearest labels where support and query are examples of the episode's classes, drawn anew, in one modality."""
    classes = episode.classes.tolist()
    rng = numpy_generator(0, 0, SERVER, f"one modality/{classes}")
    orders = [rng.permutation(np.flatnonzero(dataset.labels == c)).tolist() for c in classes]
    support, query = (
        torch.from_numpy(dataset.examples[[orders[slot].pop() for slot in batch.y.tolist()], OWN[modality]]).long()
        for batch in (episode.support, episode.query)
    )
    if modality == "image":
        return nearest_labels(-torch.cdist(query.double(), support.double()), episode)
    known, asked = (F.normalize(_trigrams(rows), dim=1) for rows in (support, query))
    return nearest_labels(asked @ known.T, episode)


def _trigrams(letters: Tensor) -> Tensor:
    """`[n, 28^3]` counts of three letters in a row, a name's ends among them."""
    base = len(SYMBOLS) + 1
    padded = F.pad(letters, (1, 1))
    codes = (padded[:, :-2] * base + padded[:, 1:-1]) * base + padded[:, 2:]
    counts = torch.zeros(len(letters), base**3, dtype=torch.float64)
    counts.scatter_add_(1, codes, (codes > 0).double())
    return counts
