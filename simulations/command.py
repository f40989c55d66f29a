"""The `fedmeta` command. Each subcommand imports what it needs when it runs, so that `--help` stays quick."""

import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from fedmeta.errors import FedmetaError
from simulations import privacy_command as privacy
from simulations import robustness_command as robustness
from simulations.deploy import command as deployment
from simulations.explain_command import explain
from simulations.options import ExperimentFile, Json, Settings, given, overrides_of
from simulations.termination import ended_by_sigterm
from simulations.tune import command as tuning

app = typer.Typer(
    name="fedmeta",
    help="Federated meta-learning that can be attacked, defended and audited.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.command()
def simulate(
    file: ExperimentFile = None,
    settings: Settings = None,
    engine: Annotated[str, typer.Option(help="ray (client actors) or inline (this process).")] = "ray",
    out: Annotated[Path | None, typer.Option(help="Run directory; by default a fresh one under runs/.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this directory.")] = None,
    cpus_per_client: Annotated[float | None, typer.Option(help="CPU share of one client actor.")] = None,
    gpus_per_client: Annotated[
        float | None, typer.Option(help="GPU share of one client actor; 0.25 puts four on one.")
    ] = None,
    ray_address: Annotated[str | None, typer.Option(help="A running Ray cluster, such as 10.0.0.1:6379.")] = None,
    report: Annotated[
        bool, typer.Option(help="Draw pictures and report.html in the end, or leave that to `report`.")
    ] = True,
) -> None:
    """Simulate federated meta-learning: train, judge on unseen clients, write a run directory with a report."""
    from simulations.console import run_with_progress

    overrides = overrides_of(settings)
    flags = {"cpus_per_client": cpus_per_client, "gpus_per_client": gpus_per_client, "ray_address": ray_address}
    overrides |= {f"engine.{key}": value for key, value in flags.items() if value is not None}
    source: Path | dict[str, Any] | None = file if file is not None or resume is not None else {}
    raise typer.Exit(
        run_with_progress(source, engine=engine, overrides=overrides, out=out, resume=resume, report=report)
    )


@app.command("list")
def list_registered(
    kind: Annotated[str | None, typer.Argument(help="learners, models, datasets, ...; without one, all kinds.")] = None,
) -> None:
    """List registered names, one line each, with their source."""
    from simulations.console import print_registries

    print_registries(kind)


@app.command()
def config(
    file: ExperimentFile = None,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the resolved experiment as JSON only.")] = False,
) -> None:
    """Print the whole resolved configuration with descriptions, bounds and units."""
    from simulations.describe import describe
    from simulations.fit import load_with_warning

    experiment = load_with_warning(*given(file, settings))
    typer.echo(experiment.model_dump_json(indent=2) if as_json else describe(experiment))


@app.command()
def doctor(
    file: ExperimentFile = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Print what Ray, torch and the machine offer, and the plan for an experiment, with the reasons."""
    import json

    from simulations.console import print_diagnosis
    from simulations.doctor import diagnose
    from simulations.fit import load_fitting

    found = diagnose(load_fitting(*given(file, settings)))
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
    else:
        print_diagnosis(found)


@app.command()
def export(
    file: ExperimentFile = None,
    settings: Settings = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="A TOML file for `flwr run . --run-config`.")] = Path(
        "run.toml"
    ),
) -> None:
    """Write the resolved experiment as a run configuration for `flwr run`."""
    from fedmeta.workload import workload_from_json
    from simulations.fit import load_fitting

    experiment = load_fitting(*given(file, settings))
    try:
        output.write_text(f"experiment = '''{experiment.to_json()}'''\n", encoding="utf-8")
    except OSError as error:
        raise FedmetaError(
            f"cannot write '{output}': {error.strerror or error}. Choose another file with -o"
        ) from error
    if experiment.data.name == "nodes":  # a deployment, which has the nodes that it has
        typer.echo(
            f"wrote {output}; now, on the SuperLink that Flower knows as NAME: "
            f"flwr run . NAME --run-config {output} --stream"
        )
        return
    nodes = len(workload_from_json(experiment.to_json()).federation.clients)
    federation = f'--federation-config "num-supernodes={nodes} client-resources-num-cpus=1"'
    typer.echo(f"wrote {output}; now: flwr run . --run-config {output} {federation} --stream")
    typer.echo(
        f"or on real nodes, of a SuperLink that Flower knows as NAME: flwr run . NAME --run-config {output} --stream"
    )


SuperLinkName = Annotated[
    str | None, typer.Option(help="Name of the SuperLink in Flower's configuration; by default Flower's default.")
]


@deployment.deploy.command("run")
def deploy_run(
    out: Annotated[
        Path, typer.Option(help="Run directory, absolute, on the SuperLink's machine; a run in it goes on.")
    ],
    file: ExperimentFile = None,
    settings: Settings = None,
    superlink: SuperLinkName = None,
    app_folder: Annotated[Path | None, typer.Option("--app", help="Checkout of fedmeta; by default this one.")] = None,
    resubmissions: Annotated[int, typer.Option(min=0, help="Most times that a lost run is submitted again.")] = 10,
) -> None:
    """Submit an experiment to a SuperLink, watch it, and let it go on where its server process was lost."""
    from simulations.deploy.run import run_deployed

    raise typer.Exit(run_deployed(*given(file, settings), superlink, out, app_folder, resubmissions))


@app.command()
def status(
    places: Annotated[
        list[Path] | None,
        typer.Argument(help="Run directories, or folders of such; by default runs/ and where deployed runs go."),
    ] = None,
    superlink: SuperLinkName = None,
    ask: Annotated[bool, typer.Option("--flower", help="Ask Flower's default SuperLink, too.")] = False,
    as_json: Json = False,
) -> None:
    """Show runs with their rounds and last metrics, and a SuperLink's runs and nodes."""
    from simulations.deploy.run import show_status

    raise typer.Exit(show_status(places or [], superlink, ask or superlink is not None, as_json))


@app.command()
def report(directory: Annotated[Path, typer.Argument(help="A run directory, finished or not.")]) -> None:
    """Draw the report of a run again."""
    from fedmeta.workload import Workload
    from server.report import draw_episode, write_report
    from server.rundir import RunDir
    from strategies.configurations import settled_workload

    rundir = RunDir.open(directory, exclusive=False)
    workload = Workload(rundir.experiment)
    picture = None
    if rundir.has("last"):
        checkpoint = rundir.load("last")
        checkpoint.check(workload.experiment.hash, workload.spec.hash)
        settled = settled_workload(workload, checkpoint.optimiser)
        picture = draw_episode(settled, workload.spec.flatten(checkpoint.params))
    typer.echo(str(write_report(rundir, picture)))


app.command()(explain)
app.command()(tuning.tune)


@app.command(rich_help_panel="Attacks and defences")
def bench(
    file: Annotated[Path, typer.Argument(help="A grid file: a base experiment, attacks, defences, seeds.")],
    out: Annotated[
        Path | None, typer.Option(help="Directory of the grid; by default runs/NAME. It goes on there.")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print the cells and an estimate, and run nothing else.")
    ] = False,
    workers: Annotated[int | None, typer.Option(help="Cells at once; by default as many as the cores hold.")] = None,
    engine: Annotated[str, typer.Option(help="ray (cells on all cores) or inline (this process).")] = "ray",
) -> None:
    """Attacks x defences x seeds: matrices with paired statistics, files and a page. Killed, it goes on."""
    from simulations.bench.console import plan_bench, run_bench

    raise typer.Exit(plan_bench(file, out, workers) if plan else run_bench(file, out, engine, workers))


PRIVACY, ROBUSTNESS, DEPLOYMENT = "Privacy", "Attacks and defences", "Deployment"
app.command(rich_help_panel=ROBUSTNESS)(robustness.detect)
app.command(rich_help_panel=ROBUSTNESS)(robustness.attack)
app.command("detect-queries", rich_help_panel=ROBUSTNESS)(robustness.detect_queries)
app.command(rich_help_panel=ROBUSTNESS)(robustness.certify)
app.command(rich_help_panel=PRIVACY)(privacy.privacy)
app.command("privacy-sweep", rich_help_panel=PRIVACY)(privacy.privacy_sweep)
app.command(rich_help_panel=PRIVACY)(privacy.audit)
app.command("leak-check", rich_help_panel=PRIVACY)(privacy.leak_check)
app.command(rich_help_panel=DEPLOYMENT)(deployment.certs)
app.command("export-data", rich_help_panel=DEPLOYMENT)(deployment.export_data)
app.add_typer(deployment.deploy, rich_help_panel=DEPLOYMENT)


def main() -> None:
    """Entry point: errors that a user can mend are one message and exit code 2; others keep their traceback."""
    # A user needs the words of a warning, not the line of ours that said it.
    warnings.showwarning = lambda message, *_, **__: print(f"fedmeta: warning: {message}", file=sys.stderr)
    try:
        with ended_by_sigterm():
            app()
    except FedmetaError as error:
        print("\n".join([f"fedmeta: {error}", *getattr(error, "__notes__", ())]), file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
