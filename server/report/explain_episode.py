"""Pictures of an explained model: influence of support examples, movement by layer, saliency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from server.report.glyphs import printable, slot_name
from server.report.plots import ACCENT, INK, MUTED, WRONG, empty_figure, label, panels, steps_in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

FOR, AGAINST, ON_CELL = "#1d4fd7", "#d2690a", "#15181c"
"""Blue speaks for, orange against: told apart by every kind of colour vision. Text on cells, whose ground is light."""

NUMBERED = 10
"""With more columns than these cells hold no numbers."""

LETTER, SHORT = 0.075, 8
"""Inches that a letter takes; texts of up to so many letters fit where numbers do."""


def diverging() -> LinearSegmentedColormap:
    """Orange below zero, white at zero, blue above."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("for_and_against", [AGAINST, "#ffffff", FOR])


def influence_figure(found: Mapping[str, Any]) -> Figure:
    """A row a query, a column a support example; the cell says what the one did to the other's output."""
    supports, queries = found["shown_supports"], found["shown_queries"]
    values = np.asarray(found.get("relative_shares", found["values"]), dtype=float)[np.ix_(supports, queries)].T
    wide, inch = len(supports), 0.78 if len(supports) <= NUMBERED else 0.36
    letters = _letters(found)
    left = max(2.9 * 0.78, 0.4 + LETTER * letters) / inch
    head = max(1.5, 0.8 + LETTER * letters / inch)
    figure, axes = _canvas(left + wide + 0.2, head + len(queries) + 0.95 * 0.78 / inch, inch)
    limit = float(np.abs(values).max()) or 1.0
    image = axes.imshow(
        values,
        cmap=diverging(),
        vmin=-limit,
        vmax=limit,
        extent=(left, left + wide, head + len(queries), head),
        interpolation="none",
        aspect="auto",
    )
    for column, row in enumerate(supports):
        _support(axes, found, column, row, (left + column, head))
    for line, row in enumerate(queries):
        _query(axes, found, line, row, (left, head + line))
    for line, column in np.ndindex(values.shape if wide <= NUMBERED else (0, 0)):
        axes.text(
            left + column + 0.5,
            head + line + 0.5,
            f"{values[line, column]:+.1f}" if limit >= 1 else f"{values[line, column]:+.2g}",
            color=ON_CELL if abs(values[line, column]) < 0.6 * limit else "#ffffff",
            fontsize=8.5,
            ha="center",
            va="center",
        )
    axes.text(left - 0.2, head - 0.5, "support", color=MUTED, fontsize=9, ha="right", va="center")
    words = "the prediction" if found["kind"] == "regression" else "the logit"
    place = (left, head + len(queries) + 0.22 * 0.78 / inch, min(wide, 5 * 0.78 / inch))
    _bar(figure, axes, image, place, inch, f"effect on {words}")
    return figure


def _support(axes: Axes, found: Mapping[str, Any], column: int, row: int, corner: tuple[float, float]) -> None:
    """A support example above its column, whose upper left corner is given: upright where it is a text."""
    x, y = corner
    slot = "" if found["kind"] == "regression" else slot_name(int(found["support_y"][row]))
    if _letters(found):
        words = printable(found["support_x"][column][0])
        axes.text(x + 0.5, y - 0.15, words, color=INK, fontsize=8, ha="center", va="bottom", rotation=90)
        axes.text(x + 0.5, 0.3, slot, color=INK, fontsize=9, ha="center", va="center")
        return
    _example(axes, found, "support", column, x, y - 1.02)
    axes.text(x + 0.5, y - 1.25, slot, color=INK, fontsize=9, ha="center", va="center")


def _query(axes: Axes, found: Mapping[str, Any], line: int, row: int, corner: tuple[float, float]) -> None:
    """A query before its row, and what it was taken for: below it where it is a text."""
    x, y = corner
    words, colour = _answer(found, row)
    if _letters(found):
        text = printable(found["query_x"][line][0])
        axes.text(x - 0.15, y + 0.33, text, color=INK, fontsize=8, ha="right", va="center")
        words = words.replace("\n", ", ")
        axes.text(x - 0.15, y + 0.68, words, color=colour, fontsize=9, ha="right", va="center")
        return
    _example(axes, found, "query", line, x - 1.1, y)
    axes.text(x - 1.25, y + 0.5, words, color=colour, fontsize=9, ha="right", va="center")


