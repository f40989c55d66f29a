"""The distinct glyphs of the Hershey fonts, by alphabet, as points along their strokes."""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fedmeta.data.class_dataset import Split
from fedmeta.errors import DataError


class Alphabet(NamedTuple):
    """One alphabet.

    Attributes:
        split: in the fixed division.
        size: distinct glyphs; counted once, so that a server knows the classes without reading a font.
        fonts: of the package, in the order in which their glyphs are taken.
    """

    split: Split
    size: int
    fonts: tuple[str, ...]


ALPHABETS: dict[str, Alphabet] = {
    "Latin plain": Alphabet("train", 97, ("futural", "rowmans")),
    "Latin bold": Alphabet("train", 84, ("futuram", "rowmand")),
    "Roman": Alphabet("train", 67, ("rowmant", "timesrb")),
    "Times": Alphabet("train", 64, ("timesr",)),
    "Times italic": Alphabet("train", 71, ("timesi",)),
    "Times bold italic": Alphabet("train", 69, ("timesib",)),
    "Script": Alphabet("train", 55, ("scripts", "cursive")),
    "Script double": Alphabet("train", 51, ("scriptc",)),
    "Gothic English": Alphabet("train", 65, ("gothgbt", "gothiceng")),
    "Gothic German": Alphabet("train", 49, ("gothgrt", "gothicger")),
    "Gothic Italian": Alphabet("train", 50, ("gothitt", "gothicita")),
    "Greek": Alphabet("train", 39, ("greeks", "greek")),
    "Greek double": Alphabet("train", 37, ("greekc", "timesg")),
    "Cyrillic": Alphabet("train", 44, ("cyrillic", "cyrilc_1")),
    "Mathematics": Alphabet("validation", 35, ("mathlow", "mathupp", "markers")),
    "Weather and stars": Alphabet("validation", 41, ("meteorology", "astrology")),
    "Japanese": Alphabet("test", 162, ("japanese",)),
    "Music": Alphabet("test", 15, ("music",)),
    "Symbols": Alphabet("test", 53, ("symbolic",)),
}
"""The alphabets by name. A Latin, Greek or Cyrillic letter resembles its sisters in other styles and in the other two
scripts, so whoever has seen one has seen them all: these fourteen are training alphabets in every division."""

LETTERLESS = tuple(code for code, alphabet in enumerate(ALPHABETS.values()) if alphabet.split != "train")
"""Codes of the alphabets that may be test alphabets."""

SPACING = 0.012
"""Distance of neighbouring points along a stroke, in glyph sizes: a third of a pixel."""

ALIKE_WITHIN, ALIKE_ACROSS, ALIKE_ANYWHERE = 0.97, 0.93, 0.995
"""Cosine similarity of blurred pictures from which two glyphs count as one: within an alphabet, between splits, and
between alphabets of one split, where many fonts share a glyph to the last stroke."""


@dataclass(frozen=True)
class Glyph:
    """One glyph, centred, its longer side 1.

    Attributes:
        alphabet: code, in the order of `ALPHABETS`.
        points: `[P, 2]` float64 x (right) and y (down), in [-0.5, 0.5].
        strokes: `[P]` the stroke of each point.
    """

    alphabet: int
    points: np.ndarray
    strokes: np.ndarray


@functools.cache
def glyphs() -> tuple[Glyph, ...]:
    """All distinct glyphs in the order of alphabets, fonts and character codes.

    Raises:
        DataError: another version of `Hershey-Fonts`, whose glyphs are not those that the classes were counted from.
    """
    from HersheyFonts import HersheyFonts

    reader = HersheyFonts()
    found: list[Glyph] = []
    for alphabet, (_, _, fonts) in enumerate(ALPHABETS.values()):
        for font in fonts:
            reader.load_default_font(font)
            drawn = [along(glyph.strokes, alphabet) for _, glyph in sorted(reader.all_glyphs.items())]
            found += [glyph for glyph in drawn if glyph is not None]
    distinct = _distinct(found)
    sizes = np.bincount([glyph.alphabet for glyph in distinct], minlength=len(ALPHABETS)).tolist()
    if sizes != [alphabet.size for alphabet in ALPHABETS.values()]:
        raise DataError(
            f"this version of Hershey-Fonts gives {len(distinct)} distinct glyphs in alphabets of {sizes}, where "
            f"{sum(alphabet.size for alphabet in ALPHABETS.values())} are known: install Hershey-Fonts 2.1"
        )
    return distinct


def along(strokes: list[list[tuple[int, int]]], alphabet: int) -> Glyph | None:
    """Points at equal distances along the strokes; None for a glyph with nothing to draw."""
    lines = [np.array(stroke, dtype=np.float64) for stroke in strokes if len(stroke) >= 2]
    if not lines:
        return None
    everything = np.concatenate(lines)
    low, high = everything.min(axis=0), everything.max(axis=0)
    size = float((high - low).max())
    if size == 0:
        return None
    pieces = [_resample((line - (low + high) / 2) / size) for line in lines]
    ids = np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces])
    return Glyph(alphabet, np.concatenate(pieces), ids)


def _resample(line: np.ndarray) -> np.ndarray:
    steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
    place = np.concatenate([[0.0], np.cumsum(steps)])
    wanted = np.linspace(0.0, place[-1], max(2, int(place[-1] / SPACING) + 1))
    return np.stack([np.interp(wanted, place, line[:, axis]) for axis in (0, 1)], axis=1)


def _distinct(found: list[Glyph]) -> tuple[Glyph, ...]:
    """Leave out a glyph that looks like an earlier one."""
    pictures = np.stack([_blurred(glyph.points) for glyph in found])
    alphabet = np.array([glyph.alphabet for glyph in found])
    split = np.array([entry.split for entry in ALPHABETS.values()])[alphabet]
    limit = np.where(split[:, None] != split, ALIKE_ACROSS, ALIKE_ANYWHERE)
    limit[alphabet[:, None] == alphabet] = ALIKE_WITHIN
    same = pictures @ pictures.T > limit
    kept = np.zeros(len(found), dtype=bool)
    for i in range(len(found)):
        kept[i] = not (same[i] & kept).any()
    return tuple(glyph for glyph, keep in zip(found, kept, strict=True) if keep)


def _blurred(points: np.ndarray) -> np.ndarray:
    """A 16x16 picture with soft strokes, as a unit vector: equal for glyphs that differ in ornament only."""
    grid = (np.arange(16) + 0.5) / 16 * 1.2 - 0.6
    weights = [np.exp(-((grid[:, None] - points[None, :, axis]) ** 2) / (2 * 0.05**2)) for axis in (1, 0)]
    picture = np.minimum(weights[0] @ weights[1].T, 6.0).reshape(-1)
    return picture / np.linalg.norm(picture)
