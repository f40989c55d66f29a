"""The smallest triggers that were found for each slot of a run's model, as pictures and in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from server.report.plots import INK, MUTED, WRONG, empty_figure
from server.words import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 12
"""More slots than these are not drawn."""


def inversion_figure(found: Mapping[str, Any]) -> Figure:
    """Mask times pattern of each slot, with the mask's size and the slot's outlier index below."""
    slots = found["inversion"]["slots"][:SHOWN]
    accused = found["inversion"]["easiest"] if found["inversion"]["suspicious"] else None
    inch = 1.1
    figure = empty_figure(inch * len(slots), inch * 1.5)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, len(slots))
    axes.set_ylim(1.5, 0)
    for column, slot in enumerate(slots):
        painted = np.asarray(slot["mask"]) * np.asarray(slot["pattern"])[0]
        extent = (column + 0.06, column + 0.94, 1.1, 0.22)
        image = axes.imshow(painted, cmap="gray_r", vmin=0, vmax=1, extent=extent, interpolation="none", aspect="auto")
        image.set_gid(f"ink-{column + 1}")
        colour = WRONG if slot["slot"] == accused else INK
        axes.text(column + 0.5, 0.11, f"slot {slot['slot']}", color=colour, fontsize=9, ha="center", va="center")
        size = f"{slot['norm']:.0f} pixels" if slot["reached"] else "none works"
        axes.text(column + 0.5, 1.22, size, color=MUTED, fontsize=8, ha="center", va="center")
        axes.text(column + 0.5, 1.38, f"index {_index(slot)}", color=MUTED, fontsize=8, ha="center", va="center")
    return figure


def inversion_caption(found: Mapping[str, Any]) -> str:
    """What the search says of the model."""
    inversion = found["inversion"]
    easiest = inversion["slots"][inversion["easiest"]]
    where = {"query": "queries", "both": "supports and queries"}[inversion["stamped"]]
    chance = f"among {len(inversion['slots'])} slots by chance in {100 * inversion['chance']:.1f} % of models"
    if inversion["suspicious"]:
        verdict = f"slot {easiest['slot']} is suspiciously easy to reach: index {_index(easiest)}, {chance}"
    else:
        verdict = f"no slot stands out: the largest index is {_index(easiest)}, {chance}"
    return (
        f"The smallest triggers on {where} of {counted(inversion['episodes'][0], 'clean episode')}; {verdict}. "
        f"On {counted(inversion['episodes'][1], 'other episode')} that of slot {easiest['slot']} misleads "
        f"{100 * easiest['held_out']:.0f} % of the queries."
    )


def spectral_in_words(spectral: Mapping[str, Any]) -> str:
    """How well spectral signatures found the poisoned supports."""
    pooled, by_class = spectral["all"], spectral["by_class"]
    if "auroc" not in pooled:
        return (
            f"spectral signatures: {spectral['poisoned']} of {spectral['examples']} supports poisoned: nothing to rank"
        )
    return (
        f"spectral signatures of {spectral['examples']} support examples, {spectral['poisoned']} with the attack's "
        f"trigger: AUROC {100 * pooled['auroc']:.0f} %, centred by class {100 * by_class['auroc']:.0f} %; taking away "
        f"the most suspicious takes {100 * pooled['removed']:.0f} % ({100 * by_class['removed']:.0f} %) of the poisoned"
    )


def _index(slot: Mapping[str, Any]) -> str:
    return "infinite" if slot["index"] is None else f"{slot['index']:.1f}"
