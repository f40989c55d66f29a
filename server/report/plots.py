"""The report's plots, drawn with matplotlib's object interface, so that no display and no main thread is needed."""

from __future__ import annotations

import hashlib
import html
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmeta.attacks.success import AttackSuccess
from fedmeta.estimates import Estimate
from fedmeta.statistics import ERRORS, Evaluation
from server.detection import judged_round
from server.report.episode import EpisodePicture
from server.words import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INK, MUTED, ACCENT, SECOND, WRONG = "#1a1d21", "#8a9099", "#2563eb", "#d97706", "#dc2626"
THEMED = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    ACCENT: "var(--accent)",
    SECOND: "var(--second)",
    WRONG: "var(--wrong)",
}

NAMED = 40
"""So many clients are drawn by name; of more, the distribution is."""

SMOOTHED = 300
"""More rounds than these are drawn faint under their running mean."""

DOTS = 3000
"""More scores than these are thinned out by whole rounds, so that the page stays small."""


def themed_svg(figure: Figure, label: str) -> str:
    """A figure as SVG for the page, whose colours follow the page's light or dark theme.

    Args:
        figure: to draw.
        label: what a screen reader says in its place.
    """
    with io.StringIO() as buffer:
        figure.savefig(buffer, format="svg", transparent=True)
        text = buffer.getvalue()
    _keep_layout(figure)
    text = text[text.index("<svg") :]
    for colour, variable in THEMED.items():
        text = text.replace(colour, variable)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Ids repeat between figures and would collide in one page.
    prefix = f"f{hashlib.sha256(text.encode()).hexdigest()[:8]}-"
    text = re.sub(r'id="([^"]+)"', rf'id="{prefix}\1"', text)
    text = re.sub(r'xlink:href="#([^"]+)"', rf'xlink:href="#{prefix}\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}\1)", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(label, quote=True)}" ', 1)


