"""Evasion attacks on a run's models: the table, the curve over eps, attacked inputs, and the protocol in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmeta.estimates import Estimate
from server.report.plots import ACCENT, INK, MUTED, SECOND, WRONG, empty_figure, label, panels, percent, steps_in_words
from server.words import counted, share_with_bounds, why_unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NORMS = {"linf": "Linf", "l2": "L2"}
MOVED = {
    "query": "the query is moved, the support is clean",
    "support": "the support is moved before the model adapts to it, the query is clean",
    "both": "support and query are moved together",
}


def evasion_figures(records: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, Figure | None, str, bool]]:
    """For the page: name, title, figure, caption and whether it is narrow; a curve and pictures for each record."""
    found: list[tuple[str, str, Figure | None, str, bool]] = []
    for number, record in enumerate(records):
        suffix = f"-{number + 1}" if number else ""
        words = protocol_in_words(record)
        title = f"Under attack: {record['protocol']['on']}, {NORMS[record['protocol']['norm']]}"
        found.append((f"evasion{suffix}", title, curve(record), f"{table_in_words(record)} {words}", False))
        if record["pictures"] is not None:
            caption = pictures_caption(record)
            found.append((f"evasion-inputs{suffix}", "Attacked inputs", pictures(record), caption, True))
    return found


def evasion_rows(record: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the table: clean, every attack, and the worst, at every radius."""
    radii = record["protocol"]["eps"]
    columns = ["", *(f"eps {eps:g}" for eps in radii), "ms a query"]
    rows = [["no attack", *[_share(record["clean"])] * len(radii), ""]]
    for name in record["protocol"]["attacks"]:
        own = [figure for figure in record["attacks"] if figure["attack"] == name]
        seconds = float(np.mean([figure["seconds"] for figure in own]))
        rows.append([name, *(_share(figure["accuracy"]) for figure in own), f"{1000 * seconds:.2g}"])
    rows.append(["worst of all", *(_share(figure["accuracy"]) for figure in record["worst"]), ""])
    return columns, rows


def table_in_words(record: Mapping[str, Any]) -> str:
    """The worst over attacks at every radius, in a sentence."""
    worst = ", ".join(f"{_share(figure['accuracy'])} at eps {figure['eps']:g}" for figure in record["worst"])
    return f"Accuracy {_share(record['clean'])} without attack; worst over attacks {worst}."


def protocol_in_words(record: Mapping[str, Any]) -> str:
    """All that must stand beside the numbers."""
    facts = record["protocol"]
    task = ""
    if "ways" in facts:
        task = f", {facts['ways']}-way {facts['shots']}-shot, {counted(facts['queries'], 'query')} a class"
    manner = "transductive: queries are judged together" if facts["transductive"] else "inductive"
    words = [
        f"{NORMS[facts['norm']]}, eps {', '.join(f'{eps:g}' for eps in facts['eps'])} for inputs in [0, 1]",
        MOVED[facts["on"]],
        f"attacks on the adapted model ({steps_in_words(facts['steps'])} of adaptation): "
        + ", ".join(_attack_in_words(name, own) for name, own in facts["attacks"].items()),
        "worst over attacks: " + ("by query" if facts["on"] == "query" else "by episode"),
        f"{counted(facts['episodes'], 'frozen episode')} across test clients{task}, "
        f"seed {facts['episode_seed']}, the same for every model; {manner}; {_intervals(record)}",
    ]
    zero = record["zero_gradients"]
    if zero is not None:
        words.append(f"share of inputs without a gradient: {100 * zero:.2g} %")
    return "; ".join(words) + "."


