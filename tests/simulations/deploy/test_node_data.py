"""Nodes with data of their own: the same tasks as in the simulation, and clear words where the data do not fit."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context
from flwr.proto.node_pb2 import NodeInfo
from PIL import Image
from typer.testing import CliRunner

from fedmeta.data import delivered
from fedmeta.data.arrays import dataset_from_arrays
from fedmeta.data.class_dataset import ClassDataset
from fedmeta.data.node import id_of, node_data
from fedmeta.data.node_files import read_examples
from fedmeta.errors import ConfigurationError, DataError, FedmetaError
from fedmeta.experiment import Experiment
from fedmeta.workload import Workload
from server.configuration import load
from server.execute import execute
from server.rounds import RunResult
from server.rundir import RunDir
from simulations import InlineGrid
from simulations.command import app
from simulations.deploy.export import export_clients, node_config
from simulations.engine.executor import Turn
from simulations.engine.local_grid import FIRST_NODE_ID, LocalGrid
from strategies.directory import IdentityError

RAW: dict[str, Any] = {
    "name": "deployed",
    "data": {"name": "nodes", "shape": [1, 6, 6]},
    "partition": {"name": "iid", "clients": 2, "validation_clients": 1, "test_clients": 1, "pooled": False},
    "task": {"ways": 3, "shots": 1, "queries": 2},
    "model": {"name": "mlp", "hidden": [8]},
    "learner": {"name": "protonet"},
    "client": {"tasks_per_step": 2, "execution": "loop"},
    "server": {"rounds": 2, "sampling": {"name": "fixed", "clients": 2}},
    "evaluation": {"every": 1, "episodes": 2, "validation_episodes": 2},
}


class NodesGrid(InlineGrid):
    """Nodes with configurations of their own, as a deployment has them, and registered under names where given."""

    def __init__(self, configs: Sequence[Mapping[str, Any]], names: Sequence[str] = ()) -> None:
        super().__init__("clients.app:app", len(configs))
        self._configs = [dict(config) for config in configs]
        self._names = names or [""] * len(configs)

    def get_nodes(self) -> list[NodeInfo]:
        return [
            NodeInfo(node_id=node, name=name, public_key=f"key of {name}".encode())
            for node, name in zip(self.get_node_ids(), self._names, strict=True)
        ]

    def _turn(self, message: Any) -> Turn:
        turn = super()._turn(message)
        context: Context = turn.context
        own = Context(context.run_id, context.node_id, self._configs[self._partition(message)], context.state, {})
        return replace(turn, context=own)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDMETA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def dataset() -> ClassDataset:
    """30 classes of 12 noisy pictures each, whose pixels all differ."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(30), 12))
    pictures = rng.integers(0, 256, (len(labels), 6, 6), dtype=np.uint8)
    return dataset_from_arrays(pictures, labels, test_share=0.3, validation_share=0.2)