def save_png(figure: Figure, path: Path) -> None:
    """A figure as a picture on white."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=150, facecolor="white")
    _keep_layout(figure)


def _keep_layout(figure: Figure) -> None:
    """What is placed stays: to place it again, for another format, would cost as much as to draw it twice."""
    figure.set_layout_engine("none")


def learning_curves(
    metrics: Sequence[Mapping[str, Any]], score_name: str, kinds: tuple[str, str] = ("", "")
) -> Figure | None:
    """Training loss and score by round, and validation with its interval; None without a trained round.

    Args:
        metrics: the records of the rounds.
        score_name: the score that is drawn beside the loss.
        kinds: of the tasks of training and of validation, such as `10-way`, where they differ: one axis has both, and
            the easier tasks would look like the better model.
    """
    trained = [record for record in metrics if "loss" in record["train"]]
    if not trained:
        return None
    judged = [
        (record["round"], Evaluation.from_json(record["validation"])) for record in metrics if record["validation"]
    ]
    scored = [record for record in trained if score_name in record["train"]]
    training, validation = (
        f"{who} clients{f', {kind}' if kind else ''}"
        for who, kind in zip(("training", "validation"), kinds, strict=True)
    )
    figure, both = panels(2 if scored or judged else 1)
    _line(both[0], [(record["round"], record["train"]["loss"]) for record in trained], ACCENT, training)
    label(both[0], "round", "loss", "Loss before each outer step")
    both[0].legend(frameon=False, labelcolor=INK, fontsize=9)
    if len(both) == 2:
        right = both[1]
        if scored:
            _line(right, [(r["round"], r["train"][score_name]) for r in scored], ACCENT, training)
        if judged:
            rounds = [round for round, _ in judged]
            _interval_curve(right, rounds, [found.after for _, found in judged], SECOND, validation)
        label(right, "round", score_name, f"{_title(score_name)} after adaptation")
        percent(right.yaxis, score_name)
        right.legend(frameon=False, labelcolor=INK, fontsize=9)
    return figure


def adaptation_curve(evaluations: Sequence[Evaluation]) -> Figure | None:
    """Score over adaptation steps with 95 % intervals; None where only one number of steps was judged."""
    shown = [evaluation for evaluation in evaluations if len(evaluation.steps) > 1]
    if not shown:
        return None
    figure, (axes,) = panels(1)
    for evaluation, colour in zip(shown, (ACCENT, SECOND), strict=False):
        _interval_curve(axes, evaluation.steps, evaluation.score, colour, split_in_words(evaluation))
        if evaluation.baseline is not None:
            axes.axhline(evaluation.baseline.mean, color=colour, lw=1, ls=":")
    axes.set_xticks(_few(shown[0].steps))
    label(axes, "adaptation steps", shown[0].score_name, f"{_title(shown[0].score_name)} on unseen clients")
    percent(axes.yaxis, shown[0].score_name)
    axes.legend(frameon=False, labelcolor=INK, fontsize=9)
    return figure


def success_curve(found: Sequence[tuple[str, AttackSuccess]]) -> Figure | None:
    """Attack success over adaptation steps with 95 % intervals, dashed for the clean model; None without any."""
    if not found:
        return None
    figure, every = panels(len(found))
    for axes, (words, success) in zip(every, found, strict=True):
        _interval_curve(axes, success.steps, success.rate, WRONG, "attacked model")
        if success.clean:
            _interval_curve(axes, success.steps, success.clean, MUTED, "clean model")
        axes.set_xticks(_few(success.steps))
        axes.set_ylim(-0.03, 1.03)
        label(axes, "adaptation steps", "attack success", words.capitalize())
        percent(axes.yaxis, "accuracy")
        axes.legend(frameon=False, labelcolor=INK, fontsize=9)
    return figure


def scores_chart(metrics: Sequence[Mapping[str, Any]]) -> Figure | None:
    """A defence's score of each update of each round; None where no malicious one was ever scored."""
    rounds = [(record["round"], judged_round(record).labelled) for record in metrics]
    scored = [(number, scores, bad) for number, (scores, bad) in rounds if scores]
    if not any(any(bad) for _, _, bad in scored):
        return None
    stride = math.ceil(sum(len(scores) for _, scores, _ in scored) / DOTS)
    points = [
        (n, score, bad) for n, scores, labels in scored[::stride] for score, bad in zip(scores, labels, strict=True)
    ]
    figure, (axes,) = panels(1)
    for bad, colour, words in ((False, MUTED, "honest updates"), (True, WRONG, "malicious updates")):
        own = [(number, score) for number, score, label in points if label == bad]
        axes.plot([n for n, _ in own], [score for _, score in own], "o", color=colour, ms=3.5, alpha=0.7, label=words)
    values = [score for _, score, _ in points]
    if min(values) > 0 and max(values) > 100 * min(values):
        axes.set_yscale("log")
    label(axes, "round", "score", "Suspicion of each update")
    axes.legend(frameon=False, labelcolor=INK, fontsize=9)
    return figure


def clients_chart(evaluation: Evaluation, names: Mapping[str, str]) -> Figure | None:
    """Test clients' mean scores: a dot each by name, or the distribution of many; None for a single client."""
    found = [(client, math.nan if score is None else score) for client, score in evaluation.clients.items()]
    if len(found) < 2:
        return None
    items = sorted((item for item in found if math.isfinite(item[1])), key=lambda item: item[1])
    many = len(found) > NAMED
    figure, (axes,) = panels(1, height=3.2 if many else 1.0 + 0.24 * len(found))
    if many:
        axes.hist([score for _, score in items], bins=30, color=ACCENT, alpha=0.85, rwidth=0.88)
    else:
        labels = [names.get(client, f"client {client}") for client, _ in items]
        axes.hlines(range(len(items)), 0, 1, transform=axes.get_yaxis_transform(), color=MUTED, lw=0.5, alpha=0.4)
        axes.plot([score for _, score in items], range(len(items)), "o", color=ACCENT, ms=6)
        axes.set_yticks(range(len(items)), labels)
        axes.set_ylim(-0.7, len(items) - 0.3)
    axes.axvline(evaluation.after.mean, color=SECOND, lw=1.2)
    axes.margins(x=0.06)
    title = f"{len(found)} test clients after adaptation" if many else "Each test client after adaptation"
    label(axes, evaluation.score_name, "clients" if many else "", f"{title} (line: mean)")
    percent(axes.xaxis, evaluation.score_name)
    return figure


