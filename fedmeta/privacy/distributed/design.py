"""From an experiment to the noise that its clients share."""

from fedmeta.experiment import Experiment
from fedmeta.privacy.distributed.assumptions import colluders_assumed, group_bounds, survivors_needed
from fedmeta.privacy.distributed.shared_noise import SharedNoise


def noised_size(experiment: Experiment, size: int) -> int:
    """Coordinates that noise is added to, for updates of `size`: one more where clipping adapts, for the count."""
    return size + (experiment.privacy.clipping == "adaptive")


def shared_noise(experiment: Experiment, size: int, noise_multiplier: float) -> SharedNoise:
    """What the clients of an experiment add to vectors of `size` coordinates.

    Raises:
        ConfigurationError: an experiment whose groups cannot carry the noise.
    """
    _, largest = group_bounds(experiment)
    privacy = experiment.privacy
    return SharedNoise(
        privacy.mechanism,
        noise_multiplier,
        largest,
        survivors_needed(experiment),
        colluders_assumed(experiment),
        size,
        experiment.secagg.bits,
    )
