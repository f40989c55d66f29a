"""Grey pictures: ink of some strength on paper of some shade, with shading and grain.

On binary glyphs rounding undoes every attack below eps 0.5, which proves nothing about a defence. Here no pixel is 0 or
1, and what is ink in one picture is paper in another: a threshold that suits all does not exist.
"""

from collections.abc import Iterable, Iterator

import numpy as np

SHADE = (0.2, 0.5)
"""Range of a paper's mean."""
STRENGTH = (0.25, 0.45)
"""Range of what full ink adds to it."""
SHADING, GRAIN = 0.05, 0.03
"""Standard deviations of what changes slowly over the paper, and of what changes from pixel to pixel."""
KNOTS = 5
"""Of the shading, along each side; between them it is linear."""
BATCH = 1000


def on_paper(ink: np.ndarray, generators: Iterable[np.random.Generator]) -> np.ndarray:
    """Put glyphs on paper: paper + strength * ink + shading + grain, cut to [0, 1].

    Args:
        ink: uint8 `[n, side, side]`, full ink 255.
        generators: one for each picture, which alone decides its paper.

    Returns:
        uint8, shaped as `ink`.

    Raises:
        ValueError: fewer generators than pictures.
    """
    found = np.empty_like(ink)
    every = iter(generators)
    for start in range(0, len(ink), BATCH):
        part = ink[start : start + BATCH]
        shade, strength, texture = _papers(every, len(part), ink.shape[-1])
        grey = shade + strength * (part / 255.0) + texture
        found[start : start + BATCH] = np.round(255 * grey.clip(0.0, 1.0))
    return found


def smoothed(binary: np.ndarray) -> np.ndarray:
    """Soft edges for glyphs that have none: a 3x3 binomial blur, with the middle of a stroke brought back to full ink.

    Args:
        binary: uint8 `[n, side, side]`, 0 or 255.

    Returns:
        uint8, shaped alike.
    """
    found = np.empty_like(binary)
    for start in range(0, len(binary), BATCH):
        padded = np.pad(binary[start : start + BATCH].astype(np.float64), ((0, 0), (1, 1), (1, 1)))
        rows = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
        blurred = (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 4
        # A stroke of one pixel keeps half its ink in the blur.
        found[start : start + BATCH] = np.round(np.minimum(255.0, 1.6 * blurred))
    return found


def _papers(
    generators: Iterator[np.random.Generator], count: int, side: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shades and strengths `[count, 1, 1]`, textures `[count, side, side]`."""
    mixed = np.empty((count, 2))
    knots = np.empty((count, KNOTS, KNOTS))
    grain = np.empty((count, side, side))
    for index in range(count):
        rng = next(generators, None)
        if rng is None:
            raise ValueError("there are fewer generators than pictures: every picture has one of its own")
        mixed[index] = rng.random(2)
        knots[index] = rng.standard_normal((KNOTS, KNOTS))
        grain[index] = rng.standard_normal((side, side))
    shade, strength = (
        low + (high - low) * mixed[:, place, None, None] for place, (low, high) in enumerate((SHADE, STRENGTH))
    )
    between = _between(side)
    return shade, strength, SHADING * (between @ knots @ between.T) + GRAIN * grain


def _between(side: int) -> np.ndarray:
    """`[side, KNOTS]`: linear interpolation from knots at equal distances, the outer ones at the edges."""
    place = np.linspace(0, KNOTS - 1, side)
    return np.clip(1 - np.abs(place[:, None] - np.arange(KNOTS)), 0.0, None)
