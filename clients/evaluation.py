"""Judging a model on this client's frozen episodes."""

from flwr.app import Context, Message, RecordDict

from clients.personal import complete_params
from clients.request import read_request
from fedmeta.data.episodes import frozen_episodes
from fedmeta.evaluation import evaluate as judge
from fedmeta.evaluation import nearest_neighbour
from fedmeta.wire import CONFIG, METRICS, config_record, metric_record
from fedmeta.workload import Workload


def evaluate(message: Message, context: Context) -> Message:
    """Reply with the loss and score of every frozen episode after every number of adaptation steps."""
    request = read_request(message, context)
    workload, config = request.workload, request.config
    settings = workload.experiment.evaluation
    episodes = frozen_episodes(
        workload.source(request.client),
        workload.evaluation_shape,
        count=int(config["episodes"]),
        seed=settings.seed,
        client=request.client,
    )
    steps = tuple(int(step) for step in config["steps"]) or default_steps(workload)
    params = complete_params(request, context)
    client = workload.experiment.client
    scores = judge(workload.learner, params, episodes, steps, client.execution, client.chunk_size)
    metrics: dict[str, list[float]] = {}
    for i, step in enumerate(steps):
        metrics[f"loss.{step}"] = scores.loss[i].tolist()
        metrics[f"score.{step}"] = scores.score[i].tolist()
    if config["baseline"] and workload.learner.task.kind == "classification":
        metrics["baseline"] = [float(nearest_neighbour(episode)) for episode in episodes]
    content = RecordDict({METRICS: metric_record(metrics), CONFIG: config_record(_protocol(workload, steps))})
    return Message(content, reply_to=message)


def default_steps(workload: Workload) -> tuple[int, ...]:
    """Before adaptation, and after the learner's own number of steps."""
    after = workload.learner.default_steps
    return (0, after) if after > 0 else (0,)


def _protocol(workload: Workload, steps: tuple[int, ...]) -> dict[str, object]:
    shape, learner = workload.evaluation_shape, workload.learner
    return {
        "score-name": learner.task.score_name,
        "steps": list(steps),
        "ways": shape.ways,
        "shots": shape.shots,
        "queries": shape.queries,
        "seed": workload.experiment.evaluation.seed,
        "transductive": bool(getattr(learner.model, "transductive", False)),
    }
