"""Personalised learners on Per-FedAvg's pathological split (Fallah et al. 2020, section 5): few classes a client.

    python -m simulations.benchmarks.personalisation [--seeds 10] [--rounds 60] [--steps 4] [--output table.json]

Ten handwritten digits (scikit-learn's `digits`, 1,797 pictures of 8 x 8), two of them on each of 30 clients, whose data
are one task with classes that all share; 6 of the clients never train. They adapt on half of their data and are judged
on the other half. A row is the mean over seeds, which draw split, network and rounds anew, with its 95 % interval over
seeds; below the table the paired differences of the methods that the paper compares.
"""

import argparse
import json
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedmeta.data import DATASETS
from fedmeta.data.arrays import dataset_from_arrays
from fedmeta.data.class_dataset import ClassDataset
from fedmeta.estimates import estimate, within
from fedmeta.parameters import parameter
from fedmeta.tasks import TASKS, Task
from server.configuration import load
from server.rounds import run_experiment
from server.rundir import RunDir
from simulations import InlineGrid

CLASSES, ADAPTED = 10, (0, 1, 10)
PAIRS = (
    ("Per-FedAvg (HF)", "Per-FedAvg (FO)"),
    ("Per-FedAvg (HF)", "FedAvg + fine-tuning"),
    ("Per-FedAvg (FO)", "FedAvg + fine-tuning"),
)
RATE = 0.1
METHODS: dict[str, dict[str, Any]] = {
    # MAML without inner steps is joint training whose head is kept: federated averaging, fine-tuned in use.
    "FedAvg + fine-tuning": {"name": "fomaml", "inner_steps": 0, "inner_lr": RATE, "test_steps": 1},
    "Per-FedAvg (FO)": {"name": "perfedavg", "variant": "fo", "inner_lr": RATE},
    "Per-FedAvg (HF)": {"name": "perfedavg", "variant": "hf", "inner_lr": RATE},
    "pFedMe": {"name": "pfedme", "inner_lr": 0.05, "inner_steps": 5, "regularisation": 5.0, "test_steps": 1},
    "Ditto": {"name": "ditto", "inner_lr": RATE, "regularisation": 0.1, "test_steps": 1},
}


@dataclass(frozen=True)
class FewClasses:
    """Ten digits, dealt so that a client has few of them."""

    owners: int = parameter(30, ge=1, doc="clients", unit="clients")
    per_owner: int = parameter(2, ge=1, le=CLASSES, doc="classes of a client", unit="classes")
    seed: int = parameter(0, ge=0, doc="of the division")

    @property
    def task(self) -> Task:
        """Classification."""
        return TASKS["classification"]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """A grey image."""
        return (1, 8, 8)

    @property
    def classes(self) -> int:
        """Ten."""
        return CLASSES

    def load(self) -> ClassDataset:
        """Each class is cut into as many pieces as clients have it, each client given pieces of classes of its own."""
        from sklearn.datasets import load_digits

        pictures, labels = load_digits(return_X_y=True)
        pictures = (pictures / 16).astype(np.float32).reshape(-1, 1, 8, 8)
        rng = np.random.default_rng(self.seed)
        pieces = self.owners * self.per_owner // CLASSES
        rows, owners = [], []
        # Clients take classes in a ring from a random start, so that each class has equally many.
        ring = rng.permutation(np.tile(np.arange(CLASSES), pieces).reshape(pieces, CLASSES), axis=1).reshape(-1)
        wanted = ring.reshape(self.owners, self.per_owner)
        for c in range(CLASSES):
            own = rng.permutation(np.flatnonzero(labels == c))
            having = np.flatnonzero((wanted == c).any(axis=1))
            for owner, piece in zip(having, np.array_split(own, len(having)), strict=True):
                rows.append(piece)
                owners.append(np.full(len(piece), owner))
        chosen = np.concatenate(rows)
        return dataset_from_arrays(pictures[chosen], labels[chosen], np.concatenate(owners), test_share=0.0)


def experiment(method: dict[str, Any], seed: int, rounds: int, steps: int) -> dict[str, Any]:
    """One run as an experiment."""
    return {
        "name": "personalisation",
        "seed": seed,
        "data": {"name": "few_classes", "seed": seed},
        "partition": {"name": "column", "column": "client", "validation_clients": 0, "pooled": False},
        "task": {"kind": "own", "support_fraction": 0.5},
        "model": {"name": "mlp", "hidden": [80, 60], "normalisation": "none"},
        "learner": method,
        "client": {"steps": steps, "tasks_per_step": 1, "execution": "loop", "optimiser": {"name": "sgd", "lr": RATE}},
        "server": {"rounds": rounds, "sampling": {"name": "fixed", "clients": 8}},
        "evaluation": {"episodes": 5, "steps": list(ADAPTED)},
    }


def measure(method: dict[str, Any], seed: int, rounds: int, steps: int) -> dict[str, list[float]]:
    """Accuracy and NLL after each number of adaptation steps."""
    checked = load(experiment(method, seed, rounds, steps))
    with tempfile.TemporaryDirectory() as folder:
        grid = InlineGrid("clients.app:app", 30)
        result = run_experiment(grid, checked, RunDir.create(Path(folder) / "run", checked), simulated=True)
    judged = result.evaluation("test")
    assert judged is not None
    return {"accuracy": [s.mean for s in judged.score], "nll": [s.mean for s in judged.loss]}


def interval(values: list[float], low: float, high: float) -> str:
    """Mean and 95 % t interval over seeds, within the range that is possible."""
    found = within(estimate(values, "episodes"), low, high)
    return f"{found.mean:.1f} [{found.low:.1f}, {found.high:.1f}]" if found.known else f"{found.mean:.1f} [unknown]"


def main() -> None:
    """Print the table, a row a method, and what differs seed by seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--steps", type=int, default=4, help="local steps a round")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    DATASETS.register("few_classes", "simulations.benchmarks.personalisation:FewClasses", "few classes a client")
    warnings.simplefilter("ignore", UserWarning)
    table = {}
    print("| learner | " + " | ".join(f"accuracy %, {count} steps" for count in ADAPTED) + " |", flush=True)
    print("|---" * (1 + len(ADAPTED)) + "|")
    for name, method in METHODS.items():
        runs = [measure(method, seed, given.rounds, given.steps) for seed in range(given.seeds)]
        table[name] = runs
        cells = [interval([100 * run["accuracy"][k] for run in runs], 0, 100) for k in range(len(ADAPTED))]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    for better, worse in PAIRS:
        for k, steps in enumerate(ADAPTED):
            pairs = zip(table[better], table[worse], strict=True)
            gaps = [100 * (one["accuracy"][k] - other["accuracy"][k]) for one, other in pairs]
            print(f"{better} less {worse}, {steps} steps: {interval(gaps, -100, 100)} points")
    if given.output is not None:
        given.output.write_text(json.dumps(table, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
