"""The commands of an operator: `fedmeta deploy run` and `fedmeta status`."""

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmeta.code_hash import code_path
from fedmeta.errors import ConfigurationError, FedmetaError
from server.words import counted

if TYPE_CHECKING:
    from fedmeta.experiment import Experiment
    from simulations.deploy.flower import FlowerRun


def run_deployed(
    source: Path | dict[str, Any],
    overrides: dict[str, Any],
    superlink: str | None,
    out: Path,
    app: Path | None,
    resubmissions: int,
) -> int:
    """Submit an experiment to a SuperLink and see it through; returns the exit code, 0 where the run went well.

    Raises:
        FedmetaError: an experiment, folder or app that does not fit; a SuperLink that stays silent.
    """
    from rich.console import Console

    from simulations.deploy.connection import INSECURE
    from simulations.deploy.flower import Flower
    from simulations.deploy.supervisor import Patience, supervise
    from simulations.fit import load_fitting

    console = Console()
    experiment = load_fitting(source, overrides, data=False)
    place = app if app is not None else _app()
    with tempfile.TemporaryDirectory(prefix="fedmeta-") as folder:
        run_config = Path(folder) / "run.toml"
        run_config.write_text(run_configuration(experiment, out), encoding="utf-8")
        flower = Flower(superlink)

        def say(line: str) -> None:
            console.print(line, markup=False, highlight=False)

        if flower.insecure:
            console.print(INSECURE, style="bold red", markup=False)
        say(f"{experiment.name}: {counted(experiment.server.rounds, 'round')}, into {out} on the SuperLink's machine")
        try:
            ended = supervise(
                flower, lambda: flower.submit(place, run_config), Patience(resubmissions=resubmissions), say
            )
        except KeyboardInterrupt:
            say("no longer watched; the run itself goes on: `flwr list` shows it, `flwr stop RUN-ID` ends it")
            return 130
    return _say_end(ended, out, say)


def run_configuration(experiment: "Experiment", out: Path) -> str:
    """The TOML of a run configuration: the resolved experiment, and where its run directory lies.

    Raises:
        ConfigurationError: `out` is not absolute.
    """
    if not out.is_absolute():
        raise ConfigurationError(
            f"--out '{out}' must be an absolute path, on the machine of the SuperLink: it is where the run goes on "
            "from, should its server process be lost"
        )
    return f"experiment = '''{experiment.to_json()}'''\nout = {json.dumps(str(out))}\n"


def show_status(places: list[Path], superlink: str | None, ask: bool, as_json: bool) -> int:
    """Print what is known of runs and, where one is asked, of a SuperLink; 1 where that does not answer."""
    from rich.console import Console

    from simulations.deploy.flower import Flower
    from simulations.deploy.status import look
    from simulations.deploy.status_console import print_status

    found = look(places or _usual_places(), Flower(superlink) if ask else None)
    if as_json:
        print(json.dumps(found.to_json(), indent=2))
        return int(bool(found.problem))
    if not found.directories:
        looked = places or [Path("runs"), _default_runs()]
        print(f"no run directory in {', '.join(map(str, looked))}: name the folder that `--out` was in")
    print_status(Console(), found)
    return int(bool(found.problem))


def _say_end(ended: "FlowerRun", out: Path, say: Any) -> int:
    if ended.status == "finished:completed":
        say(f"the run went well: {out}; {ended.seconds:.0f} s in its last process, {ended.bytes:,} bytes")
        return 0
    say(f"the run did not go well ({ended.status}): {ended.details or 'no details'}")
    return 1


def _app() -> Path:
    """The folder with the pyproject.toml that makes a Flower app of this code."""
    root = Path(code_path())
    if not (root / "pyproject.toml").exists():
        raise FedmetaError(f"'{root}' is an installed package and no Flower app: name a checkout of fedmeta with --app")
    return root


def _default_runs() -> Path:
    chosen = os.environ.get("FEDMETA_RUNS")
    return Path(chosen) if chosen else Path.home() / ".cache" / "fedmeta" / "runs"


def _usual_places() -> list[Path]:
    return [place for place in (Path("runs"), _default_runs()) if place.is_dir()]
