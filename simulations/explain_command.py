"""`fedmeta explain` on the command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table


def explain(
    directory: Annotated[Path, typer.Argument(help="A run directory, whose report then shows what was found.")],
    of: Annotated[
        str, typer.Option(help="The model: last, best or start; a round is played again from there.")
    ] = "last",
    episodes: Annotated[int, typer.Option(min=1, help="Of test clients, and of validation clients for worth.")] = 10,
    permutations: Annotated[
        int, typer.Option(min=2, help="Orders of clients for Shapley values, where there are many.")
    ] = 40,
    clients: Annotated[bool, typer.Option(help="Whether a round is played again, to explain its clients.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Explain a run: support influence, movement by layer, saliency, a map of clients, their flags and worth."""
    import json

    from rich.console import Console

    from simulations.explain import Effort
    from simulations.explain import explain as examine

    found = examine(directory, Effort(of, episodes, permutations, clients))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    console = Console()
    for table in tables(found):
        console.print(table)
    for part, why in found["left_out"].items():
        console.print(f"{part}: not explained: {why}", highlight=False)
    console.print(f"pictures: {directory / 'report.html'}; figures: {directory / 'explain.json'}", highlight=False)


def tables(found: Mapping[str, Any]) -> "list[Table]":
    """What a console can show of an explanation: layers, accused clients, and what clients are worth."""
    from rich.table import Table

    made = []
    if "layers" in found:
        table = Table("layer", "moved", "CKA", "CKA by chance", title="What adaptation changes")
        for layer in found["layers"]["layers"]:
            moved = "from zero" if layer["relative"] is None else f"{100 * layer['relative']:.2g} %"
            table.add_row(layer["layer"], moved, *(_figure(layer[key]) for key in ("cka", "chance")))
        made.append(table)
    if "flags" in found:
        flags = found["flags"]
        title = f"Scores of {flags['aggregator']} by layer, round {flags['round']}"
        table = Table("client", "status", "score", "ordinary", "most of it", title=title)
        for client in flags["clients"]:
            most = sorted(client["shares"].items(), key=lambda item: -item[1])[:3]
            words = ", ".join(f"{layer} {100 * share:.0f} %" for layer, share in most)
            table.add_row(
                str(client["client"]), _marks(client), f"{client['score']:.3g}", f"{client['ordinary']:.3g}", words
            )
        made.append(table)
    if "worth" in found:
        worth = found["worth"]
        table = Table(
            "client", "status", "Shapley", "± 1.96 se", "leave-one-out", title="Worth, in nats of validation loss"
        )
        for client in sorted(worth["clients"], key=lambda client: -client["shapley"]):
            figures = (client["shapley"], 1.96 * (client["error"] or 0.0), client["leave_one_out"])
            table.add_row(str(client["client"]), _marks(client), *(f"{value:.2g}" for value in figures))
        made.append(table)
    return made


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _marks(client: Mapping[str, Any]) -> str:
    return ", ".join(word for word in ("flagged", "malicious") if client[word])