def _letters(found: Mapping[str, Any]) -> int:
    """The length of the longest example that is a text; 0 where examples are pictures or numbers."""
    texts = [one[0] for part in ("support_x", "query_x") for one in found[part] if isinstance(one[0], str)]
    return max(map(len, texts)) if any(len(text) > SHORT for text in texts) else 0


def influence_caption(found: Mapping[str, Any]) -> str:
    """What a cell says, and by which method."""
    model = f"One episode of test client {found['client']}, adapted in {steps_in_words(found['steps'])}. "
    if "relative_shares" in found:
        return model + (
            "A cell: the share of a support example in the logit of its own class, above the query's mean logit over "
            "the classes. Exact: the shares of a class add up to its logit. Blue draws the query to the class."
        )
    output = "the prediction" if found["kind"] == "regression" else "the logit of the predicted class"
    how = {
        "gradient": f"by what {output} changes with the example's weight, through the whole inner loop: to first order "
        "what it would lose without it",
        "prototype": f"by what {output} changes with the example's weight",
        "leave-one-out": f"by what {output} loses when the model is adapted without the example",
    }[found["method"]]
    return model + f"A cell: a support example's influence, {how}. Blue raises, orange lowers."


def layers_figure(found: Mapping[str, Any]) -> Figure:
    """How far each layer moves, and whether its outputs stay what they were."""
    layers = found["layers"]
    names = [layer["layer"] for layer in layers]
    places = np.arange(len(layers))[::-1]
    figure, (left, right) = panels(2, height=1.5 + 0.3 * len(layers))
    moved = [100 * (layer["relative"] or 0.0) for layer in layers]
    left.barh(places, moved, color=ACCENT, height=0.62)
    for place, layer, value in zip(places, layers, moved, strict=True):
        words = "starts at zero" if layer["relative"] is None else f"{value:.2g} %"
        left.text(value, place, f" {words}", color=INK, fontsize=8, va="center")
    left.set_xlim(0, 1.18 * max(moved) or 1)
    left.set_yticks(places, names)
    left.set_ylim(-0.6, len(layers) - 0.4)
    label(left, "distance moved / norm before [%]", "", "How far adaptation moves each layer")
    right.hlines(places, 0, 1, color=MUTED, lw=0.5, alpha=0.4)
    for key, colour, marker, size, words in (
        ("chance", MUTED, "|", 11, "paired at\nrandom"),
        ("cka", ACCENT, "o", 7, "before\nand after"),
    ):
        known = [(place, layer[key]) for place, layer in zip(places, layers, strict=True) if layer[key] is not None]
        right.plot(
            [value for _, value in known],
            [place for place, _ in known],
            marker,
            color=colour,
            ms=size,
            mew=2 if marker == "|" else 0,
            label=words,
        )
    right.set_xlim(-0.03, 1.05)
    right.set_yticks(places, names)
    right.set_ylim(-0.6, len(layers) - 0.4)
    label(right, "linear CKA of the layer's outputs (1: unchanged)", "", "Does a layer say something else?")
    right.legend(frameon=False, labelcolor=INK, fontsize=8.5, loc="center left", bbox_to_anchor=(1.0, 0.5))
    for axes in (left, right):
        axes.tick_params(axis="y", labelcolor=INK)
    return figure


def layers_caption(found: Mapping[str, Any]) -> str:
    """How the figures were taken, and how a CKA is to be read."""
    episodes = "one episode" if found["episodes"] == 1 else f"{found['episodes']} episodes"
    return (
        f"Means over {episodes} of a test client, {steps_in_words(found['steps'])}; outputs on the {found['inputs']} "
        "queries. A body whose CKA stays at 1 while the head moves is reuse of features (ANIL's question). CKA is high "
        "for so few inputs whatever they are: read it against the grey mark."
    )


