"""Sections of what later commands found in a run: leaks, membership, backdoors, attacks, their detection, radii."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.findings import finding
from server.report.certified import certificates, certified_caption, certified_figure
from server.report.evasion import evasion_figures
from server.report.inversion import inversion_caption, inversion_figure
from server.report.leak import leak_caption, leak_figure
from server.report.membership import membership_figure, membership_in_words
from server.report.query_detection import query_detection_caption, query_detection_figure
from server.rundir import RunDir

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def examination_figures(rundir: RunDir) -> list[tuple[str, str, Figure | None, str, bool]]:
    """For the page, of what was examined: name, title, figure, caption and whether it is narrow."""
    found: list[tuple[str, str, Figure | None, str, bool]] = []
    leak = rundir.leak()
    if leak is not None:
        found.append(("leak", "What one update shows", leak_figure(leak), leak_caption(leak), True))
    members = finding(rundir, "membership")
    if members is not None:
        words = membership_in_words(members)
        found.append(("membership", "Who took part?", membership_figure(members), words, False))
    examined = rundir.detection()
    if examined is not None:
        found.append(("inversion", "A backdoor?", inversion_figure(examined), inversion_caption(examined), True))
    found += evasion_figures(rundir.evasion())
    queries = finding(rundir, "query-detection")
    if queries is not None:
        words = query_detection_caption(queries)
        found.append(("query-detection", "Attacked queries", query_detection_figure(queries), words, False))
    certified = certificates(rundir)
    if certified is not None:
        curves = certified_figure(certified)
        found.append(("certified", "Certified accuracy", curves, certified_caption(certified), False))
    return found
