"""From an update to the vector that a client masks: laid out and encoded as the round asks, with its share of noise."""

from collections.abc import Mapping

from flwr.app import ConfigRecord, Context
from torch import Tensor

from clients.node import simulated
from clients.request import Request
from clients.secure_aggregation import Encoded
from fedmeta.experiment import Experiment
from fedmeta.privacy import secagg_names as names
from fedmeta.privacy.distributed.assumptions import survivors_needed
from fedmeta.privacy.distributed.round_encoder import client_words, round_encoder
from fedmeta.privacy.protected_vector import Layout
from fedmeta.privacy.secagg import FixedPoint
from fedmeta.seeding import numpy_generator


def encode(
    request: Request,
    context: Context,
    settings: ConfigRecord,
    bits: int,
    update: Tensor,
    weight: float,
    metrics: Mapping[str, float],
) -> Encoded:
    """The encoding of an update.

    The draws of the rounding protect nobody and come from the seed, so that runs can be repeated; those of noise come
    from the operating system, but in a simulation.

    Args:
        request: what the client was asked.
        context: of the client.
        settings: the record of secure aggregation in the train message.
        bits: of a word, 32 or 64.
        update: `[D]`, a delta.
        weight: of the update.
        metrics: beside it.

    Raises:
        FedmetaError: values that cannot be encoded.
        LookupError: settings that are missing.
    """
    experiment = request.workload.experiment
    values = update.detach().cpu().numpy()
    rounding = numpy_generator(experiment.seed, request.round, request.client, "rounding")
    weights = float(experiment.client.steps * experiment.client.tasks_per_step)
    if experiment.privacy.unit != "none" and experiment.privacy.placement == "distributed":
        words = client_words(experiment, request.round, request.client, simulated(context))
        encoder = round_encoder(experiment, request.round, _clip_norm(experiment, settings), words)
        return Encoded(encoder.encode(values, rounding), (), weights, survivors_needed(experiment))
    layout = Layout(
        size=len(values),
        bound=float(settings[names.BOUND]),  # type: ignore[arg-type]
        metric_bound=float(settings[names.METRIC_BOUND]),  # type: ignore[arg-type]
        weight_bound=float(settings.get(names.WEIGHT_BOUND, weights)),  # type: ignore[arg-type]
        weighted=bool(settings[names.WEIGHTED]),
    )
    fixed = FixedPoint(bits, layout.bound, int(settings[names.COUNT]))  # type: ignore[arg-type]
    return Encoded(fixed.encode(layout.pack(values, weight, metrics), rounding), sorted(metrics), layout.weight_bound)


def _clip_norm(experiment: Experiment, settings: ConfigRecord) -> float:
    """C of the round: the experiment's, or where it adapts the one that the server announces."""
    if experiment.privacy.clipping == "fixed":
        return experiment.privacy.clip_norm
    return float(settings[names.CLIP_NORM])  # type: ignore[arg-type]
