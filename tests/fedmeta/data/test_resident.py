"""Episodes gathered where the data lie are those gathered on the CPU, to the bit; data go to a device once."""

import numpy as np
import pytest
import torch

from fedmeta import workload as workload_module
from fedmeta.data import resident as resident_module
from fedmeta.data.base import EpisodeShape
from fedmeta.data.episodes import ClassSource, EpisodeRules, as_stored
from fedmeta.data.resident import ResidentSource
from fedmeta.tasks import Episode
from fedmeta.workload import Workload
from server.configuration import load

RNG = np.random.default_rng(0)
STORED = {
    "pictures": RNG.integers(0, 256, (60, 7, 5)).astype(np.uint8),
    "colours": RNG.integers(0, 256, (60, 3, 4, 4)).astype(np.uint8),
    "floats": RNG.normal(size=(60, 9)),
    "codes": RNG.integers(0, 2**16, (60, 6)).astype(np.uint16),
}


def leaves(episode: Episode) -> list[torch.Tensor]:
    return [*episode.support, *episode.query, episode.classes]


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("kind", STORED)
def test_an_episode_is_the_same_wherever_its_data_lie(kind: str, apart: bool) -> None:
    rules = EpisodeRules(apart=np.arange(60) // 2 if apart else None)
    rows = {c: np.arange(12 * c, 12 * (c + 1)) for c in range(5)}
    source = ClassSource("here", STORED[kind], rows, rules)
    resident = ResidentSource(source, as_stored(STORED[kind]))
    shape = EpisodeShape(ways=3, shots=2, queries=4)
    for seed in range(5):
        here, there = (leaves(each.sample(shape, np.random.default_rng(seed))) for each in (source, resident))
        for one, other in zip(here, there, strict=True):
            assert one.dtype == other.dtype and torch.equal(one, other)


def test_the_data_of_all_clients_go_to_a_device_once_and_stay_off_a_full_one(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Workload(load({"data": {"name": "hershey"}, "partition": {"name": "alphabet"}}))
    clients = [info.id for info in work.federation.clients][:2]
    assert all(isinstance(work.training_source(client), ClassSource) for client in clients), (
        "a CPU reads where they lie"
    )
    monkeypatch.setattr(workload_module, "device_of", lambda experiment: torch.device("meta"))
    monkeypatch.setattr(resident_module, "available_bytes", lambda device, share: 0)
    assert isinstance(work.training_source(clients[0]), ClassSource)
    monkeypatch.setattr(resident_module, "available_bytes", lambda device, share: 1 << 40)
    first, second = (work.training_source(client) for client in clients)
    assert isinstance(first, ResidentSource) and isinstance(second, ResidentSource)
    assert first.stored is second.stored and first.source is not second.source
    drawn = first.sample(work.training_shape, np.random.default_rng(0))
    assert {tensor.device.type for tensor in leaves(drawn)} == {"meta"}
