"""What `fedmeta certify` and `fedmeta detect-queries` print."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from fedmeta.statistics import Estimate
from server.report.certified import certified_caption
from server.words import bounds, share


def print_certificates(found: Mapping[str, Any]) -> None:
    """What `fedmeta certify` says."""
    console, radii = Console(), found["radii"]
    table = Table(title="Certified accuracy (95 % over episodes)", title_justify="left")
    table.add_column("L2 radius", justify="right")
    for curve in found["curves"]:
        table.add_column(f"sigma {curve['sigma']:g}", justify="right")
    for place in range(0, len(radii), 4):
        cells = [_share(Estimate.from_json(curve["accuracy"][place])) for curve in found["curves"]]
        table.add_row(f"{radii[place]:.2f}", *cells)
    for words, key in (("abstained", "abstained"), ("accuracy unsmoothed", "unsmoothed")):
        table.add_row(words, *(f"{100 * curve[key]:.1f} %" for curve in found["curves"]))
    table.add_row("seconds a query", *(f"{curve['seconds']:.3f}" for curve in found["curves"]))
    console.print(table)
    console.print(certified_caption(dict(found)))


def print_query_detection(found: Mapping[str, Any]) -> None:
    """What `fedmeta detect-queries` says."""
    facts = found["protocol"]
    table = Table(
        title=f"Attacked queries told from clean ones, {facts['norm']} eps {facts['eps']:g}",
        title_justify="left",
        caption_justify="left",
        caption=f"{facts['episodes']} episodes, {facts['ways']}-way {facts['shots']}-shot; PGD of {facts['steps']} "
        "steps, and an attacker who also lowers the detector's score. Successful attacks only; off_binary is a sanity "
        "baseline.",
    )
    table.add_column("detector")
    for attacker in ("plain", "adaptive"):
        for figure in ("AUROC", "TPR at 5 % FPR", "attacks"):
            table.add_column(f"{attacker}: {figure}", justify="right")
    for name, verdict in found["detectors"].items():
        cells = []
        for place, attacker in enumerate(("plain", "adaptive")):
            own = verdict[attacker]
            cells += ["-", "-"] if own is None else [f"{own['auroc']:.3f}", f"{100 * own['tpr']:.1f} %"]
            cells.append(str(verdict["successes"][place]))
        table.add_row(name, *cells)
    Console().print(table)


def _share(found: Estimate) -> str:
    return f"[bold]{share(found.mean)}[/] {bounds(found, share)}"
