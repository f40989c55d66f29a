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
