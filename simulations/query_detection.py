"""`fedmeta detect-queries`: are attacked queries told from clean ones, also where the attacker knows how?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedmeta.data.episodes import frozen_episodes
from fedmeta.errors import ConfigurationError
from fedmeta.evasion.ball import Ball, check_inputs
from fedmeta.query_detection import DETECTORS, make_detector
from fedmeta.query_detection.judge import Effort, judge
from fedmeta.tasks import Episode
from fedmeta.workload import Workload
from server.files import finite
from server.findings import write_finding
from server.report import draw_episode, write_report
from simulations.detect import clean_episodes, open_model
from simulations.effort import MOST_STEPS, check_counts

CLIENTS, EACH = 10, 4
"""Training clients whose clean episodes a detector is fitted on, and episodes of each."""


def detect_queries(
    directory: str | Path,
    ball: Ball,
    detectors: Sequence[str] = (),
    episodes: int = 40,
    effort: Effort = Effort(),
) -> dict[str, Any]:
    """Judge detectors on a run's last model against PGD and against an attacker who knows them; kept in its directory.

    Its report is drawn again.

    Args:
        directory: of a run with a checkpoint.
        ball: of the attacks.
        detectors: registered names; none: all of them.
        episodes: frozen test episodes whose queries are attacked.
        effort: of the attackers.

    Returns:
        As stored: `round`, `detectors` (name -> verdict), `protocol`.

    Raises:
        ConfigurationError: an unknown detector, one that the learner does not allow, or a task without classes in
            [0, 1].
        CheckpointError: no run or no checkpoint.
    """
    check_counts(episodes=episodes)
    check_counts(most=MOST_STEPS, steps=effort.steps)
    rundir, workload, params = open_model(directory)
    if workload.spec_of_data.task.kind != "classification":
        raise ConfigurationError(
            f"an attack is judged by wrong classes, and data '{workload.experiment.data.name}' are for "
            f"{workload.spec_of_data.task.kind}: examine a run on classes"
        )
    made = {name: make_detector(name) for name in (detectors or DETECTORS.entries())}
    clean, training = clean_episodes(workload, episodes), training_episodes(workload)
    for episode in clean:
        check_inputs(episode.query.x, ball)
    fitted = {name: detector.fitted(workload.learner, params, training) for name, detector in made.items()}
    verdicts = judge(workload.learner, params, clean, fitted, ball, effort)
    shape = workload.evaluation_shape
    found: dict[str, Any] = finite(
        {
            "round": rundir.load("last").round,
            "detectors": {name: verdict.to_json() for name, verdict in verdicts.items()},
            "protocol": {
                "norm": ball.norm,
                "eps": ball.eps,
                "steps": effort.steps,
                "weights": list(effort.weights),
                "episodes": len(clean),
                "ways": shape.ways,
                "shots": shape.shots,
                "queries": shape.queries,
            },
        }
    )
    write_finding(rundir, "query-detection", found)
    write_report(rundir, draw_episode(workload, workload.spec.flatten(params)))
    return found


def training_episodes(workload: Workload) -> list[Episode]:
    """Clean episodes of classes that the model was trained on."""
    clients = [info for info in workload.federation.clients if info.role == "train"][:CLIENTS]
    seed = workload.experiment.evaluation.seed
    return [
        episode
        for info in clients
        for episode in frozen_episodes(
            workload.source(info.id), workload.evaluation_shape, EACH, seed, f"train/{info.name}"
        )
    ]
