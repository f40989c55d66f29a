"""`fedmeta certs`, `fedmeta export-data` and `fedmeta deploy`: what a deployment needs before its first run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulations.options import given, overrides_of

if TYPE_CHECKING:
    from fedmeta.experiment import Experiment

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
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Of the SuperLink, in the commands that are printed.")
    ] = 8000,
    federation: Annotated[str, typer.Option(help="What the operator's `flwr run` calls the SuperLink.")] = "mine",
) -> None:
    """Make an authority, the SuperLink's certificate and SuperNode keys, and print the commands that use them.

    Give --host once and every --node; later only --node for one more SuperNode, or --host after moving an expired
    server.pem and server.key away.
    """
    import re

    from fedmeta.errors import ConfigurationError
    from simulations.deploy.certificates import make_certificates
    from simulations.deploy.instructions import instructions

    if not re.fullmatch(r"[A-Za-z0-9_-]+", federation):
        raise ConfigurationError(
            f"--federation = '{federation}' must be letters, digits, '_' and '-': it is a key of Flower's config.toml"
        )
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
    from fedmeta.workload import workload_from_json
    from simulations.deploy.export import export_clients, node_config
    from simulations.fit import load_fitting

    experiment = load_fitting(*given(file, settings))
    for info, path in export_clients(workload_from_json(experiment.to_json()), output, client or []).items():
        typer.echo(f"--node-config '{node_config(info, path)}'")


@deploy.command()
def check(
    superlink: Annotated[str, typer.Option(help="host:port of the SuperLink.")],
    file: Annotated[
        Path | None,
        typer.Argument(help="What the data are to serve: an experiment file, or what `fedmeta export` wrote."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="K=V", help="Override a key of the experiment.")
    ] = None,
    root_certificates: Annotated[Path | None, typer.Option(help="The authority's certificate, ca.crt.")] = None,
    auth_supernode_private_key: Annotated[Path | None, typer.Option(help="The SuperNode's key.")] = None,
    node_config: Annotated[str | None, typer.Option(help="As for flower-supernode.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="The SuperLink has no TLS.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Check on a client's machine what its SuperNode will meet. Exit code 1 where something is to be mended.

    Options are those of flower-supernode. Looked at: address, TLS, SuperLink, clock, key, versions, data.
    """
    import json

    from simulations.deploy.check import Options
    from simulations.deploy.check import check as run_check
    from simulations.deploy.findings import all_well

    options = Options(
        superlink=superlink,
        authority=root_certificates,
        key=auth_supernode_private_key,
        node_config=node_config,
        experiment=None if file is None else _read_experiment(file, settings or []),
        insecure=insecure,
    )
    findings = []
    for finding in run_check(options):
        findings.append(finding)
        if not as_json:
            typer.echo(str(finding))
    if as_json:
        typer.echo(json.dumps([finding.to_json() for finding in findings], indent=2))
    if not all_well(findings):
        raise typer.Exit(1)


def _read_experiment(file: Path, settings: list[str]) -> "Experiment":
    """An experiment file, or a run configuration that holds a whole experiment."""
    import tomllib

    from server.configuration import from_run_config, load

    overrides = overrides_of(settings)
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raw = {}  # whatever is wrong with the file, `load` says it
    if isinstance(raw.get("experiment"), str):
        return load(from_run_config(raw, file.parent), overrides)
    return load(file, overrides)
