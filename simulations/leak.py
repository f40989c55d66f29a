"""`fedmeta leak-check`: what one client's update, sent as it is, shows of the pictures behind it."""

from pathlib import Path

import torch

from clients.training import local_plan
from fedmeta.audit.leak import Leak, leak_check
from fedmeta.errors import ConfigurationError
from fedmeta.seeding import numpy_generator
from fedmeta.tasks import Episode
from fedmeta.training import train_cohort
from fedmeta.workload import Workload
from server.report import write_report
from server.rundir import RunDir

SHOWN = 5


def leak(directory: str | Path, client: int | None = None) -> Leak:
    """Attack the update that a client of a run sends in its first round, without privacy, and redraw the report.

    Args:
        directory: a run directory.
        client: whose update; None for the first training client.

    Raises:
        ConfigurationError: no such training client, inputs that are no pictures, or no linear first layer.
    """
    rundir = RunDir.open(directory, exclusive=False)
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

    start, spec = workload.initial_vector(), workload.spec
    result = train_cohort(
        workload.learner,
        spec,
        start,
        1,
        sample,
        local_plan(workload, 1),
        personal=spec.flatten(workload.initial, "personal").unsqueeze(0),
        frozen={entry.name: workload.initial[entry.name] for entry in spec.select("frozen")},
    )
    if result.failures:
        raise result.failures[0]
    inputs = torch.cat([part.x for episode in drawn for part in (episode.support, episode.query)])
    found = leak_check(result.updates[0], spec, workload.initial, inputs)
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
