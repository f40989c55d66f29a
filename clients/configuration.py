"""The configuration that a client trains with: the one it draws, or the one that the server has settled on."""

from flwr.app import Context

from clients.personal import personal_vector
from clients.request import Request
from fedmeta.evaluation import evaluate
from fedmeta.seeding import numpy_generator
from fedmeta.training import CohortResult
from fedmeta.wire import CONFIGURATION_LOSS, PROBABILITIES


def configuration_loss(request: Request, context: Context, result: CohortResult, row: int) -> dict[str, float]:
    """What the client's trained model loses on fresh tasks after adaptation; empty where no configuration was drawn.

    Args:
        request: what it was asked.
        context: of the client, with its personal parameters as they were before.
        result: what its cohort trained.
        row: its place there.
    """
    if PROBABILITIES not in request.config:
        return {}
    workload = request.workload
    spec, experiment, device = workload.spec, workload.experiment, request.vector.device
    personal = result.personal[row] if spec.size("personal") else personal_vector(workload, context, request.vector)
    params = {
        **{name: value.to(device) for name, value in workload.initial.items()},
        **spec.unflatten(request.vector + result.updates[row]),
        **(spec.unflatten(personal.to(device), "personal") if personal.numel() else {}),
    }
    rng = numpy_generator(experiment.seed, request.round, request.client, "configuration episodes")
    source = workload.source(request.client)
    count = (request.workload_of_run or workload).experiment.fedex.episodes
    episodes = [source.sample(workload.training_shape, rng) for _ in range(count)]
    steps = (workload.learner.default_steps,)
    client = experiment.client
    scores = evaluate(workload.learner, params, episodes, steps, client.execution, client.chunk_size)
    return {CONFIGURATION_LOSS: float(scores.loss[-1].double().mean())}
