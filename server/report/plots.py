"""The report's plots, drawn with matplotlib's object interface, so that no display and no main thread is needed."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmeta.statistics import Evaluation
from server.report.episode import EpisodePicture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, ACCENT, SECOND, WRONG = "#1a1d21", "#8a9099", "#2563eb", "#d97706", "#dc2626"
THEMED = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    ACCENT: "var(--accent)",
    SECOND: "var(--second)",
    WRONG: "var(--wrong)",
}


def themed_svg(figure: Figure) -> str:
    """A figure as SVG for the page, whose colours follow the page's light or dark theme."""
    with io.StringIO() as buffer:
        figure.savefig(buffer, format="svg", transparent=True)
        text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for colour, variable in THEMED.items():
        text = text.replace(colour, variable)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Ids repeat between figures and would collide in one page.
    prefix = f"f{abs(hash(text)) % 10**8}-"
    text = re.sub(r'id="([^"]+)"', rf'id="{prefix}\1"', text)
    text = re.sub(r'xlink:href="#([^"]+)"', rf'xlink:href="#{prefix}\1"', text)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}\1)", text)


def save_png(figure: Figure, path: Path) -> None:
    """A figure as a picture on white."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=150, facecolor="white")


def learning_curves(metrics: Sequence[Mapping[str, Any]], score_name: str) -> Figure | None:
    """Training loss and score by round, and validation with its interval; None without a trained round."""
    trained = [record for record in metrics if "loss" in record["train"]]
    if not trained:
        return None
    figure, (left, right) = _panels(2)
    rounds = [record["round"] for record in trained]
    left.plot(rounds, [record["train"]["loss"] for record in trained], color=ACCENT, label="training clients")
    _label(left, "round", "loss", "Loss before each outer step")
    if score_name in trained[0]["train"]:
        values = [record["train"].get(score_name) for record in trained]
        right.plot(rounds, values, color=ACCENT, alpha=0.7, label="training clients")
    judged = [
        (record["round"], Evaluation.from_json(record["validation"])) for record in metrics if record["validation"]
    ]
    if judged:
        at = [round for round, _ in judged]
        right.plot(at, [found.after.mean for _, found in judged], color=SECOND, marker="o", label="validation clients")
        right.fill_between(
            at,
            [found.after.low for _, found in judged],
            [found.after.high for _, found in judged],
            color=SECOND,
            alpha=0.15,
            lw=0,
        )
    _label(right, "round", score_name, f"{score_name.capitalize()} after adaptation")
    _percent(right, score_name)
    right.legend(frameon=False, labelcolor=INK)
    return figure


def adaptation_curve(evaluations: Sequence[Evaluation]) -> Figure | None:
    """Score over adaptation steps with 95 % intervals; None where only one number of steps was judged."""
    shown = [evaluation for evaluation in evaluations if len(evaluation.steps) > 1]
    if not shown:
        return None
    figure, (axes,) = _panels(1)
    for evaluation, colour in zip(shown, (ACCENT, SECOND), strict=False):
        means = [item.mean for item in evaluation.score]
        words = "across test clients" if evaluation.split == "pooled" else "each client's own tasks"
        axes.plot(evaluation.steps, means, color=colour, marker="o", label=words)
        low, high = [item.low for item in evaluation.score], [item.high for item in evaluation.score]
        axes.fill_between(evaluation.steps, low, high, color=colour, alpha=0.15, lw=0)
        if evaluation.baseline is not None:
            axes.axhline(evaluation.baseline.mean, color=colour, lw=1, ls=":")
    axes.set_xticks(shown[0].steps)
    _label(axes, "adaptation steps", shown[0].score_name, "Adaptation on unseen clients")
    _percent(axes, shown[0].score_name)
    axes.legend(frameon=False, labelcolor=INK)
    return figure


def clients_chart(evaluation: Evaluation, names: Mapping[str, str]) -> Figure | None:
    """Every test client's mean score, sorted; None for a single client."""
    if len(evaluation.clients) < 2:
        return None
    found = ((client, float("nan") if score is None else score) for client, score in evaluation.clients.items())
    items = sorted(found, key=lambda item: item[1])
    figure, (axes,) = _panels(1, height=0.9 + 0.22 * len(items))
    axes.barh(
        [names.get(client, f"client {client}") for client, _ in items],
        [score for _, score in items],
        color=ACCENT,
        height=0.62,
    )
    axes.axvline(evaluation.after.mean, color=SECOND, lw=1.2)
    axes.tick_params(axis="y", labelsize=8)
    _label(axes, evaluation.score_name, "", "Each test client after adaptation (line: mean)")
    if evaluation.score_name == "accuracy":
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(_per_cent_formatter())
    return figure


