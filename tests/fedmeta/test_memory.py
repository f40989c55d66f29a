"""The chunk that memory allows, and what happens where it does not."""

import pytest
import torch

from fedmeta.memory import available_bytes, bytes_kept, fitting_tasks, is_out_of_memory


def test_what_autograd_keeps_is_counted_once() -> None:
    x = torch.ones(1000, requires_grad=True)
    assert bytes_kept(lambda: x * x) == 4000, "one tensor, kept twice"
    assert bytes_kept(lambda: (x * x) * x) == 8000
    with torch.no_grad():
        assert bytes_kept(lambda: x * x) == 0


def test_more_memory_holds_more_tasks_and_never_none() -> None:
    x = torch.ones(1000, requires_grad=True)
    assert fitting_tasks(lambda: x * x, 80_000) == 10
    assert fitting_tasks(lambda: x * x, 1) == 1
    assert available_bytes(torch.device("cpu")) > 1 << 20


def test_want_of_memory_is_told_from_other_faults() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert is_out_of_memory(caught.value) and not is_out_of_memory(RuntimeError("shapes differ"))
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))


@pytest.mark.parametrize(("chunk", "execution"), [("auto", "vmap"), (7, "vmap"), ("auto", "loop")])
def test_a_workload_says_how_many_tasks_go_at_once(chunk: str | int, execution: str) -> None:
    from fedmeta.workload import Workload
    from server.configuration import load

    experiment = load(
        {
            "data": {"name": "sinusoid"},
            "model": {"name": "sinusoid"},
            "learner": {"name": "maml"},
            "partition": {"name": "iid", "clients": 2, "test_clients": 1},
            "task": {"ways": 1},
            "client": {"chunk_size": chunk, "execution": execution},
        }
    )
    found = Workload(experiment).tasks_at_once
    if execution == "loop":
        assert found is None
    else:
        assert found == 7 if chunk == 7 else isinstance(found, int) and found > 100
