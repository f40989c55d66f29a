"""Judging a model on this client's frozen episodes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from flwr.app import Context, Message, RecordDict

from clients.personal import complete_params
from clients.request import read_request
from clients.success import measure_success
from fedmeta.component import Component
from fedmeta.deployment import deploy
from fedmeta.errors import FedmetaError
from fedmeta.evaluation import evaluate as judge
from fedmeta.evaluation import judge_baseline
from fedmeta.learners.base import MetaLearner
from fedmeta.tasks import Episode
from fedmeta.wire import CONFIG, METRICS, TROUBLE, WEIGHT, config_record, metric_record
from fedmeta.workload import Workload


def evaluate(message: Message, context: Context) -> Message:
    """Reply with the loss and score of every frozen episode after every number of adaptation steps.

    A strategy that does not ask in our form (`episodes`) is Flower's own: it gets the means after adaptation, and the
    number of episodes as their weight.
    """
    request = read_request(message, context)
    workload, config = request.workload, request.config
    settings, client = workload.experiment.evaluation, workload.experiment.client
    episodes = workload.frozen_episodes(request.client, int(config.get("episodes", settings.validation_episodes)))
    steps = tuple(int(step) for step in config.get("steps", ())) or default_steps(workload)
    params, learner = complete_params(request, context), deployed_learner(workload, config)
    scores = judge(learner, params, episodes, steps, client.execution, client.chunk_size)
    if "episodes" not in config:
        name = workload.learner.task.score_name
        means = {"loss": float(scores.loss[-1].mean()), name: float(scores.score[-1].mean()), WEIGHT: len(episodes)}
        return Message(RecordDict({METRICS: metric_record(means)}), reply_to=message)
    metrics: dict[str, list[float]] = {}
    for i, step in enumerate(steps):
        metrics[f"loss.{step}"] = scores.loss[i].tolist()
        metrics[f"score.{step}"] = scores.score[i].tolist()
        if len(scores.brier):
            metrics[f"brier.{step}"] = scores.brier[i].tolist()
            metrics[f"bins.{step}"] = scores.bins[i].flatten().tolist()
        for measure, values in scores.measures.items():
            metrics[f"measure.{step}.{measure}"] = values[i].tolist()
    troubles: dict[str, str] = {}
    if config["baseline"]:
        found, troubles = judge_baselines(workload, episodes)
        metrics |= found
    if config.get("success-steps"):
        after = [int(step) for step in config["success-steps"]]
        metrics |= measure_success(message, request, context, episodes, after, learner)
    facts = {**_protocol(workload, steps), **{f"{TROUBLE}{name}": why for name, why in troubles.items()}}
    content = RecordDict({METRICS: metric_record(metrics), CONFIG: config_record(facts)})
    return Message(content, reply_to=message)


def judge_baselines(workload: Workload, episodes: Sequence[Episode]) -> tuple[dict[str, list[float]], dict[str, str]]:
    """The figures of every baseline, and of those that cannot be computed here why: their scores are NaN.

    A baseline is beside the matter: without it the learner's own scores still count.
    """
    found: dict[str, list[float]] = {}
    troubles: dict[str, str] = {}
    for name, baseline in workload.baselines.items():
        try:
            figures = judge_baseline(baseline, workload.learner.task, episodes)
        except Exception as error:  # whatever a data set's own baseline raises
            words = " ".join(str(error).split())
            troubles[name] = words if isinstance(error, FedmetaError) else f"{type(error).__name__}: {words}"
            figures = {workload.learner.task.score_name: [math.nan] * len(episodes)}
        found |= {f"baseline.{name}.{figure}": values for figure, values in figures.items()}
    return found, troubles


def deployed_learner(workload: Workload, config: Mapping[str, Any]) -> MetaLearner:
    """The learner, under the defence at deployment that the server asks for."""
    asked = config.get("deployment")
    if asked is None:
        return workload.learner
    component = Component.model_validate_json(str(asked))
    return deploy(component.name, workload.learner, **component.parameters)


def default_steps(workload: Workload) -> tuple[int, ...]:
    """Before adaptation, and after the learner's own number of steps."""
    after = workload.learner.default_steps
    return (0, after) if after > 0 else (0,)


def _protocol(workload: Workload, steps: tuple[int, ...]) -> dict[str, object]:
    """What must stand beside the numbers."""
    shape, learner, experiment = workload.evaluation_shape, workload.learner, workload.experiment
    facts: dict[str, object] = {"shots": shape.shots, "queries": shape.queries}
    if learner.task.kind == "classification":
        facts["ways"] = shape.ways
    if experiment.task.kind == "own":
        facts = {"support-fraction": experiment.task.support_fraction}
    return {
        **facts,
        "score-name": learner.task.score_name,
        **({"measures": list(learner.task.measures)} if learner.task.measures else {}),
        "steps": list(steps),
        "test-steps": learner.default_steps,
        "seed": experiment.evaluation.seed,
        "transductive": bool(getattr(learner.model, "transductive", False)),
    }
