"""Pictures of an explained round: a map of its clients, scores by layer, worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from server.report.explain_episode import ON_CELL, diverging
from server.report.plots import ACCENT, INK, MUTED, SECOND, label, panels
from server.words import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMED = 40
"""So many clients are named on a map."""


def map_figure(found: Mapping[str, Any]) -> Figure:
    """Clients by the directions of their updates: colour is the truth, shape what the aggregator said."""
    figure, (axes,) = panels(1, height=4.6)
    for malicious in (False, True):
        for flagged in (False, True):
            own = [c for c in found["clients"] if c["malicious"] == malicious and c["flagged"] == flagged]
            if not own:
                continue
            axes.scatter(
                [client["x"] for client in own],
                [client["y"] for client in own],
                s=90,
                marker="X" if flagged else "o",
                color=SECOND if malicious else ACCENT,
                edgecolors="white",
                linewidths=0.8,
                alpha=0.9,
                label=_kind(found, malicious, flagged),
                zorder=3,
            )
    if len(found["clients"]) <= NAMED:
        for client in found["clients"]:
            crowded = any(0 < o["x"] - client["x"] < 0.15 and abs(o["y"] - client["y"]) < 0.1 for o in found["clients"])
            axes.annotate(
                str(client["client"]),
                (client["x"], client["y"]),
                xytext=(-7, 5) if crowded else (7, 5),
                textcoords="offset points",
                ha="right" if crowded else "left",
                color=MUTED,
                fontsize=8,
            )
    axes.axhline(0, color=MUTED, lw=0.5, alpha=0.4)
    axes.axvline(0, color=MUTED, lw=0.5, alpha=0.4)
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.12)
    first, second = (100 * share for share in found["explained"])
    title = f"Directions of the updates of round {found['round']}"
    label(axes, f"first component: {first:.0f} % of the variance", f"second: {second:.0f} %", title)
    axes.legend(frameon=False, labelcolor=INK, fontsize=9, loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


def map_caption(found: Mapping[str, Any]) -> str:
    """What near and far mean, and what the flags are."""
    verdict = (
        f"a cross: flagged by {found['aggregator']}" if found["accuses"] else f"{found['aggregator']} accuses nobody"
    )
    return (
        f"Principal components of {len(found['clients'])} updates of {found['parameters']:,} parameters, each brought "
        f"to unit length: near means alike in direction, whatever the length. Numbers: client ids; {verdict}."
    )


def flags_figure(found: Mapping[str, Any]) -> Figure:
    """A row a client, a column a layer: the layer's share of what sets the client's score apart."""
    clients, layers = found["clients"], list(found["sizes"])
    values = np.array([[client["shares"].get(layer, 0.0) for layer in layers] for client in clients])
    figure, (axes,) = panels(1, height=1.75 + 0.42 * len(clients))
    limit = max(float(np.abs(values).max()), 1e-9)
    axes.imshow(values, cmap=diverging(), vmin=-limit, vmax=limit, aspect="auto", interpolation="none")
    for row, column in np.ndindex(values.shape):
        share = round(float(values[row, column]), 2) + 0.0
        colour = ON_CELL if abs(share) < 0.6 * limit else "#ffffff"
        axes.text(column, row, f"{100 * share:.0f} %", color=colour, fontsize=8.5, ha="center", va="center")
    axes.set_xticks(range(len(layers)), [f"{layer}\n{found['sizes'][layer]:,}" for layer in layers])
    axes.set_yticks(range(len(clients)), [_client(client) for client in clients])
    axes.tick_params(axis="both", length=0, labelcolor=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    _separate(axes, values.shape)
    title = "Share of each layer in what sets a client's score apart"
    label(axes, "layer, and its number of parameters", "", title)
    return figure


def flags_caption(found: Mapping[str, Any]) -> str:
    """How a score was taken apart."""
    who = "the flagged clients" if found["flagged"] else "the most suspicious clients, of whom none was flagged"
    return (
        f"Scores of {found['aggregator']} in round {found['round']}, for {who}; the median over all clients is "
        f"{found['median_score']:.3g}. In brackets: the score, and what it would be with the median update of the "
        "others in its place. Shapley values of the difference between the two, for the layers being the client's own."
    )


def worth_figure(found: Mapping[str, Any]) -> Figure:
    """Each client's Shapley value with its interval, and beside it what leaving it out would cost."""
    clients = sorted(found["clients"], key=lambda client: float(client["shapley"]))
    places = np.arange(len(clients))
    figure, (axes,) = panels(1, height=1.7 + 0.27 * len(clients))
    axes.hlines(places, 0, 1, transform=axes.get_yaxis_transform(), color=MUTED, lw=0.5, alpha=0.3)
    axes.axvline(0, color=MUTED, lw=1)
    for malicious, colour in ((False, ACCENT), (True, SECOND)):
        rows = [place for place, client in zip(places, clients, strict=True) if client["malicious"] == malicious]
        if not rows:
            continue
        values = [clients[row]["shapley"] for row in rows]
        errors = [1.96 * (clients[row]["error"] or 0.0) for row in rows]
        who = "malicious" if malicious else "honest" if any(c["malicious"] for c in clients) else "each client"
        if any(errors):
            axes.errorbar(values, rows, xerr=errors, fmt="none", ecolor=colour, elinewidth=1.4, zorder=2)
        axes.plot(values, rows, "o", color=colour, ms=7, label=f"Shapley value, {who}", zorder=3)
        alone = [clients[row]["leave_one_out"] for row in rows]
        axes.plot(alone, rows, "D", mfc="none", mec=colour, ms=6, mew=1.4, label=f"leave-one-out, {who}", zorder=3)
    axes.set_yticks(places, [_client(client, scored=False) for client in clients])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(-0.7, len(clients) - 0.3)
    axes.ticklabel_format(axis="x", scilimits=(-2, 3), useMathText=True)
    axes.locator_params(axis="x", nbins=7)
    axes.xaxis.get_offset_text().set_color(MUTED)
    title = f"What each client's update of round {found['round']} is worth"
    label(axes, "lowers the validation loss by [nats]", "", title)
    axes.legend(frameon=False, labelcolor=INK, fontsize=9, loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


def worth_caption(found: Mapping[str, Any]) -> str:
    """What the worth of a coalition is, and how many were tried."""
    how = "all coalitions were enumerated"
    if found["permutations"]:
        how = (
            f"{found['permutations']} random orders, of which {100 * found['truncated']:.0f} % was cut off; "
            "bars: 95 % intervals"
        )
    return (
        f"Loss after adaptation on {counted(found['episodes'], 'episode')} of validation clients, of the model that "
        f"the server makes of the mean of some clients' updates: {found['loss_without']:.4g} with none of them, "
        f"{found['loss_with_all']:.4g} with all. {found['evaluations']} coalitions were judged: {how}. One round, and "
        "the plain mean: not what the run's aggregator made of them."
    )


def _kind(found: Mapping[str, Any], malicious: bool, flagged: bool) -> str:
    truth = ("malicious" if malicious else "honest") if found["attacked"] else "client"
    return f"{truth}, flagged" if flagged else truth


def _client(client: Mapping[str, Any], *, scored: bool = True) -> str:
    marks = [word for word in ("flagged", "malicious") if client[word]]
    score = f" ({client['score']:.3g}; {client['ordinary']:.3g})" if scored else ""
    return f"client {client['client']}" + "".join(f", {mark}" for mark in marks) + score


def _separate(axes: Axes, shape: Sequence[int]) -> None:
    """White lines between cells."""
    axes.set_xticks(np.arange(shape[1] - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(shape[0] - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", lw=1.5)
    axes.tick_params(which="minor", length=0)
