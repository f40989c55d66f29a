"""Personal weights through real rounds: no message holds them, a client finds its own again, a new one starts at w."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, RecordDict

from clients.personal import personal_vector
from clients.training import train
from fedmeta.errors import ConfigurationError
from fedmeta.wire import ARRAYS, CONFIG, config_record, read_vector, vector_record
from fedmeta.workload import Workload
from server.configuration import load
from server.rounds import run_experiment
from server.rundir import RunDir
from simulations import InlineGrid

RAW = {
    "name": "own",
    "data": {"name": "hershey", "writers": 4, "examples_per_writer": 1},
    "partition": {"name": "iid", "clients": 4, "test_clients": 1, "validation_clients": 0, "min_examples": 1},
    "task": {"kind": "own", "support_fraction": 0.5},
    "model": {"name": "mlp", "hidden": [8], "normalisation": "none"},
    "client": {"steps": 2, "tasks_per_step": 1, "optimiser": {"name": "sgd", "lr": 0.05}},
    "server": {"rounds": 2, "sampling": {"name": "fixed", "clients": 3}},
    "evaluation": {"episodes": 1, "pooled_episodes": 1},
}


class Spy(InlineGrid):
    """Keeps all that goes to and fro."""

    seen: list[Message]

    def send_and_receive(self, messages, *, timeout=None):
        asked = list(messages)
        replies = list(super().send_and_receive(asked, timeout=timeout))
        self.seen = [*getattr(self, "seen", []), *asked, *replies]
        return replies


def arrays(message: Message) -> list[np.ndarray]:
    records = message.content.array_records.values() if message.has_content() else []
    return [array.numpy() for record in records for array in record.values()]


@pytest.mark.parametrize("learner", ["pfedme", "ditto"])
def test_no_message_holds_personal_weights(tmp_path: Path, learner: str) -> None:
    experiment = load({**RAW, "learner": {"name": learner, "inner_lr": 0.02}})
    workload = Workload(experiment)
    clients = len(workload.federation.clients)
    grid = Spy("clients.app:app", clients)
    result = run_experiment(grid, experiment, RunDir.create(tmp_path / "run", experiment), simulated=True)
    assert result.rounds == 2 and not result.failed_rounds
    size, own = workload.spec.size(), workload.spec.size("personal")
    assert size == own and not any(entry.name.startswith("personal.") for entry in workload.spec.select("shared"))
    kept = {
        client: read_vector(state["personal"], own)
        for client, state in ((c, grid._states.get(c)) for c in range(clients))
        if state is not None and "personal" in state
    }
    assert len(kept) >= 3, "those that trained have weights of their own"
    sent = [array for message in grid.seen for array in arrays(message)]
    trained = [message for message in grid.seen if message.metadata.message_type == "train"]
    assert len(sent) >= 12 and all(array.shape == (size,) for array in sent) and len(trained) == 12
    initial = workload.initial_vector()
    for vector in kept.values():
        moved = vector != initial  # a weight of a pixel that is never drawn stays where all began
        assert moved.float().mean() > 0.3
        for array in sent:
            assert (torch.from_numpy(np.array(array)) == vector)[moved].float().mean() < 0.01
    assert len({tuple(vector.tolist()) for vector in kept.values()}) == len(kept)


def test_personal_weights_that_diverge_cost_no_later_round(tmp_path: Path) -> None:
    """Ditto's may while what it shares goes on; they are not kept, so that the client begins anew."""
    experiment = load({**RAW, "learner": {"name": "ditto", "inner_lr": 1e30}})
    grid = InlineGrid("clients.app:app", len(Workload(experiment).federation.clients))
    result = run_experiment(grid, experiment, RunDir.create(tmp_path / "run", experiment), simulated=True)
    assert result.rounds == 2 and not result.failed_rounds
    assert not any("personal" in state for state in grid._states.values())


def test_personal_weights_that_cannot_be_read_cost_their_client_alone() -> None:
    workload = Workload(load({**RAW, "learner": {"name": "ditto", "inner_lr": 0.02}}))
    InlineGrid("clients.app:app", 1)  # messages need what Flower sets in its processes
    told = {"experiment": workload.experiment.to_json(), "round": 1, "update-form": "delta"}
    content = RecordDict({ARRAYS: vector_record(workload.initial_vector()), CONFIG: config_record(told)})
    contexts = [Context(1, 1, {"partition-id": client, "simulated": True}, RecordDict(), {}) for client in range(3)]
    contexts[1].state["personal"] = vector_record(torch.zeros(3))
    replies = list(train([Message(content, 1, "train") for _ in contexts], contexts))
    assert [reply.has_error() for reply in replies] == [False, True, False]


def test_nothing_of_dittos_personal_weights_shows_in_what_is_sent() -> None:
    """Other personal weights, the same update to the last bit: v does not flow back into w."""
    workload = Workload(load({**RAW, "learner": {"name": "ditto", "inner_lr": 0.02}}))
    base = {"experiment": workload.experiment.to_json(), "round": 1, "update-form": "delta"}
    content = RecordDict({ARRAYS: vector_record(workload.initial_vector()), CONFIG: config_record(base)})

    def update(own: torch.Tensor | None) -> tuple[bytes, torch.Tensor]:
        grid = InlineGrid("clients.app:app", 5)
        [node, *_] = grid.get_node_ids()
        if own is not None:
            list(grid.send_and_receive([Message(content, node, "train")]))
            grid._states[0]["personal"] = vector_record(own)
        [reply] = grid.send_and_receive([Message(content, node, "train")])
        kept = read_vector(grid._states[0]["personal"], workload.spec.size("personal"))
        return reply.content[ARRAYS]["flat"].data, kept

    plain, own = update(None)
    other, changed = update(own + 1.0)
    assert plain == other and not torch.equal(own, changed)


def test_a_new_client_starts_at_the_model_it_is_sent_and_an_old_one_at_its_own() -> None:
    workload = Workload(load({**RAW, "learner": {"name": "ditto"}}))
    moved = workload.initial_vector() + 1.0

    class Empty:
        state: ClassVar[dict] = {}

    own = personal_vector(workload, Empty(), moved)  # type: ignore[arg-type]
    assert torch.equal(own, moved) and not torch.equal(own, workload.spec.flatten(workload.initial, "personal"))


@pytest.mark.parametrize("learner", ["pfedme", "ditto"])
def test_only_the_client_can_be_hidden(learner: str) -> None:
    for unit in ("task", "example"):
        privacy = {"unit": unit, "placement": "local", "noise_multiplier": 1.0}
        with pytest.raises(ConfigurationError, match=f"'{unit}' is not available for learner '{learner}'.*client unit"):
            load({**RAW, "learner": {"name": learner}, "privacy": privacy})
    load({**RAW, "learner": {"name": learner}, "privacy": {"unit": "client", "noise_multiplier": 1.0}})


def test_perfedavg_hides_tasks_only_where_a_client_has_several() -> None:
    privacy = {"unit": "task", "placement": "local", "noise_multiplier": 1.0}
    with pytest.raises(ConfigurationError, match="one task"):
        load({**RAW, "learner": {"name": "perfedavg"}, "privacy": privacy})
    load({**RAW, "task": {"ways": 3}, "learner": {"name": "perfedavg"}, "privacy": privacy})
