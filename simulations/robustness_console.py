"""What `fedmeta certify` and `fedmeta detect-queries` print."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from fedmeta.estimates import Estimate
from server.report.certified import certified_caption
from server.report.evasion import NORMS
from server.report.query_detection import ATTACKERS, detector_rows, query_detection_caption
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
    console, facts = Console(), found["protocol"]
    title = f"Attacked queries told from clean ones, {NORMS[facts['norm']]} eps {facts['eps']:g}"
    table = Table(title=title, title_justify="left")
    for column in ("detector", "attacker"):
        table.add_column(column)
    for column in ("AUROC (95 %)", "TPR at\n5 % FPR", "attacks"):
        table.add_column(column, justify="right")
    for detector, attacker, *figures in detector_rows(found):
        table.add_row(detector if attacker == ATTACKERS[0] else "", attacker, *figures)
    console.print(table)
    console.print(query_detection_caption(found))


def _share(found: Estimate) -> str:
    return f"[bold]{share(found.mean)}[/] {bounds(found, share)}"
