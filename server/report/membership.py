"""What a membership audit found: the attack's ROC beside what the claim allows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmeta.audit.membership import most_caught
from server.report.plots import ACCENT, INK, MUTED, SECOND, label, panels
from server.words import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def membership_figure(found: Mapping[str, Any]) -> Figure:
    """ROC curves of both attacks, on plain axes and on logarithmic ones, where few false alarms are."""
    figure, (plain, logarithmic) = panels(2, height=3.9)
    least = 1 / found["others"]
    grid = np.geomspace(min(1e-3, least), 1, 400)
    for axes, floor in ((plain, 0.0), (logarithmic, grid[0])):
        axes.plot(grid, grid, color=MUTED, lw=1, ls="--", label="chance")
        if found["bound"]:
            allowed = most_caught(grid, found["bound"]["epsilon"], found["bound"]["delta"])
            axes.fill_between(grid, allowed, 1, color=MUTED, alpha=0.18, lw=0)
            words = f"beyond ε = {found['bound']['epsilon']:.3g}, δ = {found['bound']['delta']:g}"
            axes.plot(grid, allowed, color=INK, lw=1.2, label=words)
        for way, colour, style in (("online", ACCENT, "-"), ("offline", SECOND, "-.")):
            fpr, tpr = (np.maximum(part, floor) for part in found[way]["roc"])
            area = found[way]
            words = f"{way}: AUROC {area['auroc']:.2f} ({area['low']:.2f} to {area['high']:.2f})"
            if floor:  # how rare the alarms are of a threshold that had none is not known
                axes.step(fpr, tpr, where="post", color=colour, ls=style, lw=1.2, alpha=0.25)
                known = fpr > least * 1.0001
                caught = float(tpr[~known].max())
                fpr, tpr = (np.append(first, part[known]) for first, part in ((least, fpr), (caught, tpr)))
            axes.step(fpr, tpr, where="post", color=colour, ls=style, lw=1.8, label=words)
    logarithmic.set_xscale("log")
    logarithmic.set_yscale("log")
    logarithmic.set_xlim(grid[0], 1)
    logarithmic.set_ylim(grid[0], 1)
    logarithmic.axvline(least, color=MUTED, lw=0.8, ls=":")
    logarithmic.text(least, grid[0] * 1.15, " one false alarm", color=MUTED, fontsize=8, va="bottom")
    plain.set_xlim(-0.01, 1)
    plain.set_ylim(0, 1.01)
    label(plain, "false-positive rate", "true-positive rate", "Telling members from others")
    label(logarithmic, "false-positive rate, logarithmic", "", "Where false alarms are few")
    plain.legend(frameon=False, labelcolor=INK, fontsize=8.5, loc="lower right")
    return figure


def membership_in_words(found: Mapping[str, Any]) -> str:
    """What LiRA found, beside the claim, and how much so many trials can say."""
    return " ".join([*(_attack(found, way) for way in ("online", "offline")), _claim(found), _few(found)])


def _attack(found: Mapping[str, Any], way: str) -> str:
    attack = found[way]
    rates = ", ".join(
        f"{100 * tpr:.1f} % at {100 * fpr:g} %" for fpr, tpr in zip(found["fprs"], attack["tpr"], strict=True)
    )
    return (
        f"LiRA {way}: AUROC {attack['auroc']:.3f} (95 % over shadows: {attack['low']:.3f} to {attack['high']:.3f}); "
        f"members caught at a false-positive rate: {rates}."
    )


def _claim(found: Mapping[str, Any]) -> str:
    claim = found["bound"]
    shown = max(found[way]["shown"] for way in ("online", "offline"))
    proved = f"error rates show at least epsilon {shown:.2f}" if shown else "error rates show no epsilon above 0"
    if claim is None:
        return f"No bound: {found['no_bound']}; {proved}."
    rates = ", ".join(
        f"{100 * tpr:.2g} % at {100 * fpr:g} %" for fpr, tpr in zip(found["fprs"], claim["tpr"], strict=True)
    )
    verdict = "above the claim: the mechanism does not do what it says" if shown > claim["epsilon"] else "within it"
    return (
        f"Epsilon {claim['epsilon']:.3g} at delta {claim['delta']:g} allows AUROC {claim['auroc']:.3f}, and {rates}; "
        f"{proved}, {verdict}."
    )


def _few(found: Mapping[str, Any]) -> str:
    trials = (
        f"{found['shadows']} shadow federations of {counted(found['clients'], 'client')}, "
        f"{counted(found['members'], 'member')} and {counted(found['others'], 'other')}, "
        f"{counted(found['tasks'], 'task')} each"
    )
    if found["others"] * min(found["fprs"]) >= 10:
        return f"{trials[0].upper()}{trials[1:]}."
    return (
        f"Few: {trials}. One false alarm is {100 / found['others']:.2g} %: rates below that are those without any, and "
        "may lie above the bound by chance."
    )