def saliency_figure(found: Mapping[str, Any]) -> Figure:
    """Queries, and below each the pixels that speak for its answer and against it."""
    queries = found["queries"]
    figure, axes = _canvas(1.25 * len(queries), 3.5, 1.35)
    # A few pixels would leave the others pale: the strongest hundredth of those with ink is at the end of the scale.
    inked = np.abs(np.concatenate([np.ravel(one["map"]) for one in queries]))
    limit = float(np.quantile(inked[inked > 0], 0.99)) if inked.any() else 1.0
    image = None
    for column, (one, pixels) in enumerate(zip(queries, found["query_x"], strict=True)):
        x = 0.1 + 1.25 * column
        right = one["slot"] == one["true"]
        words = f"{slot_name(one['slot'])} over {slot_name(one['runner_up'])} " + (
            "✓" if right else f"✗, is {slot_name(one['true'])}"
        )
        axes.text(x + 0.5, 0.1, words, color=ACCENT if right else WRONG, fontsize=9, ha="center", va="center")
        _glyph(axes, pixels, x, 0.24)
        image = axes.imshow(
            np.asarray(one["map"]),
            cmap=diverging(),
            vmin=-limit,
            vmax=limit,
            extent=(x, x + 1, 2.38, 1.38),
            interpolation="none",
            aspect="auto",
        )
        _frame(axes, x, 1.38)
        axes.contour(
            np.linspace(x + 1 / 56, x + 1 - 1 / 56, len(pixels[0])),
            np.linspace(1.38 + 1 / 56, 2.38 - 1 / 56, len(pixels)),
            np.asarray(pixels),
            levels=[0.5],
            colors="#9aa0a8",
            linewidths=0.6,
        )
        axes.text(x + 0.5, 2.52, f"margin {one['margin']:.2f}", color=INK, fontsize=8.5, ha="center", va="center")
        blank = f"blank paper {one['blank']:.2f}"
        axes.text(x + 0.5, 2.7, blank, color=MUTED, fontsize=8, ha="center", va="center")
    assert image is not None
    _bar(figure, axes, image, (0.1, 2.92, min(3.0, 1.25 * len(queries) - 0.25)), 1.35, "a pixel's part of the margin")
    return figure


def saliency_caption(found: Mapping[str, Any]) -> str:
    """How the maps were made."""
    return (
        f"Queries of test client {found['client']}. Integrated gradients of the predicted logit's margin over the "
        "runner-up, from blank paper: the pixels of a map add up to its margin less that of blank paper. Blue speaks "
        "for the answer, orange for the runner-up; grey: the glyph's outline."
    )


def _canvas(width: float, height: float, inch: float) -> tuple[Figure, Axes]:
    figure = empty_figure(inch * width, inch * height)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    return figure, axes


def _bar(figure: Figure, axes: Axes, image: Any, place: tuple[float, float, float], inch: float, words: str) -> None:
    """A colour bar below the cells: x and y of its left end and its width, in the units of the axes."""
    x, y, length = place
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    span, tall = right - left, low - high
    bar = figure.add_axes(((x - left) / span, (low - y - 0.14 / inch) / tall, length / span, 0.12 / inch / tall))
    colours = figure.colorbar(image, cax=bar, orientation="horizontal")
    colours.outline.set_visible(False)
    bar.tick_params(colors=MUTED, labelsize=8, length=2)
    bar.set_xlabel(words, color=MUTED, fontsize=8.5, labelpad=2)
    from matplotlib.ticker import MaxNLocator

    bar.xaxis.set_major_locator(MaxNLocator(5))


def _example(axes: Axes, found: Mapping[str, Any], part: str, place: int, x: float, y: float) -> None:
    """The picture of an example, or its numbers where it is none."""
    values = found[f"{part}_x"][place]
    if isinstance(values[0], list):
        _glyph(axes, values, x, y, 0.94)
        return
    numbers = [value if isinstance(value, str) else f"{value:.2f}" for value in values[:2]]
    words = ("x = " if len(values) == 1 else "") + ", ".join(numbers) + (" …" if len(values) > 2 else "")
    turn = 90 if part == "support" else 0
    axes.text(x + 0.5, y + 0.5, words, color=INK, fontsize=8, ha="center", va="center", rotation=turn)


def _glyph(axes: Axes, pixels: Sequence[Sequence[float]], x: float, y: float, size: float = 1.0) -> None:
    image = axes.imshow(
        np.asarray(pixels),
        cmap="gray_r",
        vmin=0,
        vmax=1,
        extent=(x, x + size, y + size, y),
        interpolation="none",
        aspect="auto",
    )
    image.set_gid(f"ink-{len(axes.images)}")
    _frame(axes, x, y, size)


def _frame(axes: Axes, x: float, y: float, size: float = 1.0) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((x, y), size, size, fill=False, edgecolor=MUTED, linewidth=0.8))


def _answer(found: Mapping[str, Any], row: int) -> tuple[str, str]:
    """What a query was taken for, and whether that is right."""
    if found["kind"] == "regression":
        predicted, truth = float(found["outputs"][row][0]), float(np.ravel(found["query_y"][row])[0])
        return f"{predicted:.2f} (true {truth:.2f})", INK
    slot, truth = int(found["slots"][row]), int(found["query_y"][row])
    right = slot == truth
    words = f"taken for {slot_name(slot)} " + ("✓" if right else f"✗\nis {slot_name(truth)}")
    return words, ACCENT if right else WRONG
