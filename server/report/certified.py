"""Certified accuracy over the L2 radius, one curve for each level of noise."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fedmeta.estimates import Estimate
from server.files import finite, read_json, store
from server.report.plots import ACCENT, INK, MUTED, SECOND, WRONG, label, panels, percent
from server.words import counted, why_unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from server.rundir import RunDir

FILE = "certificates.json"


def write_certificates(rundir: RunDir, found: dict[str, Any]) -> None:
    """Keep in a run's directory within which radii its model's answers are certain."""
    store(rundir.path / FILE, json.dumps(finite(found)).encode())


def certificates(rundir: RunDir) -> dict[str, Any] | None:
    """What was certified last; None where nothing was."""
    found: dict[str, Any] | None = read_json(rundir.path / FILE, "delete it, and certify the model again")
    return found


def certified_figure(found: dict[str, Any]) -> Figure:
    """Curves with bands of 95 % over episodes."""
    figure, (axes,) = panels(1)
    radii = found["radii"]
    for curve, colour in zip(found["curves"], (ACCENT, SECOND, WRONG, MUTED), strict=False):
        estimates = [Estimate.from_json(each) for each in curve["accuracy"]]
        means, lows, highs = ([getattr(each, key) for each in estimates] for key in ("mean", "low", "high"))
        axes.step(radii, means, where="post", color=colour, lw=1.5, label=f"sigma {curve['sigma']:g}")
        axes.fill_between(radii, lows, highs, step="post", color=colour, alpha=0.15, lw=0)
    axes.set_ylim(0, 1)
    label(axes, "L2 radius, in units of pixels", "accuracy", "Certified accuracy")
    percent(axes.yaxis, "accuracy")
    axes.legend(frameon=False, labelcolor=INK, fontsize=9)
    return figure


def certified_caption(found: dict[str, Any]) -> str:
    """The protocol in words."""
    facts = found["protocol"]
    unknown = why_unknown(Estimate.from_json(each) for curve in found["curves"] for each in curve["accuracy"])
    return (
        f"Randomised smoothing of the adapted model of round {found['round']}, clean supports of {facts['ways']} ways "
        f"and {counted(facts['shots'], 'shot')}: {counted(facts['episodes'], 'frozen episode')}, "
        f"{counted(facts['queries'], 'query')} of each, "
        f"n0 = {facts['select']}, n = {facts['count']}, alpha = {facts['alpha']:g}; the model was not trained on "
        f"noise. Bands: 95 % over episodes{'; ' if unknown else ''}{unknown}."
    )
