"""Judging a model on this client's frozen episodes."""

from collections.abc import Mapping
from typing import Any

from flwr.app import Context, Message, RecordDict

from clients.personal import complete_params
from clients.request import read_request
from clients.success import measure_success
from fedmeta.deployment import deploy
from fedmeta.evaluation import evaluate as judge
from fedmeta.evaluation import judge_baseline
from fedmeta.experiment import Component
from fedmeta.learners.base import MetaLearner
from fedmeta.wire import CONFIG, METRICS, WEIGHT, config_record, metric_record
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
    if config["baseline"]:
        for name, baseline in workload.baselines.items():
            for figure, found in judge_baseline(baseline, workload.learner.task, episodes).items():
                metrics[f"baseline.{name}.{figure}"] = found
    if config.get("success-steps"):
        after = [int(step) for step in config["success-steps"]]
        metrics |= measure_success(message, request, context, episodes, after, learner)
    content = RecordDict({METRICS: metric_record(metrics), CONFIG: config_record(_protocol(workload, steps))})
    return Message(content, reply_to=message)


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
