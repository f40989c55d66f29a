"""Robust accuracy of a cell: its model under PGD, on the frozen episodes that all cells share; kept beside its run."""

import json
from pathlib import Path

from fedmeta.device import device_of
from fedmeta.evasion.plan import Plan, attacks_of
from fedmeta.evasion.robustness import robustness
from fedmeta.workload import Workload
from server.files import read_json, store
from server.rundir import RunDir
from simulations.bench.grid_file import EvasionEntry
from simulations.detect import clean_episodes
from strategies.configurations import settled_workload

FILE = "robust.json"


def measured(folder: Path, wanted: EvasionEntry) -> float | None:
    """The robust accuracy in a cell's directory; None where it was not measured, or otherwise than is wanted."""
    found = read_json(folder / FILE, "delete it, and start the bench again")
    if found is None or found["protocol"] != wanted.model_dump(mode="json"):
        return None
    accuracy: float = found["accuracy"]
    return accuracy


def measure(folder: Path, wanted: EvasionEntry) -> None:
    """Attack a finished cell's model, unless that was done.

    Raises:
        ConfigurationError: inputs outside [0, 1], or other faults of `fedmeta.evasion.plan.Plan.check`.
    """
    if measured(folder, wanted) is not None:
        return
    rundir = RunDir.open(folder, exclusive=False)
    workload = Workload(rundir.experiment)
    name = wanted.checkpoint if rundir.has(wanted.checkpoint) else "last"
    checkpoint = rundir.load(name)
    checkpoint.check(workload.experiment.hash, workload.spec.hash)
    workload = settled_workload(workload, checkpoint.optimiser)
    device = device_of(workload.experiment)
    params = {key: value.to(device) for key, value in {**workload.initial, **checkpoint.params}.items()}
    attacks = attacks_of(["pgd"], {"pgd": {"steps": wanted.steps, "restarts": wanted.restarts}})
    found = robustness(
        workload.learner,
        params,
        clean_episodes(workload, wanted.episodes),
        Plan(norm=wanted.norm, eps=(wanted.eps,), attacks=attacks),
        execution=workload.experiment.client.execution,
    )
    facts = {
        "protocol": wanted.model_dump(mode="json"),
        "round": checkpoint.round,
        "accuracy": found.worst[0].accuracy.mean,
        "clean": found.clean.mean,
    }
    store(folder / FILE, json.dumps(facts).encode())
