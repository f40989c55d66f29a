"""How well attacked queries were told from clean ones: a line for each detector, against either attacker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fedmeta.estimates import Estimate
from server.report.evasion import NORMS
from server.report.plots import ACCENT, INK, MUTED, WRONG, label, panels
from server.words import bounds, counted, share, three_digits, why_unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ATTACKERS = ("plain", "adaptive")


def detector_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """Detector, attacker, AUROC with its interval, share caught at 5 % false alarms, successful attacks."""
    rows = []
    for name, verdict in found["detectors"].items():
        for place, attacker in enumerate(ATTACKERS):
            area = _area(found, name, attacker)
            figures = ["-", "-"]
            if area is not None:
                figures = [f"{three_digits(area.mean)} {bounds(area, three_digits)}", share(verdict[attacker]["tpr"])]
            rows.append([name, attacker, *figures, str(verdict["successes"][place])])
    return rows


def query_detection_figure(found: Mapping[str, Any]) -> Figure:
    """AUROCs with their intervals; a detector without a dot saw no attack that succeeded."""
    names = list(found["detectors"])
    figure, (axes,) = panels(1, height=1.4 + 0.45 * len(names))
    for attacker, colour, shift in zip(ATTACKERS, (ACCENT, WRONG), (-0.12, 0.12), strict=True):
        known = [(place + shift, area) for place, name in enumerate(names) if (area := _area(found, name, attacker))]
        heights, areas = [height for height, _ in known], [area for _, area in known]
        axes.hlines(heights, [area.low for area in areas], [area.high for area in areas], color=colour, lw=1.2)
        axes.plot([area.mean for area in areas], heights, "o", color=colour, ms=5, label=f"{attacker} attacker")
    axes.axvline(0.5, color=MUTED, lw=1, ls=":")
    axes.set_yticks(range(len(names)), names, color=INK)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    label(axes, "AUROC", "", "Attacked queries told from clean ones (dotted line: chance)")
    axes.legend(frameon=False, labelcolor=INK, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def query_detection_caption(found: Mapping[str, Any]) -> str:
    """The protocol in words."""
    facts = found["protocol"]
    areas = [_area(found, name, attacker) for name in found["detectors"] for attacker in ATTACKERS]
    unknown = why_unknown(area for area in areas if area is not None)
    return (
        f"Clean queries of {counted(facts['episodes'], 'frozen episode')}, {facts['ways']}-way {facts['shots']}-shot, "
        f"against PGD of {counted(facts['steps'], 'step')} within {NORMS[facts['norm']]} eps {facts['eps']:g} (plain), "
        "and against an attacker who also lowers the detector's score (adaptive). Successful attacks only; off_binary "
        f"is a sanity baseline. Intervals: 95 %, resampling episodes{'; ' if unknown else ''}{unknown}."
    )


def _area(found: Mapping[str, Any], name: str, attacker: str) -> Estimate | None:
    """None where no attack succeeded; files from before hold no interval."""
    own = found["detectors"][name][attacker]
    if own is None:
        return None
    told = {"mean": own["auroc"], "low": own.get("low"), "high": own.get("high")}
    return Estimate.from_json({**told, "count": found["protocol"]["episodes"], "unit": "episodes"})
