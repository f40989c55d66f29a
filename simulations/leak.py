"""`fedmeta leak-check`: what one client's update, sent as it is, shows of the pictures behind it."""

from pathlib import Path

import torch

from fedmeta.audit.leak import Leak, leak_check
from fedmeta.errors import ConfigurationError
from fedmeta.seeding import numpy_generator
from fedmeta.tasks import Episode
from fedmeta.workload import Workload
from server.examined import open_to_examine
from server.report import write_report

SHOWN = 5


def leak(directory: str | Path, client: int | None = None) -> Leak:
    """Attack the update that a client of a run sends in its first round, without privacy, and redraw the report.

    Args:
        directory: a run directory.
        client: whose update; None for the first training client.

    Raises:
        ConfigurationError: no such training client, inputs that are no pictures, or no linear first layer.
    """
    rundir = open_to_examine(directory)
    workload = Workload(rundir.experiment)
    known = [info.id for info in workload.federation.clients if info.role == "train"]
    chosen = known[0] if client is None else client
    if chosen not in known:
        raise ConfigurationError(f"client {chosen} is no training client: choose one of {known[0]} to {known[-1]}")
    drawn: list[Episode] = []

    def sample(_: int, step: int, count: int) -> list[Episode]:
        rng = numpy_generator(workload.experiment.seed, 1, chosen, f"episodes/{step}")
        drawn.extend(workload.source(chosen).sample(workload.training_shape, rng) for _ in range(count))
        return drawn[-count:]

    spec = workload.spec
    update = workload.local_update(workload.initial_vector(), sample, 1)
    inputs = torch.cat([part.x for episode in drawn for part in (episode.support, episode.query)])
    found = leak_check(update, spec, workload.initial, inputs)
    if inputs.dim() == 4:
        rundir.write_leak(_shown(found, tuple(inputs.shape[1:]), chosen))
        write_report(rundir, None)
    return found


def _shown(found: Leak, shape: tuple[int, ...], client: int) -> dict[str, object]:
    """The inputs that leak most, as JSON."""
    most = found.cosines[0].argsort(descending=True)[:SHOWN]
    # Sign and scale of a ratio mean nothing, so each is brought to the range of a picture before it is rounded.
    scaled = found.found / found.found.abs().amax(dim=-1, keepdim=True)
    return {
        "client": client,
        "shape": list(shape),
        "levels": list(found.levels),
        "inputs": found.inputs[most].float().round(decimals=3).tolist(),
        "found": scaled[:, most].float().round(decimals=3).tolist(),
        "cosines": found.cosines[:, most].tolist(),
    }
