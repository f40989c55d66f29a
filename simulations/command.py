"""The `fedmeta` command. Each subcommand imports what it needs when it runs, so that `--help` stays quick."""

import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from fedmeta.errors import FedmetaError
from simulations import robustness_command as robustness
from simulations.deploy import command as deployment
from simulations.explain_command import explain
from simulations.tune import command as tuning

app = typer.Typer(
    name="fedmeta",
    help="Federated meta-learning that can be attacked, defended and audited.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

app.command()(deployment.certs)
app.command("export-data")(deployment.export_data)
app.command()(explain)
app.add_typer(deployment.deploy)
app.command()(robustness.certify)
app.command("detect-queries")(robustness.detect_queries)
app.command()(tuning.tune)

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a key of the experiment, such as learner.name=maml; repeatable."
    ),
]
ExperimentFile = Annotated[
    Path | None, typer.Argument(help="An experiment file; without one, the defaults.", show_default=False)
]


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
) -> None:
    """Simulate federated meta-learning: train, judge on unseen clients, write a run directory with a report."""
    from fedmeta.experiment_file import parse_override
    from simulations.console import run_with_progress

    overrides = dict(parse_override(text) for text in settings or [])
    flags = {"cpus_per_client": cpus_per_client, "gpus_per_client": gpus_per_client, "ray_address": ray_address}
    overrides |= {f"engine.{key}": value for key, value in flags.items() if value is not None}
    source: Path | dict[str, Any] | None = file if file is not None or resume is not None else {}
    raise typer.Exit(run_with_progress(source, engine=engine, overrides=overrides, out=out, resume=resume))


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
    from fedmeta.experiment_file import parse_override
    from server.configuration import load
    from simulations.describe import describe

    experiment = load(file if file is not None else {}, dict(parse_override(text) for text in settings or []))
    typer.echo(experiment.model_dump_json(indent=2) if as_json else describe(experiment))