def curve_figure(picture: EpisodePicture) -> Figure:
    """A task of one number from one number: support, the truth at the queries, and what was predicted."""
    assert picture.curve is not None
    x, before, after = picture.curve
    support, query = picture.episode.support, picture.episode.query
    figure, (axes,) = panels(1)
    axes.plot(x, before, color=MUTED, ls="--", lw=1.4, label="before adaptation")
    axes.plot(x, after, color=ACCENT, lw=2, label=f"after {steps_in_words(picture.steps)}")
    axes.scatter(query.x[:, 0].numpy(), query.y[:, 0].numpy(), color=INK, s=12, zorder=2, label="query: the truth")
    axes.scatter(support.x[:, 0].numpy(), support.y[:, 0].numpy(), color=SECOND, s=34, zorder=3, label="support")
    label(axes, "x", "y", "One task of a test client")
    axes.legend(frameon=False, labelcolor=INK, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def steps_in_words(steps: int) -> str:
    """A count with its noun, such as `5 steps`."""
    return counted(steps, "step")


def split_in_words(evaluation: Evaluation) -> str:
    """On what a model was judged, as a legend says it."""
    return "across test clients" if evaluation.split == "pooled" else "each client's own tasks"


def empty_figure(width: float, height: float) -> Figure:
    """A figure of so many inches, bound to no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def panels(count: int, height: float = 3.2) -> tuple[Figure, list[Axes]]:
    """A figure of the page's width with `count` panels beside each other, in the page's style."""
    figure = empty_figure(9.2, height)
    figure.set_layout_engine("constrained")
    found = list(np.atleast_1d(figure.subplots(1, count)))
    for axes in found:
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color(MUTED)
        axes.tick_params(colors=MUTED, labelsize=8)
    return figure, found


def _line(axes: Axes, points: Sequence[tuple[int, float | None]], colour: str, words: str) -> None:
    """A line by round: a lone round is a dot, null (for NaN) a gap, and many rounds have their mean drawn over them."""
    rounds = np.array([round for round, _ in points])
    values = np.array([math.nan if value is None else value for _, value in points])
    if len(points) <= SMOOTHED:
        axes.plot(rounds, values, color=colour, marker="o" if len(points) == 1 else None, label=words)
        return
    window = len(points) // 50
    axes.plot(rounds, values, color=colour, lw=0.5, alpha=0.3)
    means = np.convolve(values, np.ones(window) / window, mode="valid")
    start = window // 2
    axes.plot(rounds[start : start + len(means)], means, color=colour, label=f"{words}, mean of {window} rounds")


def _interval_curve(axes: Axes, at: Sequence[int], estimates: Sequence[Estimate], colour: str, words: str) -> None:
    """Means joined by a line, the intervals as a band and, so that a lone one shows too, as bars."""
    low, high = [item.low for item in estimates], [item.high for item in estimates]
    axes.fill_between(at, low, high, color=colour, alpha=0.15, lw=0)
    axes.vlines(at, low, high, color=colour, lw=1, alpha=0.6)
    axes.plot(at, [item.mean for item in estimates], color=colour, marker="o", ms=5, label=words)


def _few(steps: Sequence[int]) -> list[int]:
    """At most a dozen ticks, the first and the last among them."""
    stride = max(1, -(-(len(steps) - 1) // 11))
    return sorted({*steps[::stride], steps[-1]})


def _title(score_name: str) -> str:
    return score_name.upper() if score_name in ERRORS else score_name.capitalize()


def label(axes: Axes, x: str, y: str, title: str) -> None:
    """Names of the axes and a title; rounds are whole numbers."""
    axes.set_xlabel(x, color=MUTED, fontsize=9)
    axes.set_ylabel(y, color=MUTED, fontsize=9)
    axes.set_title(title, color=INK, fontsize=10, loc="left", pad=10)
    if x == "round":
        from matplotlib.ticker import MaxNLocator

        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def percent(axis: Axis, score_name: str) -> None:
    """Ticks in per cent where the score is a share."""
    if score_name == "accuracy":
        from matplotlib.ticker import FuncFormatter

        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))