@pytest.fixture
def experiment(dataset: ClassDataset, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """An experiment on the nodes' data, which this process alone can simulate."""
    found = load(RAW)
    key = delivered.data_key("nodes", found.data.parameters)
    monkeypatch.setitem(delivered._DELIVERED, key, dataset)
    return found


def run(grid: LocalGrid, experiment: Experiment, path: Path, simulated: bool) -> RunResult:
    rundir = RunDir.create(path, experiment)
    try:
        with grid:
            return execute(grid, experiment, rundir, simulated=simulated)
    finally:
        rundir.close()


@pytest.mark.parametrize("learner", ["protonet", "fedavg"])
def test_exported_folders_give_what_the_simulation_gives(
    experiment: Experiment, dataset: ClassDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, learner: str
) -> None:
    """To the last bit: model, validation, final scores. FedAvg has one head, so class ids must come across, too."""
    parameters = {"data.classes": 30, "learner.name": learner}
    experiment = load(experiment, parameters)
    monkeypatch.setitem(delivered._DELIVERED, delivered.data_key("nodes", experiment.data.parameters), dataset)
    workload = Workload(experiment)
    paths = export_clients(workload, tmp_path / "nodes")
    assert len(paths) == 4
    configs = []
    for info, path in paths.items():
        written = dict(pair.split("=", 1) for pair in node_config(info, path).replace('"', "").split(" ", 2)[:2])
        configs.append({**written, "client-id": info.id, "name": info.name, "role": info.role})
    expected = run(InlineGrid("clients.app:app", 4), experiment, tmp_path / "simulated", True)
    delivered._DELIVERED.clear()  # nodes have nothing but their folders
    found = run(NodesGrid(configs[::-1]), experiment, tmp_path / "deployed", False)
    assert found.model_hash == expected.model_hash
    assert found.results["last"] == expected.results["last"] and found.results["best"] == expected.results["best"]
    assert [record["train"] for record in found.history] == [record["train"] for record in expected.history]


def test_an_npz_gives_what_a_folder_gives(tmp_path: Path, dataset: ClassDataset) -> None:
    rows = np.flatnonzero(dataset.labels < 4)
    np.savez(tmp_path / "a.npz", x=dataset.examples[rows], y=dataset.labels[rows])
    for c in range(4):
        for i, row in enumerate(np.flatnonzero(dataset.labels == c)):
            (tmp_path / "b" / f"class {c}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(dataset.examples[row]).save(tmp_path / "b" / f"class {c}" / f"{i:02}.png")
    one, other = (read_examples(str(tmp_path / name), (1, 6, 6)) for name in ("a.npz", "b"))
    assert list(one.rows) == list(other.rows) == [0, 1, 2, 3]
    for c in range(4):
        np.testing.assert_array_equal(one.examples[one.rows[c]], other.examples[other.rows[c]])
    assert one.numbered and not other.numbered


def test_a_prepared_copy_is_used_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = picture_folder(tmp_path / "data")
    first = read_examples(str(place), (1, 6, 6))
    prepared = list((tmp_path / "cache").glob("node-*.npy"))
    assert len(prepared) == 1 and prepared[0].stat().st_mode & 0o777 == 0o600, "others must not read the copy"
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", lambda *_: pytest.fail("the images were read again"))
        np.testing.assert_array_equal(read_examples(str(place), (1, 6, 6)).examples, first.examples)
    Image.fromarray(np.full((6, 6), 7, np.uint8)).save(place / "cat" / "0.png")
    assert (read_examples(str(place), (1, 6, 6)).examples[0] == 7).all()


def picture_folder(place: Path, shape: tuple[int, ...] = (6, 6)) -> Path:
    """Two classes of two pictures."""
    for c in ("cat", "dog"):
        (place / c).mkdir(parents=True)
        for i in range(2):
            Image.fromarray(np.full(shape, i, np.uint8)).save(place / c / f"{i}.png")
    return place


def broken(place: Path, how: str) -> Path:
    """A data-path with one fault."""
    if how == "absent":
        return place
    if how in ("larger", "colour"):
        return picture_folder(place, (8, 8) if how == "larger" else (6, 6, 3))
    if how == "no folders":
        place.mkdir()
        (place / "0.png").write_bytes(b"")
    elif how in ("damaged", "empty class", "one left"):
        picture_folder(place)
        if how == "damaged":
            (place / "dog" / "1.png").write_bytes((place / "dog" / "1.png").read_bytes()[:40])
        else:
            (place / "dog" / "1.png").unlink()
        if how == "empty class":
            (place / "dog" / "0.png").unlink()
    else:
        arrays: dict[str, dict[str, Any]] = {
            "npz shape": {"x": np.zeros((4, 5, 5), np.uint8), "y": np.zeros(4, int)},
            "npz integers": {"x": np.zeros((4, 1, 6, 6), np.int64), "y": np.zeros(4, int)},
            "npz nan": {"x": np.full((4, 1, 6, 6), np.nan, np.float32), "y": np.zeros(4, int)},
            "npz labels": {"x": np.zeros((4, 6, 6), np.uint8), "y": np.zeros(3, int)},
            "npz no y": {"x": np.zeros((4, 6, 6), np.uint8)},
            "npz object": {"x": np.array([None]), "y": np.zeros(1, int)},
        }
        place = place.with_suffix(".npz")
        if how == "npz text":
            place.write_text("not an archive")
        else:
            np.savez(place, **arrays[how])
    return place


FAULTS = {
    "absent": "does not exist",
    "larger": "is 8x8 of mode L, and the experiment's are 6x6 grey",
    "colour": "of mode RGB, and the experiment's are 6x6 grey",
    "no folders": "put the images of each class into a folder of its own",
    "damaged": "1.png' cannot be read",
    "empty class": "the class folder 'dog' holds no image",
    "one left": "has 1 classes, and an episode needs 3",
    "npz shape": "x is uint8 (4, 5, 5), and the experiment's inputs have shape (1, 6, 6)",
    "npz integers": "x is int64: store images as uint8",
    "npz nan": "NaN or infinite",
    "npz labels": "y is int64 (3,) and x has 4 rows",
    "npz no y": "it has no array y, only x",
    "npz object": "cannot be read",
    "npz text": "cannot be read",
}


def test_nodes_whose_data_do_not_fit_are_named_and_the_others_go_on(
    experiment: Experiment, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every fault on a node of its own: each is refused by name, with its key and what to do, and the run completes."""
    paths = export_clients(Workload(experiment), tmp_path / "nodes")
    good = [
        {"data-path": str(path), "client-id": info.id, "name": info.name, "role": info.role}
        for info, path in paths.items()
    ]
    bad = [{"data-path": str(broken(tmp_path / how, how)), "name": f"bad {how}"} for how in FAULTS]
    odd = [{"name": "nothing"}, {"data-path": "/x"}, {"data-path": "relative", "name": "elsewhere"}]
    result = run(NodesGrid([*good, *bad, *odd]), experiment, tmp_path / "run", False)
    assert result.rounds == 2 and not result.failed_rounds
    log = caplog.text
    for how, words in FAULTS.items():
        lines = [line for line in log.splitlines() if f"bad {how}" in line and "data-path = " in line]
        assert lines and words in lines[0], (how, lines)
    assert "the node has neither data-path nor partition-id" in log
    assert "comes without a name" in log and "give an absolute path" in log


def test_data_that_vanish_during_a_run_cost_the_round_one_client(experiment: Experiment, tmp_path: Path) -> None:
    """The second round fails for that client alone, says why, and is aggregated without it."""
    paths = export_clients(Workload(experiment), tmp_path / "nodes")
    configs = [{"data-path": str(p), "client-id": i.id, "name": i.name, "role": i.role} for i, p in paths.items()]

    class Vanishing(NodesGrid):
        def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Any:
            sent = list(messages)
            if any(int(m.content.config_records["config"].get("round", 0)) == 2 for m in sent):  # type: ignore[call-overload,arg-type]
                for folder in list(tmp_path.glob("nodes/0-*")):
                    folder.rename(tmp_path / "gone")
            return super().send_and_receive(sent, timeout=timeout)

    result = run(Vanishing(configs), experiment, tmp_path / "run", False)
    assert [list(record["failed"]) for record in result.history] == [[], ["0"]]
    assert "does not exist" in result.history[1]["failed"]["0"] and not result.failed_rounds


def test_a_server_does_not_choose_what_a_node_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path in the experiment counts in our own engines alone."""
    from clients.node import workload_on

    monkeypatch.setenv("FEDMETA_OMNIGLOT", "/of/the/node")
    text = load({"data": {"name": "omniglot", "path": "/of/the/server"}}).to_json()
    share = {"partition-id": 0, "num-partitions": 2}

    def path_on(config: dict[str, Any]) -> Any:
        workload = workload_on(text, Context(0, 0, config, None, {}))  # type: ignore[arg-type]
        assert workload.experiment.hash == load({"data": {"name": "omniglot"}}).hash
        return workload.experiment.data.parameters["path"]

    assert path_on(share) is None, "and so the node's own environment says where"
    assert path_on({**share, "data-path": "/mine"}) == "/mine"
    assert path_on({**share, "simulated": True}) == "/of/the/server"
    told = load({"data": {"name": "omniglot", "path": "/of/the/server"}}).without_places()
    assert "/of/the/server" not in told.to_json() and told.hash == load({"data": {"name": "omniglot"}}).hash


def test_who_a_node_is() -> None:
    named = node_data({"data-path": "/x", "name": "north"})
    assert named is not None and (named.client, named.name, named.role) == (id_of("north"), "north", "train")
    numbered = node_data({"data-path": "/x", "client-id": 0, "role": "test"})
    assert numbered is not None and (numbered.client, numbered.name, numbered.role) == (0, "client 0", "test")
    assert node_data({"partition-id": 1}) is None
    assert 1_000_000 <= id_of("north") < 2**31
    for config, words in [
        ({"name": " "}, "name is empty"),
        ({"client-id": -1}, "client-id = -1"),
        ({"client-id": True}, "client-id = True"),
        ({"client-id": 1, "role": "tset"}, "did you mean 'test'"),
    ]:
        with pytest.raises(ConfigurationError, match=words):
            node_data({"data-path": "/x", **config})


def test_shared_classes_are_told_by_number(tmp_path: Path) -> None:
    """Where one head serves all clients, a folder's class must be the same class everywhere."""
    counted = read_examples(str(picture_folder(tmp_path / "a")), (1, 6, 6))
    with pytest.raises(DataError, match="begin each folder's name with the class's number"):
        counted.check_shared(10)
    for name, number in (("cat", "7-cat"), ("dog", "12")):
        (tmp_path / "a" / name).rename(tmp_path / "a" / number)
    told = read_examples(str(tmp_path / "a"), (1, 6, 6))
    assert list(told.rows) == [7, 12]
    told.check_shared(13)
    with pytest.raises(DataError, match="class 12 is beyond the experiment's 12 classes"):
        told.check_shared(12)


def test_a_client_id_belongs_to_the_key_that_had_it_first(
    experiment: Experiment, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A node that comes to a resumed run under another's id is refused, also where the owner is away."""
    paths = export_clients(Workload(experiment), tmp_path / "nodes")
    configs = [{"data-path": str(p), "client-id": i.id, "name": i.name, "role": i.role} for i, p in paths.items()]
    folder = tmp_path / "run"
    with NodesGrid(configs, ["a", "b", "c", "d"]) as grid:
        rundir = RunDir.create(folder, load(experiment, {"server.rounds": 1, "server.sampling.clients": 1}))
        execute(grid, rundir.experiment, rundir)
        bound = rundir.node_keys()
        rundir.close()
    assert sorted(bound) == [0, 1, 2, 3] and len(set(bound.values())) == 4
    assert "nobody vouches" not in caplog.text
    (folder / "results.json").unlink()
    # The owner of 0 is away: 1 comes as before, 0 is claimed by the key of d and by a node without a name.
    with NodesGrid([configs[1], configs[0], configs[0], configs[2]], ["b", "d", "", "c"]) as grid:
        rundir = RunDir.open(folder)
        result = execute(grid, rundir.experiment, rundir)
        assert rundir.node_keys() == bound, "the owner's binding outlasts its absence"
        rundir.close()
    assert result.rounds == 1
    assert f"claims client id 0, which belongs to the node key {bound[0][:12]} and not to its own" in caplog.text
    assert f"which belongs to the node key {bound[0][:12]} and it has no registered key" in caplog.text


def test_without_registered_keys_ids_are_said_to_be_claims(
    experiment: Experiment, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = export_clients(Workload(experiment), tmp_path / "nodes")
    configs = [{"data-path": str(p), "client-id": i.id, "name": i.name, "role": i.role} for i, p in paths.items()]
    result = run(NodesGrid([*configs, configs[0]]), experiment, tmp_path / "run", False)
    assert result.rounds == 2 and "nobody vouches for who train 0, train 1" in caplog.text
    first, second = (FIRST_NODE_ID + i for i in (0, 4))
    assert f"1 client ({second}): claims client id 0, which node {first} already has" in caplog.text


def test_real_data_attack_nobody(experiment: Experiment, tmp_path: Path) -> None:
    paths = export_clients(Workload(experiment), tmp_path / "nodes")
    configs = [{"data-path": str(p), "client-id": i.id, "name": i.name, "role": i.role} for i, p in paths.items()]
    attacked = load(experiment, {"attack.method.name": "sign_flip", "attack.fraction": 0.5})
    with pytest.raises(IdentityError, match="a node with data of its own attacks nobody"):
        run(NodesGrid(configs), attacked, tmp_path / "run", False)


def test_what_cannot_be_exported_is_said(experiment: Experiment, tmp_path: Path) -> None:
    workload = Workload(experiment)
    export_clients(workload, tmp_path / "a", [1])
    with pytest.raises(FedmetaError, match=r"1-train_1' is there already"):
        export_clients(workload, tmp_path / "a")
    assert not list((tmp_path / "a").glob("0-*")), "refused as a whole"
    with pytest.raises(ConfigurationError, match="--client = 9: the partition makes clients 0 to 3"):
        export_clients(workload, tmp_path / "b", [0, 9])
    waves = load({"data": {"name": "sinusoid"}, "partition": {"name": "iid"}, "task": {"ways": 1},
                  "model": {"name": "sinusoid"}, "learner": {"name": "maml"}})  # fmt: skip
    with pytest.raises(DataError, match="draws its tasks from a formula"):
        export_clients(Workload(waves), tmp_path / "c")


def test_an_experiment_on_nodes_alone(tmp_path: Path) -> None:
    """It can be exported for a run, and neither be simulated nor have a head of no classes."""
    nodes = load(RAW)
    with pytest.raises(DataError, match="the data lie on the nodes of a deployment alone"):
        _ = Workload(nodes).federation
    with pytest.raises(ConfigurationError, match=r"data\.classes = 0, and learner 'fedavg'"):
        _ = Workload(load(nodes, {"learner.name": "fedavg"})).learner
    settings = [word for key in ("data.name=nodes", "data.shape=[1,28,28]") for word in ("--set", key)]
    done = CliRunner().invoke(app, ["export", *settings, "-o", str(tmp_path / "run.toml")])
    assert done.exit_code == 0 and "flwr run . NAME --run-config" in done.output
