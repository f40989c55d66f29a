"""The distinct glyphs of the Hershey fonts, by alphabet, as points along their strokes."""

import functools
from dataclasses import dataclass

import numpy as np

from fedmeta.data.class_dataset import Split

ALPHABETS: dict[str, tuple[Split, tuple[str, ...]]] = {
    "Latin plain": ("train", ("futural", "rowmans")),
    "Latin bold": ("train", ("futuram", "rowmand")),
    "Roman": ("train", ("rowmant", "timesrb")),
    "Times": ("train", ("timesr",)),
    "Times italic": ("train", ("timesi",)),
    "Times bold italic": ("train", ("timesib",)),
    "Script": ("train", ("scripts", "cursive")),
    "Script double": ("train", ("scriptc",)),
    "Gothic English": ("train", ("gothgbt", "gothiceng")),
    "Gothic German": ("train", ("gothgrt", "gothicger")),
    "Gothic Italian": ("train", ("gothitt", "gothicita")),
    "Greek": ("train", ("greeks", "greek")),
    "Greek double": ("train", ("greekc", "timesg")),
    "Cyrillic": ("train", ("cyrillic", "cyrilc_1")),
    "Mathematics": ("validation", ("mathlow", "mathupp", "markers")),
    "Weather and stars": ("validation", ("meteorology", "astrology")),
    "Japanese": ("test", ("japanese",)),
    "Music": ("test", ("music",)),
    "Symbols": ("test", ("symbolic",)),
}
"""Alphabet -> its split and its fonts. All styles of Latin, Greek and Cyrillic are on the training side, since their
letters resemble each other."""

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
    """All distinct glyphs in the order of alphabets, fonts and character codes."""
    from HersheyFonts import HersheyFonts

    reader = HersheyFonts()
    found: list[Glyph] = []
    for alphabet, (_, fonts) in enumerate(ALPHABETS.values()):
        for font in fonts:
            reader.load_default_font(font)
            drawn = [_along(glyph.strokes, alphabet) for _, glyph in sorted(reader.all_glyphs.items())]
            found += [glyph for glyph in drawn if glyph is not None]
    return _distinct(found)


def splits_of_alphabets() -> tuple[Split, ...]:
    """The split of every alphabet, by code."""
    return tuple(split for split, _ in ALPHABETS.values())


def _along(strokes: list[list[tuple[int, int]]], alphabet: int) -> Glyph | None:
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
    split = np.array(splits_of_alphabets())[alphabet]
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