def episode_figure(picture: EpisodePicture) -> Figure | None:
    """Support and query as pictures with predictions, or the fitted curves of one number; None for other tasks."""
    if picture.curve is not None:
        return _curve_figure(picture)
    few = 0 < len(picture.episode.classes) <= min(10, len(picture.episode.support.y))
    if picture.episode.query.x.dim() != 4 or not few:
        return None
    return _glyph_figure(picture)


def _glyph_figure(picture: EpisodePicture) -> Figure:
    support, query = picture.episode.support, picture.episode.query
    ways = len(picture.episode.classes)
    shots, shown = len(support.y) // ways, min(5, len(query.y) // ways)
    guess = picture.after.argmax(axis=1)
    figure = _figure(1.15 * (shots + shown) + 1.0, 1.15 * ways + 0.5)
    grid = figure.subplots(ways, shots + shown, squeeze=False)
    for way in range(ways):
        rows = np.flatnonzero(support.y.numpy() == way)
        for column, row in enumerate(rows):
            _glyph(grid[way][column], support.x[row, 0].numpy(), MUTED, f"class {chr(65 + way)}")
        for column, row in enumerate(np.flatnonzero(query.y.numpy() == way)[:shown]):
            right = guess[row] == way
            words = chr(65 + int(guess[row])) + (" ✓" if right else " ✗")
            _glyph(grid[way][shots + column], query.x[row, 0].numpy(), ACCENT if right else WRONG, words)
    grid[0][0].set_title("support", color=INK, fontsize=9, loc="left")
    grid[0][shots].set_title("query and prediction", color=INK, fontsize=9, loc="left")
    return figure


def _glyph(axes: Axes, pixels: np.ndarray, colour: str, words: str) -> None:
    axes.imshow(pixels, cmap="gray_r", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_color(colour)
        side.set_linewidth(1.8)
    axes.set_xlabel(words, color=colour, fontsize=8, labelpad=2)


def _curve_figure(picture: EpisodePicture) -> Figure:
    assert picture.curve is not None
    x, before, after = picture.curve
    figure, (axes,) = _panels(1)
    truth = np.argsort(picture.episode.query.x[:, 0].numpy())
    axes.plot(x, before, color=MUTED, ls="--", label="before adaptation")
    axes.plot(x, after, color=ACCENT, label=f"after {picture.steps} steps")
    axes.scatter(*(part[:, 0].numpy() for part in picture.episode.support), color=SECOND, zorder=3, label="support")
    query = picture.episode.query
    axes.scatter(query.x[truth, 0].numpy(), query.y[truth, 0].numpy(), color=INK, s=10, zorder=2, label="query")
    _label(axes, "x", "y", "One task of a test client")
    axes.legend(frameon=False, labelcolor=INK)
    return figure


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _panels(count: int, height: float = 3.2) -> tuple[Figure, list[Axes]]:
    figure = _figure(4.6 * count if count > 1 else 5.6, height)
    panels = list(np.atleast_1d(figure.subplots(1, count)))
    for axes in panels:
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color(MUTED)
        axes.tick_params(colors=MUTED, labelsize=8)
    return figure, panels


def _label(axes: Axes, x: str, y: str, title: str) -> None:
    axes.set_xlabel(x, color=MUTED, fontsize=9)
    axes.set_ylabel(y, color=MUTED, fontsize=9)
    axes.set_title(title, color=INK, fontsize=10, loc="left")


def _percent(axes: Axes, score_name: str) -> None:
    if score_name == "accuracy":
        axes.yaxis.set_major_formatter(_per_cent_formatter())


def _per_cent_formatter() -> Callable[..., str]:
    from matplotlib.ticker import PercentFormatter

    return PercentFormatter(xmax=1, decimals=0)
