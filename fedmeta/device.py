"""Where a client computes."""

import torch

from fedmeta.errors import ConfigurationError
from fedmeta.experiment import Experiment


def device_of(experiment: Experiment) -> torch.device:
    """Where a client computes: `cuda` when asked for, or when a GPU share is given and there is one."""
    engine = experiment.engine
    wanted = engine.device if engine.device != "auto" else ("cuda" if engine.gpus_per_client > 0 else "cpu")
    if wanted == "cuda" and not torch.cuda.is_available():
        if engine.device == "cuda":
            raise ConfigurationError(
                "engine.device = 'cuda' but torch sees no GPU here: use cpu, or install torch with CUDA"
            )
        wanted = "cpu"
    return torch.device(wanted)
