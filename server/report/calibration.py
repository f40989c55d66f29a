"""The reliability picture: of the answers given with a confidence, how many were right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedmeta.calibration import BINS
from fedmeta.estimates import Estimate
from fedmeta.statistics import Evaluation
from server.report import plots
from server.words import bounds, three_digits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CAPTION = (
    f"Bars: accuracy of the queries within each of {BINS} equal bins of confidence, the largest probability; the "
    "diagonal is a model that can be believed, bars below it one too sure of itself. Thin: the share of queries."
)


def figures_in_words(evaluation: Evaluation) -> dict[str, str]:
    """NLL, Brier score and expected calibration error after adaptation, as one prints them, by name.

    The first two have a 95 % interval. The third is of all queries together; its bins are part of its name.
    """
    found = {"NLL": _with_interval(evaluation.loss_after)}
    if evaluation.brier_after is not None:
        found["Brier"] = _with_interval(evaluation.brier_after)
    if evaluation.ece_after is not None:
        found[f"ECE, {BINS} bins"] = f"{evaluation.ece_after:.3f}"
    return found


def reliability_figure(evaluations: Sequence[Evaluation]) -> Figure | None:
    """A panel for each classification evaluation, after adaptation; None where there is none."""
    shown = [evaluation for evaluation in evaluations if evaluation.bins]
    if not shown:
        return None
    figure, panels = plots.panels(len(shown), height=3.6)
    for axes, evaluation in zip(panels, shown, strict=True):
        _draw(axes, evaluation)
    return figure


def calibration_caption(evaluations: Sequence[Evaluation]) -> str:
    """The figures of each evaluation that the picture shows, and how to read it."""
    lines = []
    for evaluation in evaluations:
        if evaluation.bins:
            figures = "; ".join(f"{name} {value}" for name, value in figures_in_words(evaluation).items())
            lines.append(f"{plots.split_in_words(evaluation).capitalize()}: {figures}.")
    return " ".join([*lines, CAPTION])


def _draw(axes: Axes, evaluation: Evaluation) -> None:
    counts, _, right = np.asarray(evaluation.bins[evaluation.steps.index(evaluation.adapted)])
    filled = counts > 0
    centres = (np.arange(BINS) + 0.5) / BINS
    axes.plot([0, 1], [0, 1], color=plots.MUTED, lw=1, ls="--")
    accuracy = right[filled] / counts[filled]
    axes.bar(centres[filled], accuracy, width=0.9 / BINS, color=plots.ACCENT, alpha=0.85)
    axes.plot(centres, counts / counts.sum(), color=plots.SECOND, lw=1.2, drawstyle="steps-mid")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    error = evaluation.ece_after
    title = f"{plots.split_in_words(evaluation).capitalize()}: ECE {error:.3f}"
    plots.label(axes, "confidence", "accuracy", title)
    for axis in (axes.xaxis, axes.yaxis):
        plots.percent(axis, "accuracy")


def _with_interval(found: Estimate) -> str:
    return f"{three_digits(found.mean)} {bounds(found, three_digits)}"
