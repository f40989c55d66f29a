"""Private inputs beside what a leak check read off one update, at several noise levels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from server.report.plots import INK, MUTED, empty_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def leak_figure(found: dict[str, Any]) -> Figure:
    """One row of originals, and one of reconstructions for every noise level; each under its likeness."""
    shape = tuple(found["shape"])
    rows = [("private input", found["inputs"], None)]
    for level, pictures, cosines in zip(found["levels"], found["found"], found["cosines"], strict=True):
        words = "no noise" if level == 0 else f"noise {level:g}"
        rows.append((words, pictures, cosines))
    columns, inch = len(found["inputs"]), 0.8
    figure = empty_figure(inch * (columns + 1.8), inch * 1.25 * len(rows))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(-1.8, columns)
    axes.set_ylim(1.25 * len(rows), 0)
    for index, (words, pictures, cosines) in enumerate(rows):
        top = 1.25 * index
        axes.text(-0.1, top + 0.5, words, color=INK, fontsize=9, ha="right", va="center")
        for column, picture in enumerate(pictures):
            pixels = np.asarray(picture, dtype=float).reshape(shape)[0]
            extent = (column + 0.05, column + 0.95, top + 0.95, top + 0.05)
            # A ratio knows no sign and no scale: what an attacker would look at is stretched to the whole range.
            low, high = (0.0, 1.0) if cosines is None else (float(pixels.min()), float(pixels.max()))
            image = axes.imshow(
                pixels, cmap="gray_r", vmin=low, vmax=high, extent=extent, interpolation="none", aspect="auto"
            )
            image.set_gid(f"ink-{len(axes.images)}")
            if cosines is not None:
                axes.text(
                    column + 0.5,
                    top + 1.08,
                    f"{cosines[column]:.2f}",
                    color=MUTED,
                    fontsize=8,
                    ha="center",
                    va="center",
                )
    return figure


def leak_caption(found: dict[str, Any]) -> str:
    """What the pictures are."""
    return (
        f"Read off the bare update of client {found['client']} by the linear-layer ratio attack; below each, its "
        "cosine to the input. Noise per entry, in norms of the update."
    )
