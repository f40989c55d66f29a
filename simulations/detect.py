"""`fedmeta detect`: is a run's model backdoored? Judged on clean episodes of clients that never trained."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clients.success import scene_at_deployment
from fedmeta.attacks import ATTACKS
from fedmeta.attacks.local import Backdoor
from fedmeta.attacks.poisoning import choose
from fedmeta.detection.inversion import Search
from fedmeta.detection.model import Inversion, invert
from fedmeta.detection.ranking import ranking
from fedmeta.detection.spectral import removed, spectral_scores
from fedmeta.detection.suspect import Suspect, Where, put
from fedmeta.errors import ConfigurationError
from fedmeta.learners.functional import embed
from fedmeta.params import Params
from fedmeta.seeding import SERVER, numpy_generator, torch_generator
from fedmeta.tasks import Episode
from fedmeta.workload import Workload
from server.examined import open_to_examine
from server.files import finite
from server.report import draw_episode, write_report
from server.rundir import RunDir
from simulations.effort import MOST_STEPS, check_counts
from strategies.configurations import settled_workload


@dataclass(frozen=True)
class Effort:
    """How much is looked at.

    Attributes:
        episodes: on which triggers are sought; half as many others judge them.
        steps: of the search for each slot's trigger.
        success: share of the inputs that a trigger has to mislead.
        supports: episodes whose supports are embedded.
        poisoned: share of these supports that carries the trigger of the experiment's attack.

    Raises:
        ConfigurationError: a count below 1 or beyond what could end, or a share outside [0, 1].
    """

    episodes: int = 40
    steps: int = 300
    success: float = 0.9
    supports: int = 100
    poisoned: float = 0.1

    def __post_init__(self) -> None:
        check_counts(episodes=self.episodes, supports=self.supports)
        check_counts(most=MOST_STEPS, steps=self.steps)
        for name in ("success", "poisoned"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigurationError(f"{name} = {getattr(self, name)} must be a share from 0 to 1")


def detect(directory: str | Path, effort: Effort = Effort(), stamped: str | None = None) -> dict[str, Any]:
    """Examine the last model of a run, keep what was found in its directory, and draw its report again.

    Args:
        directory: of a run with a checkpoint.
        effort: how much is looked at.
        stamped: what a trigger is sought on; None: on queries where the learner has a head, on supports too where it
            has none, since a trigger on queries alone cannot name a slot to it.

    Returns:
        As stored: `inversion`, and `spectral`, which is None where the experiment's attack has no trigger to try.

    Raises:
        ConfigurationError: data that are no images of classes, or a run of another model.
    """
    rundir, workload, params = open_model(directory)
    _check(workload)
    found: dict[str, Any] = finite(
        {
            "round": rundir.load("last").round,
            "inversion": _invert(workload, params, effort, stamped).to_json(),
            "spectral": _spectral(workload, params, effort),
        }
    )
    rundir.write_detection(found)
    write_report(rundir, draw_episode(workload, workload.spec.flatten(params)))
    return found


def open_model(directory: str | Path) -> tuple[RunDir, Workload, Params]:
    """A run, what it is of, and its last model with all entries, on the CPU.

    Raises:
        CheckpointError: no run or no checkpoint there, or one of another model.
    """
    rundir = open_to_examine(directory)
    workload = Workload(rundir.experiment)
    checkpoint = rundir.load("last")
    checkpoint.check(workload.experiment.hash, workload.spec.hash)
    settled = settled_workload(workload, checkpoint.optimiser)
    return rundir, settled, {**workload.initial, **checkpoint.params}


def _check(workload: Workload) -> None:
    data, experiment = workload.spec_of_data, workload.experiment
    if data.task.kind != "classification" or len(data.input_shape) != 3:
        raise ConfigurationError(
            f"triggers are sought on images of classes, and data '{experiment.data.name}' are {data.task.kind} on "
            f"inputs {list(data.input_shape)}"
        )


def _invert(workload: Workload, params: Params, effort: Effort, stamped: str | None) -> Inversion:
    learner = workload.learner
    known: dict[str | None, Where] = {"query": "query", "both": "both"}
    known[None] = "both" if learner.head == "embedding" else "query"
    if stamped not in known:
        raise ConfigurationError(f"--stamped {stamped}: a trigger is sought on 'query' or on 'both', supports too")
    where = known[stamped]
    episodes = clean_episodes(workload, effort.episodes + max(1, effort.episodes // 2))
    sought, judged = (
        Suspect(learner, params, part, learner.default_steps, where)
        for part in (episodes[: effort.episodes], episodes[effort.episodes :])
    )
    generator = torch_generator(workload.experiment.seed, 0, SERVER, "trigger inversion")
    return invert(sought, judged, Search(steps=effort.steps, success=effort.success), generator)


def _spectral(workload: Workload, params: Params, effort: Effort) -> dict[str, Any] | None:
    """How well spectral scores find supports that carry the attack's trigger; None where there is none to try."""
    attack = workload.experiment.attack.method
    method = ATTACKS.make(attack.name, where="attack.method", **attack.parameters)
    if not isinstance(method, Backdoor):
        return None
    trigger = method.whole_trigger(scene_at_deployment(workload, params, workload.experiment.server.rounds))
    episodes = clean_episodes(workload, effort.supports)
    sizes = [len(episode.support.y) for episode in episodes]
    rng = numpy_generator(workload.experiment.evaluation.seed, 0, SERVER, "poisoned supports")
    bad = torch.zeros(sum(sizes), dtype=torch.bool)
    bad[choose(torch.ones_like(bad), effort.poisoned, rng)] = True
    with torch.no_grad():
        rows = [
            embed(workload.learner, params, put(trigger, episode.support.x, own))
            for episode, own in zip(episodes, bad.split(sizes), strict=True)
        ]
    embeddings = torch.cat(rows)
    classes = torch.cat([episode.classes[episode.support.y] for episode in episodes])
    return {
        "examples": len(bad),
        "poisoned": int(bad.sum()),
        "all": _judged(spectral_scores(embeddings), bad, effort.poisoned),
        "by_class": _judged(spectral_scores(embeddings, classes), bad, effort.poisoned),
    }


def _judged(scores: Tensor, bad: Tensor, share: float) -> dict[str, Any]:
    """How well scores rank the poisoned, and which share of them the paper's removal takes away."""
    found = ranking(scores.tolist(), bad.tolist())
    taken = (removed(scores, share) & bad).sum() / bad.sum().clamp_min(1)
    return {**({} if found is None else asdict(found)), "removed": float(taken)}


def clean_episodes(workload: Workload, count: int) -> list[Episode]:
    """Frozen episodes across all test clients, or of the first test client where nobody pools them."""
    clients = workload.federation.clients
    chosen = [info.id for role in ("pooled", "test") for info in clients if info.role == role]
    if not chosen:
        raise ConfigurationError("there is no test client whose episodes could tell: set partition.test_clients")
    return workload.frozen_episodes(chosen[0], count)
