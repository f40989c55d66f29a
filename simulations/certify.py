"""`fedmeta certify`: within which L2 radius no change alters the answers of a run's adapted model."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedmeta.certification import ABSTAINED, Certificates, Smoothing, certify
from fedmeta.errors import ConfigurationError
from fedmeta.estimates import estimate, within
from fedmeta.evasion.target import target_of
from fedmeta.params import Params
from fedmeta.seeding import SERVER, torch_generator
from fedmeta.tasks import Episode
from fedmeta.workload import Workload
from server.report import draw_episode, write_report
from server.report.certified import write_certificates
from simulations.detect import clean_episodes, open_model
from simulations.effort import MOST_STEPS, check_counts

POINTS = 24
"""Radii of the curve, beside 0."""


@dataclass(frozen=True)
class Effort:
    """How much is certified.

    Attributes:
        episodes: frozen test episodes.
        queries: of each, in their order, which holds every class once before any twice.
        select, count, alpha: of `fedmeta.certification.Smoothing`.

    Raises:
        ConfigurationError: a count below 1 or beyond what could end.
    """

    episodes: int = 40
    queries: int = 5
    select: int = 50
    count: int = 1000
    alpha: float = 0.001

    def __post_init__(self) -> None:
        check_counts(episodes=self.episodes, queries=self.queries)
        check_counts(most=MOST_STEPS, select=self.select, samples=self.count)


def certify_run(directory: str | Path, sigmas: Sequence[float], effort: Effort = Effort()) -> dict[str, Any]:
    """Certify queries of a run's last model, keep the curves in its directory, and draw its report again.

    Args:
        directory: of a run with a checkpoint.
        sigmas: standard deviations of the noise, > 0, in units of pixels.
        effort: how much.

    Returns:
        As stored: `round`, `radii`, `curves` (one for each sigma), `protocol`.

    Raises:
        ConfigurationError: a task without classes, a network whose answers depend on the batch, a sigma that is none.
        CheckpointError: no run or no checkpoint.
    """
    try:
        every = [Smoothing(sigma, effort.select, effort.count, effort.alpha) for sigma in sorted(set(sigmas))]
    except ValueError as error:
        raise ConfigurationError(f"{error}. Give standard deviations such as --sigma .25,.5") from error
    if not every:
        raise ConfigurationError("--sigma names no noise: give standard deviations such as .25,.5")
    rundir, workload, params = open_model(directory)
    _check(workload)
    episodes = clean_episodes(workload, effort.episodes)
    reach = max(smoothing.largest for smoothing in every)
    radii = [reach * point / POINTS for point in range(POINTS + 1)]
    shape = workload.evaluation_shape
    found = {
        "round": rundir.load("last").round,
        "radii": radii,
        "curves": [_curve(workload, params, episodes, smoothing, radii, effort.queries) for smoothing in every],
        "protocol": {
            **asdict(effort),
            "ways": shape.ways,
            "shots": shape.shots,
            "episode_seed": workload.experiment.evaluation.seed,
            "trained_on_noise": False,
        },
    }
    write_certificates(rundir, found)
    write_report(rundir, draw_episode(workload, workload.spec.flatten(params)))
    return found


def _check(workload: Workload) -> None:
    if workload.spec_of_data.task.kind != "classification":
        raise ConfigurationError(
            f"certificates are of classes, and data '{workload.experiment.data.name}' are for "
            f"{workload.spec_of_data.task.kind}: certify a run on classes"
        )
    if getattr(workload.learner.model, "transductive", False):
        raise ConfigurationError(
            "this run's network normalises by batch statistics: an answer then depends on the noisy copies beside it, "
            "and the theorem does not hold. Train with model.normalisation = 'group' or 'none'"
        )


def _curve(
    workload: Workload,
    params: Params,
    episodes: Sequence[Episode],
    smoothing: Smoothing,
    radii: Sequence[float],
    queries: int,
) -> dict[str, Any]:
    """Certified accuracy over the radii, its intervals over episodes."""
    begun = time.perf_counter()
    rows, abstained, plain, asked = [], 0, 0, 0
    for index, episode in enumerate(episodes):
        target = target_of(workload.learner, params, episode, "query")
        x, y = target.x[:queries], target.y[:queries]
        generator = torch_generator(workload.experiment.evaluation.seed, index, SERVER, f"smoothing/{smoothing.sigma}")
        own: Certificates = certify(target.logits_of, x, smoothing, generator)
        rows.append(own.accuracy_at(y, radii))
        abstained += int((own.labels == ABSTAINED).sum())
        plain += int((target.logits_of(x).argmax(dim=-1) == y).sum())
        asked += len(y)
    return {
        "sigma": smoothing.sigma,
        "largest": smoothing.largest,
        "accuracy": [
            within(estimate([row[place].item() for row in rows], "episodes"), 0.0, 1.0).to_json()
            for place in range(len(radii))
        ],
        "abstained": abstained / asked,
        "unsmoothed": plain / asked,
        "queries": asked,
        "seconds": (time.perf_counter() - begun) / asked,
    }
