"""The encoder of a round, which clients and server build alike from the experiment; noise alone is a client's own."""

import functools

from fedmeta.experiment import Experiment
from fedmeta.privacy.clipping import AdaptiveClip
from fedmeta.privacy.distributed.adaptive import AdaptiveEncoder, augmented_norm
from fedmeta.privacy.distributed.assumptions import group_bounds
from fedmeta.privacy.distributed.design import noised_size, shared_noise
from fedmeta.privacy.distributed.draws import Words, system_words, words_of
from fedmeta.privacy.distributed.encoder import DistributedEncoder
from fedmeta.privacy.distributed.hadamard import Rotation
from fedmeta.privacy.plan import local_plan
from fedmeta.seeding import SERVER, numpy_generator
from fedmeta.workload import workload_from_json


def client_words(experiment: Experiment, round: int, client: int, simulated: bool) -> Words:
    """What one client's noise is made of: the seed in a simulation, else the operating system."""
    if not simulated:
        return system_words
    return words_of(numpy_generator(experiment.seed, round, client, "noise/share"))


def round_encoder(
    experiment: Experiment, round: int, norm: float, words: Words | None = None
) -> DistributedEncoder | AdaptiveEncoder:
    """For updates of an experiment with `privacy.placement = "distributed"`.

    Args:
        experiment: validated.
        round: counted from 1; it decides the signs of the rotation, which are public.
        norm: C of this round: `privacy.clip_norm`, or where that adapts the one that the server announced.
        words: `client_words(...)`; None on the server, which only decodes.
    """
    privacy, spec = experiment.privacy, workload_from_json(experiment.to_json()).spec
    layers = [entry.size for entry in spec.select("shared")] if privacy.per_layer else []
    z, adaptive = local_plan(experiment).noise_multiplier, adaptive_clip(experiment)
    size = noised_size(experiment, spec.size())
    noise, rotation = shared_noise(experiment, size, z), _rotation(experiment.seed, round, size)
    if adaptive is None:
        return DistributedEncoder(noise, norm, rotation, words, layers)
    return AdaptiveEncoder(
        DistributedEncoder(noise, augmented_norm(adaptive, norm), rotation, words), adaptive, norm, layers
    )


@functools.lru_cache(maxsize=1)
def _rotation(seed: int, round: int, size: int) -> Rotation:
    return Rotation.of(size, numpy_generator(seed, round, SERVER, "rotation"))


def adaptive_clip(experiment: Experiment) -> AdaptiveClip | None:
    """How C moves, by the count of each group; None where it stays.

    `AdaptiveClip.moved(norm, sum of the groups' counts, clients in them)` is the next one.
    """
    privacy = experiment.privacy
    if privacy.clipping != "adaptive":
        return None
    smallest, _ = group_bounds(experiment)
    z = local_plan(experiment).noise_multiplier
    return AdaptiveClip.of(privacy.quantile, privacy.clip_rate, smallest, z, privacy.count_noise)
