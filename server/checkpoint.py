"""A checkpoint: the model and what its run needs to go on, as one safetensors file whose header is JSON."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedmeta.errors import CheckpointError
from fedmeta.params import Params


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run needs to go on, and the model for anybody else.

    Attributes:
        round: finished rounds.
        experiment_hash: of the experiment it belongs to.
        spec_hash: of the model's `ParamSpec`.
        params: the shared entries by name, in the order of the spec.
        optimiser: the server optimiser's state.
        facts: JSON values, such as the best validation so far.
    """

    round: int
    experiment_hash: str
    spec_hash: str
    params: Params
    optimiser: dict[str, Tensor]
    facts: dict[str, Any]

    def check(self, experiment_hash: str, spec_hash: str) -> None:
        """Refuse a checkpoint of another experiment or model.

        Raises:
            CheckpointError: a hash differs.
        """
        if (self.experiment_hash, self.spec_hash) != (experiment_hash, spec_hash):
            raise CheckpointError(
                f"the checkpoint of round {self.round} belongs to another experiment or model "
                f"({self.experiment_hash[:12]}, {self.spec_hash[:12]}) than this one ({experiment_hash[:12]}, "
                f"{spec_hash[:12]}): resume its own run directory, or start a new run"
            )

    def to_bytes(self) -> bytes:
        """The content of a file that `read_checkpoint` reads: tensors `model/<name>` and `optimiser/<slot>`."""
        from safetensors.torch import save

        tensors = {
            **{f"model/{key}": value for key, value in self.params.items()},
            **{f"optimiser/{key}": value for key, value in self.optimiser.items()},
        }
        # Views of one flat vector share storage, which the format refuses.
        tensors = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
        header = {
            "round": self.round,
            "experiment_hash": self.experiment_hash,
            "spec_hash": self.spec_hash,
            "order": list(self.params),
            "facts": self.facts,
        }
        header["digest"] = _digest(header, tensors)
        return save(tensors, {"fedmeta": json.dumps(header)})


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint file.

    Raises:
        CheckpointError: missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["fedmeta"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a mapping)
        digest = header.pop("digest", None)  # checkpoints of early versions have none
        if digest is not None and digest != _digest(header, tensors):
            raise ValueError("its bytes are not those that were written")
        params = {key: tensors[f"model/{key}"] for key in header["order"]}
        optimiser = {
            key.removeprefix("optimiser/"): value for key, value in tensors.items() if key.startswith("optimiser/")
        }
        return Checkpoint(
            header["round"], header["experiment_hash"], header["spec_hash"], params, optimiser, header["facts"]
        )
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint '{path}': the run had not finished a round") from error
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"the checkpoint '{path}' is damaged ({error}): start a new run") from error


def _digest(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over all that a checkpoint holds: the format itself would not notice a flipped bit."""
    found = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
