"""What this machine or cluster offers, and what an experiment would make of it."""

import os
import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import torch

from fedmeta.device import device_of
from fedmeta.execution import resolved_with_reason
from fedmeta.experiment import Experiment
from fedmeta.memory import available_bytes
from fedmeta.workload import Workload, workload_from_json
from server.words import counted
from simulations.engine import ray_session
from simulations.engine.plan import Machine, make_plan

PACKAGES = ("torch", "ray", "flwr", "opacus", "numpy")


@dataclass(frozen=True)
class Diagnosis:
    """What `fedmeta doctor` prints.

    Attributes:
        versions: of Python and of the packages that matter.
        machines: what Ray counts on each node.
        device: where clients would compute.
        gpus: name and free memory of each GPU that torch sees here [bytes].
        cores, memory: of this machine; memory is what is free now [bytes].
        plan: actors x threads x GPU share x chunk, and the precision of training, in words.
        why: reasons for it, and what may be wrong.
    """

    versions: dict[str, str]
    machines: list[Machine]
    device: str
    gpus: list[tuple[str, int]]
    cores: int
    memory: int
    plan: str
    why: list[str]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def diagnose(experiment: Experiment) -> Diagnosis:
    """Ask Ray, torch and the machine, and plan an experiment; starts Ray, or joins `engine.ray_address`.

    Raises:
        ConfigurationError: shares that fit no machine, or no cluster at the address.
        DataError: the data set is missing or damaged.
    """
    engine, workload = experiment.engine, workload_from_json(experiment.to_json())
    device = device_of(experiment)
    ray_session.join(engine.ray_address)
    try:
        machines = ray_session.machines()
    finally:
        ray_session.leave()
    plan = make_plan(
        machines,
        cpus_per_client=engine.cpus_per_client,
        gpus_per_client=engine.gpus_per_client,
        clients=len(workload.federation.clients),
        actors=engine.actors,
    )
    way, reason = resolved_with_reason(experiment.client.execution, workload.learner.model, device)
    words = (
        f"{plan.describe()}; {counted(engine.threads, 'torch thread')} each; {way}, {_chunk(workload, way)}; "
        f"{_precision(experiment, device)}"
    )
    return Diagnosis(
        versions={"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}},
        machines=machines,
        device=str(device),
        gpus=_gpus(),
        cores=os.cpu_count() or 1,
        memory=available_bytes(torch.device("cpu")) * (os.cpu_count() or 1),
        plan=words,
        why=[*_reasons(experiment, machines, plan.actors), reason],
    )


def _chunk(workload: Workload, way: str) -> str:
    """How many tasks would be trained at once."""
    if way == "loop":
        return "one task at a time"
    size = workload.tasks_at_once
    return "all tasks at once" if size is None else f"up to {size:,} tasks at once"


def _precision(experiment: Experiment, device: torch.device) -> str:
    """Of training, and what becomes of it on the device."""
    precision = experiment.client.precision
    told = f"{precision}, which on a CPU is float32" if (precision, device.type) == ("tf32", "cpu") else precision
    return f"training in {told}"


def _gpus() -> list[tuple[str, int]]:
    if not torch.cuda.is_available():
        return []
    return [
        (torch.cuda.get_device_name(index), int(torch.cuda.mem_get_info(index)[0]))
        for index in range(torch.cuda.device_count())
    ]


def _reasons(experiment: Experiment, machines: list[Machine], actors: int) -> list[str]:
    engine, clients = experiment.engine, experiment.server.sampling.parameters.get("clients")
    cpus = sum(machine.cpus for machine in machines)
    reasons = [f"Ray counts {cpus:g} CPUs; {engine.cpus_per_client:g} for each actor"]
    if engine.actors is not None:
        reasons.append(f"engine.actors = {engine.actors} is asked")
    if actors * engine.threads > cpus:
        reasons.append(f"{actors} actors x {engine.threads} threads exceed {cpus:g} cores: lower engine.threads")
    if clients is not None and clients < actors:
        reasons.append(f"only {clients} clients are sampled a round: {actors - clients} actors will have nothing to do")
    if engine.gpus_per_client == 0 and torch.cuda.is_available():
        reasons.append(
            "torch sees a GPU, and engine.gpus_per_client = 0 leaves it idle: try 1, or 0.25 for four actors"
        )
    if engine.gpus_per_client > 0 and not torch.cuda.is_available():
        reasons.append("engine.gpus_per_client > 0, but torch sees no GPU here: install torch with CUDA")
    return reasons