@app.command()
def doctor(
    file: ExperimentFile = None,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Print what Ray, torch and the machine offer, and the plan for an experiment, with the reasons."""
    import json

    from fedmeta.experiment_file import parse_override
    from server.configuration import load
    from simulations.console import print_diagnosis
    from simulations.doctor import diagnose

    found = diagnose(load(file if file is not None else {}, dict(parse_override(text) for text in settings or [])))
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
    from fedmeta.experiment_file import parse_override
    from fedmeta.workload import Workload
    from server.configuration import load

    experiment = load(file if file is not None else {}, dict(parse_override(text) for text in settings or []))
    try:
        output.write_text(f"experiment = '''{experiment.to_json()}'''\n", encoding="utf-8")
    except OSError as error:
        raise FedmetaError(
            f"cannot write '{output}': {error.strerror or error}. Choose another file with -o"
        ) from error
    if experiment.data.name == "nodes":  # a deployment, which has the nodes that it has
        typer.echo(f"wrote {output}; now: flwr run . FEDERATION --run-config {output} --stream")
        return
    nodes = len(Workload(experiment).federation.clients)
    federation = f'--federation-config "num-supernodes={nodes} client-resources-num-cpus=1"'
    typer.echo(f"wrote {output}; now: flwr run . --run-config {output} {federation} --stream")


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
    from fedmeta.experiment_file import parse_override
    from simulations.deploy.run import run_deployed

    overrides = dict(parse_override(text) for text in settings or [])
    raise typer.Exit(run_deployed(file, overrides, superlink, out, app_folder, resubmissions))


@app.command()
def status(
    places: Annotated[
        list[Path] | None,
        typer.Argument(help="Run directories, or folders of such; by default runs/ and where deployed runs go."),
    ] = None,
    superlink: SuperLinkName = None,
    ask: Annotated[bool, typer.Option("--flower", help="Ask Flower's default SuperLink, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
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

    rundir = RunDir.open(directory, exclusive=False)
    workload = Workload(rundir.experiment)
    picture = None
    if rundir.has("last"):
        checkpoint = rundir.load("last")
        checkpoint.check(workload.experiment.hash, workload.spec.hash)
        picture = draw_episode(workload, workload.spec.flatten(checkpoint.params))
    typer.echo(str(write_report(rundir, picture)))


@app.command()
def audit(
    target: Annotated[Path, typer.Argument(help="A run directory, or an experiment file.")],
    settings: Settings = None,
    canaries: Annotated[
        int, typer.Option(help="Made-up clients; 20 at least, at most the parameters of the model.")
    ] = 500,
    engine: Annotated[str, typer.Option(help="ray (client actors) or inline (this process).")] = "ray",
    out: Annotated[Path | None, typer.Option(help="Directory of the audited run; by default a fresh one.")] = None,
    membership: Annotated[
        bool,
        typer.Option("--membership", help="Shadow federations with and without each client, in place of canaries."),
    ] = False,
    shadows: Annotated[int, typer.Option(help="With --membership: how many, even; each costs a training.")] = 16,
    tasks: Annotated[int, typer.Option(min=1, help="With --membership: tasks of a client that are looked at.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Play a private experiment with canaries, or shadows of any run: what is found out, beside the claim."""
    import json

    if membership:
        from simulations.membership_command import audit_members

        raise typer.Exit(audit_members(target, settings, shadows, tasks, engine, out, as_json))

    from fedmeta.experiment_file import parse_override
    from server.report.confidential import audit_in_words
    from simulations.audit import audit as run_audit

    overrides = dict(parse_override(text) for text in settings or [])
    found = run_audit(target, canaries=canaries, engine=engine, overrides=overrides, out=out)
    typer.echo(json.dumps(found, indent=2) if as_json else audit_in_words(found))
    if found["one_run"]["epsilon"] > (found["claim"] if found["claim"] is not None else float("inf")):
        typer.echo("the lower bound is above the claim: the mechanism does not do what it says", err=True)
        raise typer.Exit(1)


@app.command("leak-check")
def leak_check(
    directory: Annotated[Path, typer.Argument(help="A run directory, whose report then shows the pictures.")],
    client: Annotated[int | None, typer.Option(help="Whose update; by default the first training client's.")] = None,
) -> None:
    """Read private inputs off one client's update at several noise levels: originals and reconstructions."""
    from rich.console import Console
    from rich.table import Table

    from simulations.leak import leak

    found = leak(directory, client)
    table = Table("noise, in norms of the update", "cosine to the input, mean", "largest")
    for level, cosines in zip(found.levels, found.cosines, strict=True):
        table.add_row(f"{level:g}", f"{float(cosines.mean()):.3f}", f"{float(cosines.max()):.3f}")
    Console().print(table)


@app.command()
def detect(
    directory: Annotated[Path, typer.Argument(help="A run directory, whose report then shows the triggers.")],
    episodes: Annotated[int, typer.Option(min=1, help="On which triggers are sought; half as many judge them.")] = 40,
    steps: Annotated[int, typer.Option(min=1, help="Of the search for each slot's trigger.")] = 300,
    success: Annotated[float, typer.Option(min=0, max=1, help="Share of the queries that it has to mislead.")] = 0.9,
    stamped: Annotated[
        str | None, typer.Option(help="query or both (supports too); by default both where there is no head.")
    ] = None,
    poisoned: Annotated[
        float, typer.Option(min=0, max=1, help="Share of supports with the attack's trigger, for spectral signatures.")
    ] = 0.1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Look for a backdoor in a run's model: trigger inversion slot by slot, spectral signatures of supports."""
    import json

    from simulations.console import print_examination
    from simulations.detect import Effort
    from simulations.detect import detect as examine

    found = examine(directory, Effort(episodes, steps, success, poisoned=poisoned), stamped)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        print_examination(found)


@app.command()
def attack(
    directory: Annotated[Path, typer.Argument(help="A run directory, whose report then shows attacked inputs.")],
    norm: Annotated[str, typer.Option(help="Of a change: linf or l2.")] = "linf",
    eps: Annotated[str, typer.Option(help="Radii with commas between, for inputs in [0, 1].")] = ".05,.1,.2",
    attacks: Annotated[
        str, typer.Option(help="With commas between; `fedmeta list evasions`. apgd: apgd_ce and apgd_dlr.")
    ] = "pgd,apgd,square",
    on: Annotated[str, typer.Option(help="What is moved: query, support (through the adaptation) or both.")] = "query",
    episodes: Annotated[int, typer.Option(help="Frozen test episodes, the same for every model.")] = 200,
    model: Annotated[str, typer.Option(help="last or best.")] = "last",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="ATTACK.KEY=VALUE", help="An attack's parameter, as pgd.steps=50; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the attacks' draws.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Evasion: accuracy of a run's adapted models on inputs that an attacker changed a little."""
    import json

    from simulations.attack import attack as try_attacks
    from simulations.attack import plan_of
    from simulations.console import evasion_progress, print_evasion

    plan = plan_of(norm, eps, attacks, on, settings or [], seed)
    found = try_attacks(directory, plan, episodes=episodes, model=model, said=evasion_progress(quiet=as_json))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        print_evasion(found)


@app.command()
def privacy(
    noise_multiplier: Annotated[float | None, typer.Option(help="Standard deviation of the noise over C.")] = None,
    target_epsilon: Annotated[float | None, typer.Option(help="Find the noise multiplier for this epsilon.")] = None,
    sampling_rate: Annotated[
        float | None, typer.Option(help="Probability of taking part in a round; without one, no amplification.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Releases.")] = 1,
    delta: Annotated[float, typer.Option(help="Below one over the number of units.")] = 1e-5,
    population: Annotated[
        int | None, typer.Option(help="Units there are; for --drawn, --cap and a check of delta.")
    ] = None,
    drawn: Annotated[int | None, typer.Option(help="Units a round without replacement, in place of a rate.")] = None,
    cap: Annotated[int | None, typer.Option(help="Most units of a Poisson draw.")] = None,
    task_rate: Annotated[float | None, typer.Option(help="A second stage: tasks of a client, by coins.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Epsilon of a plan, or the noise for a wanted epsilon, by every valid accountant side by side."""
    import json

    from rich.console import Console

    from fedmeta.privacy.accounting import check_delta
    from simulations.privacy_table import answers, as_json_object, scheme_of, table_of

    scheme = scheme_of(sampling_rate, population, drawn, cap, task_rate)
    check_delta(delta, population)
    found = answers(scheme, rounds, delta, noise_multiplier, target_epsilon)
    if as_json:
        typer.echo(json.dumps(as_json_object(scheme, rounds, delta, found), indent=2))
    else:
        Console().print(table_of(scheme, rounds, delta, found))


@app.command("privacy-sweep")
def privacy_sweep(
    file: Annotated[Path, typer.Argument(help="An experiment file with privacy.unit set, or set it with --set.")],
    out: Annotated[Path, typer.Option(help="Directory of the runs, sweep.json and the plot; a sweep in it goes on.")],
    settings: Settings = None,
    epsilon: Annotated[list[float] | None, typer.Option(help="A target; repeatable. By default 1, 3, 10, 30.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Repeatable. By default 0.")] = None,
    engine: Annotated[str, typer.Option(help="ray (client actors) or inline (this process).")] = "ray",
) -> None:
    """What privacy costs: the score of one experiment over epsilon, and without privacy."""
    from rich.console import Console
    from rich.table import Table

    from fedmeta.experiment_file import parse_override
    from server.report.headline import format_score
    from simulations.privacy_sweep import sweep

    overrides = dict(parse_override(text) for text in settings or [])
    points = sweep(
        file,
        epsilon if epsilon is not None else [1.0, 3.0, 10.0, 30.0],
        seed if seed is not None else [0],
        out,
        engine=engine,
        overrides=overrides,
    )
    table = Table("epsilon", "spent", "noise multiplier", "after adaptation", title=f"plot: {out}/sweep.svg")
    for point in points:
        figures = ["none" if v is None else f"{v:.3g}" for v in (point.epsilon, point.spent, point.noise_multiplier)]
        low, high = (format_score(point.score_name, value) for value in (min(point.scores), max(point.scores)))
        spread = f" ({low} to {high})" if len(point.scores) > 1 else ""
        table.add_row(*figures, format_score(point.score_name, point.mean) + spread)
    Console().print(table)


@app.command()
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


def main() -> None:
    """Entry point: errors that a user can mend are one message and exit code 2; others keep their traceback."""
    # A user needs the words of a warning, not the line of ours that said it.
    warnings.showwarning = lambda message, *_, **__: print(f"fedmeta: warning: {message}", file=sys.stderr)
    try:
        app()
    except FedmetaError as error:
        print(f"fedmeta: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
