"""An episode of images: support, queries, and the class that each query was taken for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from server.report.episode import EpisodePicture
from server.report.plots import ACCENT, INK, MUTED, WRONG, empty_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLASSES, EXAMPLES = 10, 5
"""So many classes, and examples of each, are shown; a picture of all would be no picture."""

PITCH, ROW, GAP = 1.2, 1.55, 0.7
"""In widths of one picture: from one to the next, from one row to the next, and between support and query."""


def glyph_figure(picture: EpisodePicture) -> Figure:
    """One row a class: its support, then its queries, each under the class it was taken for.

    Classes need not be balanced: a client's own data may hold many of one and none of another.
    """
    support, query = picture.episode.support, picture.episode.query
    slots = torch.unique(torch.cat([support.y, query.y])).tolist()
    guess = picture.after.argmax(axis=1)
    left = [np.flatnonzero(support.y.numpy() == slot)[:EXAMPLES] for slot in slots[:CLASSES]]
    right = [np.flatnonzero(query.y.numpy() == slot)[:EXAMPLES] for slot in slots[:CLASSES]]
    start = PITCH * max(map(len, left)) + GAP
    width, height = start + PITCH * max(map(len, right)), 0.6 + ROW * len(left)
    figure, axes = _canvas(width, height)
    for index, slot in enumerate(slots[:CLASSES]):
        top = 0.6 + ROW * index
        for column, row in enumerate(left[index]):
            _picture(axes, support.x[row], PITCH * column, top, MUTED, slot_name(slot))
        for column, row in enumerate(right[index]):
            correct = int(guess[row]) == slot
            words = slot_name(int(guess[row])) + (" ✓" if correct else " ✗")
            _picture(axes, query.x[row], start + PITCH * column, top, ACCENT if correct else WRONG, words)
    part = f" ({CLASSES} of {len(slots)} classes)" if len(slots) > CLASSES else ""
    axes.text(0, 0.15, "Support", color=INK, fontsize=10, va="center")
    axes.text(start, 0.15, f"Query, and the class it was taken for{part}", color=INK, fontsize=10, va="center")
    return figure


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """One pair of axes over the whole figure: one for each picture would take a minute to lay out."""
    inch = 0.78
    figure = empty_figure(max(inch * (width + 0.2), 4.6), inch * (height + 0.1))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    # The caption above a single column of queries is wider than the column.
    axes.set_xlim(-0.1, max(width, 4.6 / inch) + 0.1)
    axes.set_ylim(height, -0.1)
    return figure, axes


def _picture(axes: Axes, pixels: torch.Tensor, x: float, y: float, colour: str, words: str) -> None:
    from matplotlib.patches import Rectangle

    extent = (x, x + 1, y + 1, y)
    if len(pixels) == 3:
        shown = pixels.permute(1, 2, 0).clamp(0, 1).numpy()
        axes.imshow(shown, extent=extent, interpolation="none", aspect="auto")
    else:
        image = axes.imshow(
            pixels[0].numpy(), cmap="gray_r", vmin=0, vmax=1, extent=extent, interpolation="none", aspect="auto"
        )
        # The page finds ink drawings by this name and turns them light on dark with its theme.
        image.set_gid(f"ink-{len(axes.images)}")
    axes.add_patch(Rectangle((x, y), 1, 1, fill=False, edgecolor=colour, linewidth=1.4))
    axes.text(x + 0.5, y + 1.2, words, color=colour, fontsize=8.5, ha="center", va="center")


def slot_name(slot: int) -> str:
    """A letter for a class slot, a number where letters end.

    >>> slot_name(0), slot_name(25), slot_name(26)
    ('A', 'Z', '27')
    """
    return chr(65 + slot) if slot < 26 else str(slot + 1)


def printable(text: str) -> str:
    """The text with a dot for what the font of the figures cannot draw."""
    from matplotlib.font_manager import findfont, get_font

    known = get_font(findfont("DejaVu Sans")).get_charmap()
    # A dollar sign would begin a formula.
    return "".join(letter if ord(letter) in known else "·" for letter in text).replace("$", r"\$")
