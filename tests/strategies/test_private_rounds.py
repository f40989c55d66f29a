"""A private release as its strategy makes it: in the units of the updates that came, whatever the schedule."""

import pytest
import torch

from fedmeta.privacy.ledger import Ledger
from fedmeta.workload import Workload
from server.configuration import load
from strategies.private_rounds import PrivateRounds
from strategies.sampling import FixedSize

LR, TASKS, COHORT, CLIP, Z = 0.25, 3, 4, 0.5, 2.0
RAW = {
    "data": {"name": "sinusoid"},
    "task": {"ways": 1, "shots": 3, "queries": 2},
    "model": {"name": "sinusoid", "hidden": [64, 64]},
    "learner": {"name": "reptile"},
    "client": {"steps": 1, "tasks_per_step": TASKS, "optimiser": {"name": "sgd", "lr": LR}},
    "server": {"rounds": 4, "sampling": {"name": "fixed", "clients": COHORT}},
    "privacy": {"unit": "task", "noise_multiplier": Z, "clip_norm": CLIP, "delta": 1e-3},
}


@pytest.mark.parametrize(("schedule", "round", "scale"), [("constant", 3, 1), ("linear", 1, 1), ("linear", 4, 0.25)])
def test_the_noise_on_task_gradients_is_z_clip_norms_in_every_round(tmp_path, schedule, round, scale) -> None:
    """An update is -lr scale / tasks times a sum of clipped gradients, and so is the noise on the sum of clients."""
    experiment = load(RAW, {"client.schedule": schedule})
    spec = Workload(experiment).spec
    private = PrivateRounds(experiment, spec, FixedSize(clients=COHORT), 8, Ledger(tmp_path / "ledger"), simulated=True)
    updates = torch.randn(COHORT, spec.size(), generator=torch.Generator().manual_seed(0))
    vector, _ = private.release(updates, round)
    noise = (vector - updates.sum(dim=0) / COHORT) * COHORT / (LR * scale / TASKS)
    assert noise.std().item() == pytest.approx(Z * CLIP, rel=5 / (2 * spec.size()) ** 0.5)
