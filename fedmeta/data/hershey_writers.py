"""Simulated writers: from a glyph's strokes to pictures that differ as handwriting does."""

from dataclasses import dataclass

import numpy as np

from fedmeta.data.hershey_glyphs import Glyph
from fedmeta.seeding import numpy_generator

SIDE = 28
WAVES = 3
"""Sine waves that bend a glyph smoothly: fewer would be stiff, more would be noise."""


@dataclass(frozen=True)
class Styles:
    """What tells writers apart; every field is `[writers, ...]`.

    Attributes:
        slant: horizontal shift per unit of height.
        rotation: radians.
        scale: `[writers, 2]` width and height of a glyph, in pixels.
        pen: standard deviation of the pen's profile, in pixels.
        bend: amplitude of a writer's own way of bending a glyph, in glyph sizes.
    """

    slant: np.ndarray
    rotation: np.ndarray
    scale: np.ndarray
    pen: np.ndarray
    bend: np.ndarray


def writers_styles(writers: int, seed: int) -> Styles:
    """Draw styles; a writer's does not depend on how many others there are."""
    rows = []
    for writer in range(writers):
        rng = numpy_generator(seed, 0, writer, "hershey writer")
        rows.append(
            (
                rng.normal(0.0, 0.2),
                rng.normal(0.0, 0.12),
                rng.uniform(15.0, 21.0) * np.exp(rng.normal(0.0, 0.12, size=2)),
                rng.uniform(0.45, 0.8),
                rng.uniform(0.03, 0.09),
            )
        )
    return Styles(*(np.array(column) for column in zip(*rows, strict=True)))


def draw(glyph: Glyph, styles: Styles, examples: int, rng: np.random.Generator) -> np.ndarray:
    """Every writer draws a glyph so many times.

    Returns:
        uint8 `[writers * examples, 28, 28]`, writer by writer, ink 255.
    """
    writers = len(styles.pen)
    style = {name: np.repeat(value, examples, axis=0) for name, value in vars(styles).items()}
    count = writers * examples
    # A writer bends this glyph in a way of their own, and a little differently each time.
    habit = np.repeat(_bends(glyph.points, styles.bend, rng), examples, axis=0)
    points = glyph.points + habit + _bends(glyph.points, np.full(count, 0.035), rng)
    points = points + rng.normal(0.0, 0.03, size=(count, glyph.strokes[-1] + 1, 2))[:, glyph.strokes]
    points = _placed(points, style, rng)
    return _inked(points, style["pen"])


def _bends(points: np.ndarray, amplitude: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Smooth displacements `[n, P, 2]` of given amplitudes `[n]`: a few waves of about one period a glyph."""
    count = len(amplitude)
    frequency = rng.normal(0.0, 0.8, size=(count, WAVES, 2))
    phase = rng.uniform(0.0, 2 * np.pi, size=(count, WAVES, 1))
    direction = rng.normal(0.0, 1.0, size=(count, WAVES, 2)) / np.sqrt(WAVES)
    waves = np.sin(2 * np.pi * (frequency @ points.T) + phase)
    return amplitude[:, None, None] * np.einsum("nkp,nkd->npd", waves, direction)


def _placed(points: np.ndarray, style: dict[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Slant, scale, rotate and put on the page: glyph units to pixels."""
    count = len(points)
    x, y = points[..., 0], points[..., 1]
    slant = style["slant"] + rng.normal(0.0, 0.05, size=count)
    x = x - slant[:, None] * y
    scale = style["scale"] * np.exp(rng.normal(0.0, 0.05, size=(count, 2)))
    x, y = x * scale[:, :1], y * scale[:, 1:]
    angle = (style["rotation"] + rng.normal(0.0, 0.05, size=count))[:, None]
    turned = np.stack([x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)], axis=-1)
    return turned + SIDE / 2 + rng.normal(0.0, 1.2, size=(count, 1, 2))


def _inked(points: np.ndarray, pen: np.ndarray) -> np.ndarray:
    """Points `[n, P, 2]` in pixels to pictures: splatted between neighbouring pixels, blurred by the pen, saturated."""
    count = len(points)
    place = np.clip(points - 0.5, 0.0, SIDE - 1.001)
    corner = place.astype(np.int64)
    part = place - corner
    base = np.arange(count)[:, None] * SIDE * SIDE
    density = np.zeros(count * SIDE * SIDE)
    for down in (0, 1):
        for right in (0, 1):
            weight = np.abs(1 - right - part[..., 0]) * np.abs(1 - down - part[..., 1])
            cell = base + (corner[..., 1] + down) * SIDE + corner[..., 0] + right
            density += np.bincount(cell.ravel(), weights=weight.ravel(), minlength=len(density))
    apart = np.arange(SIDE)[:, None] - np.arange(SIDE)[None, :]
    blur = np.exp(-(apart**2) / (2 * pen[:, None, None] ** 2))
    blurred = blur @ density.reshape(count, SIDE, SIDE) @ blur
    # A straight stroke has about three points a pixel: this makes its middle just full ink.
    return np.round(255 * np.minimum(1.0, blurred / (1.8 * pen[:, None, None]) / 2.5)).astype(np.uint8)
