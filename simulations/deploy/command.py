"""`fedmeta certs`, `fedmeta export-data` and `fedmeta deploy`: what a deployment needs before its first run."""

from pathlib import Path
from typing import Annotated

import typer

deploy = typer.Typer(name="deploy", help="Real clients on real machines.", no_args_is_help=True)


def certs(
    host: Annotated[
        list[str] | None,
        typer.Option(help="Address or DNS name of the SuperLink, for its certificate; repeatable. The first is used."),
    ] = None,
    node: Annotated[list[str] | None, typer.Option(help="Name of a SuperNode that gets a key; repeatable.")] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for keys and certificates; nothing in it is overwritten.")
    ] = Path("keys"),
    days: Annotated[int, typer.Option(help="Life of the server certificate.")] = 365,
    ca_days: Annotated[int, typer.Option(help="Life of the authority, where it is new.")] = 3650,
    port: Annotated[int, typer.Option(help="Of the SuperLink, in the commands that are printed.")] = 8000,
    federation: Annotated[str, typer.Option(help="What the operator's `flwr run` calls the SuperLink.")] = "mine",
) -> None:
    """Make an authority, the SuperLink's certificate and SuperNode keys, and print the commands that use them.

    Give --host once and every --node; later only --node for one more SuperNode, or --host after moving an expired
    server.pem and server.key away.
    """
    from simulations.deploy.certificates import make_certificates
    from simulations.deploy.instructions import instructions

    made = make_certificates(output, host or [], node or [], days=days, authority_days=ca_days)
    typer.echo(instructions(made, host or [], port, federation))


def export_data(
    file: Annotated[
        Path | None, typer.Argument(help="An experiment file; without one, the defaults.", show_default=False)
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder that gets a folder for each client.")] = Path(
        "node-data"
    ),
    client: Annotated[list[int] | None, typer.Option(help="Which client; repeatable. By default all.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the experiment.")
    ] = None,
) -> None:
    """Write clients of a simulation as folders of images, to try a deployment with data on the nodes."""
    from fedmeta.experiment_file import parse_override
    from fedmeta.workload import Workload
    from server.configuration import load
    from simulations.deploy.export import export_clients, node_config

    experiment = load(file if file is not None else {}, dict(parse_override(text) for text in settings or []))
    for info, path in export_clients(Workload(experiment), output, client or []).items():
        typer.echo(f"--node-config '{node_config(info, path)}'")