def curve(record: Mapping[str, Any]) -> Figure:
    """Accuracy over eps: one line an attack, and the worst of all with its intervals."""
    figure, (axes,) = panels(1)
    radii, clean = [0.0, *record["protocol"]["eps"]], record["clean"]
    for place, name in enumerate(record["protocol"]["attacks"]):
        own = [clean["mean"], *(one["accuracy"]["mean"] for one in record["attacks"] if one["attack"] == name)]
        style = ("--", ":", "-.", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1)))[place % 6]
        axes.plot(radii, own, color=(ACCENT, SECOND, MUTED)[place % 3], lw=1.4, ls=style, marker="o", ms=3, label=name)
    worst = [Estimate.from_json(one) for one in (clean, *(one["accuracy"] for one in record["worst"]))]
    axes.vlines(radii, [one.low for one in worst], [one.high for one in worst], color=WRONG, lw=1, alpha=0.6)
    axes.plot(radii, [one.mean for one in worst], color=WRONG, lw=2, marker="o", ms=5, label="worst of all")
    if "ways" in record["protocol"]:
        axes.axhline(1 / record["protocol"]["ways"], color=MUTED, lw=1, ls=":")
    axes.set_ylim(-0.03, 1.03)
    label(axes, f"eps ({NORMS[record['protocol']['norm']]})", "accuracy", "Accuracy under attack (dotted line: chance)")
    percent(axes.yaxis, "accuracy")
    axes.legend(frameon=False, labelcolor=INK, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def pictures(record: Mapping[str, Any]) -> Figure:
    """One row a radius, the clean inputs first; below a query the class that it is taken for."""
    shown = record["pictures"]
    labels, rows = shown["labels"], shown["rows"]
    inch, left, pitch = 0.9, 1.25, 1.3
    figure = empty_figure(inch * (left + len(labels)), inch * pitch * len(rows))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(-left, len(labels))
    axes.set_ylim(pitch * len(rows), 0)
    for line, row in enumerate(rows):
        top = pitch * line
        words = "clean" if row["attack"] is None else f"eps {row['eps']:g}\n{row['attack']}"
        right = f"\n{row['right']} of {row['queries']} right" if row["answers"] is None else ""
        axes.text(-left + 0.05, top + 0.5, words + right, color=INK, fontsize=8.5, va="center")
        for column, pixels in enumerate(row["images"]):
            extent = (column + 0.05, column + 0.95, top + 0.95, top + 0.05)
            image = axes.imshow(
                np.asarray(pixels), cmap="gray_r", vmin=0, vmax=1, extent=extent, interpolation="none", aspect="auto"
            )
            # The page finds ink drawings by this name and turns them light on dark with its theme.
            image.set_gid(f"ink-{len(axes.images)}")
            truth = labels[column]
            taken = truth if row["answers"] is None else row["answers"][column]
            mark = "" if row["answers"] is None else (" ✓" if taken == truth else " ✗")
            colour = MUTED if taken == truth else WRONG
            axes.text(column + 0.5, top + 1.1, f"{_slot(taken)}{mark}", color=colour, fontsize=8.5, ha="center")
    return figure


def pictures_caption(record: Mapping[str, Any]) -> str:
    """What the pictures are."""
    moved = (
        "queries, and the class that each was taken for"
        if record["protocol"]["on"] == "query"
        else ("support, and how many queries are right after the model adapted to it")
    )
    return f"The first episode: {moved}, clean and under the strongest attack at each eps."


def _attack_in_words(name: str, settings: Mapping[str, Any]) -> str:
    """An attack with its parameters, such as `pgd (white box; steps 20, step 0.125, restarts 1)`."""
    box = "black box" if settings["black_box"] else "white box"
    own = ", ".join(f"{key} {_value(value)}" for key, value in settings.items() if key != "black_box")
    return f"{name} ({box}{'; ' if own else ''}{own})"


def _value(value: Any) -> str:
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)


def _slot(slot: int) -> str:
    return chr(65 + slot) if slot < 26 else str(slot + 1)


def _share(estimate: Mapping[str, Any]) -> str:
    return share_with_bounds(Estimate.from_json(estimate))


def _intervals(record: Mapping[str, Any]) -> str:
    found = [record["clean"], *(figure["accuracy"] for figure in (*record["attacks"], *record["worst"]))]
    unknown = why_unknown(map(Estimate.from_json, found))
    return "95 % intervals over episodes" + (f"; {unknown}" if unknown else "")
