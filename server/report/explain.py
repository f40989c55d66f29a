"""The report's sections on what was explained, from `explain.json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from server.report import explain_clients, explain_episode

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Drawn = tuple[str, str, "Figure | None", str, bool]
"""Name of the file, title, figure, caption, and whether it keeps its own width."""


def explanation_figures(found: Mapping[str, Any] | None) -> list[Drawn]:
    """The figures of the parts that there are; none for a run that was not explained."""
    if found is None:
        return []
    parts: tuple[tuple[str, str, Callable[..., Any], Callable[..., str], bool], ...] = (
        (
            "influence",
            "Which support examples drove the predictions",
            explain_episode.influence_figure,
            explain_episode.influence_caption,
            True,
        ),
        (
            "saliency",
            "Which pixels speak for an answer",
            explain_episode.saliency_figure,
            explain_episode.saliency_caption,
            True,
        ),
        ("layers", "What adaptation changes", explain_episode.layers_figure, explain_episode.layers_caption, False),
        ("map", "A map of the clients", explain_clients.map_figure, explain_clients.map_caption, False),
        ("flags", "Why clients stood out", explain_clients.flags_figure, explain_clients.flags_caption, False),
        ("worth", "What clients are worth", explain_clients.worth_figure, explain_clients.worth_caption, False),
    )
    drawn = [
        (f"explain-{part}", title, figure(found[part]), f"{_model(found)} {caption(found[part])}", narrow)
        for part, title, figure, caption, narrow in parts
        if part in found
    ]
    if drawn and found["left_out"]:
        name, title, figure, caption, narrow = drawn[-1]
        missing = "; ".join(f"{part}: {why}" for part, why in found["left_out"].items())
        drawn[-1] = (name, title, figure, f"{caption} Not explained: {missing}.", narrow)
    return drawn


def _model(found: Mapping[str, Any]) -> str:
    if found["of"] == "start":
        return "The model before the first round."
    return f"The {found['of']} model, of round {found['round']}."
