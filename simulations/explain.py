"""`fedmeta explain`: what the model of a run and its defences did, in figures, pictures and JSON."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmeta.data.base import ClientInfo
from fedmeta.errors import CheckpointError, ConfigurationError, DataError
from fedmeta.params import Params
from fedmeta.workload import Workload
from server.checkpoint import Checkpoint
from server.examined import open_to_examine
from server.files import finite
from server.findings import write_finding
from server.report import draw_episode, write_report
from server.rundir import RunDir
from simulations.effort import MOST_STEPS, check_counts
from simulations.explain_clients import NothingToSee, flags_section, map_section, worth_section
from simulations.explain_model import influence_section, layers_section, saliency_section
from simulations.stage import Played, Stage, open_stage
from strategies.configurations import settled_workload

STARTS = ("last", "best", "start")
PARTS = ("influence", "layers", "saliency", "map", "flags", "worth")


@dataclass(frozen=True)
class Effort:
    """How much is looked at.

    Attributes:
        of: the model that is explained, and from which one round is replayed: the `last` checkpoint, the `best`, or the
            `start` of the run.
        episodes: of test clients for movement by layer, and of validation clients for worth.
        permutations: orders of clients for Shapley values, where there are too many clients to enumerate.
        clients: whether a round is replayed at all.
    """

    of: str = "last"
    episodes: int = 10
    permutations: int = 40
    clients: bool = True

    def __post_init__(self) -> None:
        check_counts(episodes=self.episodes)
        check_counts(2, MOST_STEPS, permutations=self.permutations)


def explain(directory: str | Path, effort: Effort = Effort()) -> dict[str, Any]:
    """Explain a run, keep what was found as `explain.json` in its directory, and draw its report again.

    A run records nothing for it: a round is played once more, in this process, with the run's own clients, draws and
    state. After `start`, and after `best` where later rounds followed, that is the next round, as the run had it to the
    last bit. After the last model of a finished run there is no next one: the last round's clients train once more on
    the tasks that they had then, from the model that came of it.

    Args:
        directory: of a run.
        effort: how much is looked at.

    Returns:
        As stored: the parts of `PARTS` that there are, and under `left_out` why others are not.

    Raises:
        ConfigurationError: another `of`.
        DataError, CheckpointError: test clients' data that are not here, a checkpoint that does not fit.
    """
    if effort.of not in STARTS:
        raise ConfigurationError(f"--of {effort.of}: explain the 'last' model of a run, its 'best', or its 'start'")
    rundir = open_to_examine(directory)
    workload = Workload(rundir.experiment)
    checkpoint = _checkpoint(rundir, workload, effort.of)
    params = _params(workload, checkpoint)
    judged = settled_workload(workload, {} if checkpoint is None else checkpoint.optimiser)
    client = _test_client(workload)
    episodes = workload.frozen_episodes(client.id, effort.episodes)
    left_out: dict[str, str] = {}
    found: dict[str, Any] = {
        "of": effort.of,
        "round": 0 if checkpoint is None else checkpoint.round,
        "learner": workload.experiment.learner.name,
    }
    for part, section in (
        ("influence", lambda: influence_section(judged, params, episodes[0], client.name)),
        ("layers", lambda: layers_section(judged, params, episodes)),
        ("saliency", lambda: saliency_section(judged, params, episodes[0], client.name)),
    ):
        _attempt(found, left_out, part, section)
    if effort.clients:
        _explain_round(workload, checkpoint, effort, found, left_out)
    found = finite({**found, "left_out": left_out})
    write_finding(rundir, "explain", found)
    last = _checkpoint(rundir, workload, "last" if rundir.has("last") else "start")
    settled = settled_workload(workload, {} if last is None else last.optimiser)
    write_report(rundir, draw_episode(settled, workload.spec.flatten(_params(workload, last))))
    return found


def _attempt(found: dict[str, Any], left_out: dict[str, str], part: str, section: Callable[[], dict[str, Any]]) -> None:
    """One part, or why this run cannot have it."""
    try:
        found[part] = section()
    except (NothingToSee, ValueError) as error:
        left_out[part] = str(error)


def _explain_round(
    workload: Workload, checkpoint: Checkpoint | None, effort: Effort, found: dict[str, Any], left_out: dict[str, str]
) -> None:
    reason = _why_no_round(workload, checkpoint)
    if reason is not None:
        left_out |= dict.fromkeys(("map", "flags", "worth"), reason)
        return
    with open_stage(workload.experiment) as stage:
        played = _replay(stage, checkpoint)
        for part, section in (
            ("map", lambda: map_section(stage, played)),
            ("flags", lambda: flags_section(stage, played)),
            ("worth", lambda: worth_section(stage, played, effort.episodes, effort.permutations)),
        ):
            _attempt(found, left_out, part, section)


def _replay(stage: Stage, checkpoint: Checkpoint | None) -> Played:
    if checkpoint is None:
        return stage.play(1, stage.workload.initial_vector())
    # No round beyond the last: there a schedule may have come to zero, and the attackers be gone.
    round = min(checkpoint.round + 1, stage.workload.experiment.server.rounds)
    return stage.play(round, stage.restore(checkpoint))


def _why_no_round(workload: Workload, checkpoint: Checkpoint | None) -> str | None:
    experiment = workload.experiment
    if experiment.data.name == "nodes":
        return "the clients' data are on their nodes: only a simulation can play a round again"
    if experiment.secagg.enabled:
        return "under secure aggregation nobody sees one client's update, and so nor does this"
    if checkpoint is not None and workload.spec.select("personal"):
        return "the clients' personal parameters ended with the run: use --of start"
    return None


def _checkpoint(rundir: RunDir, workload: Workload, of: str) -> Checkpoint | None:
    if of == "start":
        return None
    if not rundir.has(of):
        raise CheckpointError(f"the run in '{rundir.path}' has no checkpoint '{of}': use --of last or --of start")
    checkpoint = rundir.load(of)
    checkpoint.check(workload.experiment.hash, workload.spec.hash)
    return checkpoint


def _params(workload: Workload, checkpoint: Checkpoint | None) -> Params:
    """A model as a client that never trained begins with it."""
    spec = workload.spec
    vector = workload.initial_vector() if checkpoint is None else spec.flatten(checkpoint.params)
    return {
        **workload.initial,
        **spec.unflatten(vector),
        **spec.unflatten(workload.first_personal(vector), "personal"),
    }


def _test_client(workload: Workload) -> ClientInfo:
    for info in workload.federation.clients:
        if info.role == "test":
            return info
    raise DataError("there is no test client whose episodes could be explained: set partition.test_clients")
