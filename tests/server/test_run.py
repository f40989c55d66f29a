"""Runs that meet trouble: failing clients, malformed updates, foreign code, wrong counts, damaged directories."""

import json
import logging
from pathlib import Path

import pytest
from flwr.app import Array, Context, Message
from flwr.clientapp import ClientApp

import clients.app
from fedmeta.errors import CheckpointError, DataError, FedmetaError
from fedmeta.wire import ARRAYS, METRICS, WEIGHT
from server.configuration import load
from server.report.troubles import troubles
from server.rounds import RunResult, run_experiment
from server.rundir import RunDir
from simulations import InlineGrid, simulate
from strategies.directory import IdentityError
from strategies.round_report import RELEASED

RAW = {
    "data": {"name": "sinusoid"},
    "partition": {"name": "iid", "clients": 4, "test_clients": 1},
    "task": {"ways": 1, "shots": 3, "queries": 2},
    "model": {"name": "sinusoid"},
    "learner": {"name": "fomaml", "inner_lr": 0.01},
    "client": {"steps": 1, "tasks_per_step": 1},
    "server": {"rounds": 3, "sampling": {"name": "fixed", "clients": 4}},
    "evaluation": {"episodes": 2, "pooled_episodes": 2},
}
CLIENTS = 6


def app_that(change) -> ClientApp:
    """Our own ClientApp, with what it says changed on the way."""
    app = ClientApp()

    def through(message: Message, context: Context) -> Message:
        return change(message, context, clients.app.app)

    app.train()(through)
    app.evaluate()(through)
    app.query("identity")(through)
    return app


def run(tmp_path: Path, change, raw: dict = RAW, **overrides) -> RunResult:
    experiment = load(raw, {key.replace("__", "."): value for key, value in overrides.items()})
    with InlineGrid(app_that(change), CLIENTS, check=False, log_failures=False) as grid:
        return run_experiment(grid, experiment, RunDir.create(tmp_path / "run", experiment))


def is_training(message: Message) -> bool:
    return message.metadata.message_type == "train"


def raising(message, context, app):
    if is_training(message) and context.node_config["partition-id"] == 3:
        raise ValueError("no column age")
    return app(message, context)


def sending_nan(message, context, app):
    reply = app(message, context)
    if is_training(message) and context.node_config["partition-id"] in (1, 2, 3):
        array = reply.content[ARRAYS]["flat"].numpy().copy()
        array[7] = float("nan")
        reply.content[ARRAYS]["flat"] = type(reply.content[ARRAYS]["flat"])(array)
    return reply


def test_a_client_that_raises_costs_one_client_and_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = run(tmp_path, raising)
    assert not result.failed_rounds and result.rounds == 3
    for record in result.history:
        assert list(record["failed"]) == ["3"] and record["failed"]["3"].startswith("ValueError: no column age")
    lines = [r.message for r in caplog.records if "no column age" in r.message and "round 2" in r.message]
    assert len(lines) == 1


def test_nan_updates_are_refused_and_below_quorum_the_model_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = run(tmp_path, sending_nan)
    start = simulate(RAW, engine="inline", overrides={"server.rounds": 0}, out=tmp_path / "start", report=False)
    assert result.failed_rounds == (1, 2, 3) and result.model_hash == start.model_hash
    assert all("1 values of" in reason and "NaN" in reason for reason in result.history[0]["refused"].values())
    assert "1 of 4 clients gave a valid update, below server.min_success_fraction = 0.5" in result.history[0]["event"]
    assert any("the model stays as it was" in record.message for record in caplog.records)


@pytest.mark.filterwarnings("ignore:delta")
def test_below_quorum_central_noise_is_released_all_the_same_and_the_round_is_told_as_such(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    privacy = {"privacy": {"unit": "client", "noise_multiplier": 1.0, "delta": 1e-3}}
    result = run(tmp_path, sending_nan, **privacy)
    start = simulate(RAW, engine="inline", overrides={"server.rounds": 0}, out=tmp_path / "start", report=False)
    assert result.failed_rounds == (1, 2, 3) and result.model_hash != start.model_hash
    assert all(record["event"] is None for record in result.history), "an event is why the model stayed as it was"
    lines = [record.message for record in caplog.records if record.message.startswith("round 2: ")]
    assert lines == [f"round 2: {RELEASED}"]
    assert {"rounds": "1 to 3", "text": RELEASED} in troubles(result.history, result.results)


def test_with_a_lower_fraction_the_same_round_is_aggregated(tmp_path: Path) -> None:
    result = run(tmp_path, sending_nan, server__min_success_fraction=0.25)
    assert not result.failed_rounds and result.history[0]["event"] is None


def weightless(message, context, app):
    reply = app(message, context)
    if is_training(message):
        reply.content[METRICS][WEIGHT] = 0
    return reply


def test_weights_that_sum_to_zero_keep_the_model_and_are_an_event(tmp_path: Path) -> None:
    result = run(tmp_path, weightless, server__weighting="tasks")
    assert {record["event"] for record in result.history} == {"the weights of the updates sum to zero"}
    assert not result.failed_rounds


def twin(message, context, app):
    if context.node_config["partition-id"] == 2:
        context.node_config["partition-id"] = 1
    return app(message, context)


def test_a_client_counts_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """F15: two nodes claim client 1; the second is refused with both node ids named, and nobody is sampled twice."""
    result = run(tmp_path, twin, server__sampling__clients=3)
    [line] = [record.message for record in caplog.records if "claims client id 1" in record.message]
    assert "(1002)" in line and "node 1001" in line
    assert all(sorted(record["sampled"]) == [0, 1, 3] for record in result.history)


def foreign_code(message, context, app):
    reply = app(message, context)
    if message.metadata.message_type == "query.identity":
        reply.content["config"]["code-hash"] = "f" * 64
    return reply


def nonsensical(message, context, app):
    """Client 3 says that it lacks what no model has, and client 2 that it lacks all."""
    reply, own = app(message, context), context.node_config["partition-id"]
    if message.metadata.message_type == "query.identity" and own in (2, 3):
        reply.content["config"]["lacks"] = ["sound.*"] if own == 3 else ["*"]
    return reply


def test_nonsense_about_what_a_client_lacks_costs_that_client_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = run(tmp_path, nonsensical, server__sampling__clients=2)
    assert not result.failed_rounds and all(set(record["sampled"]) == {0, 1} for record in result.history)
    told = [record.message for record in caplog.records if "nodes refused" in record.message]
    assert len(told) == 2 and "lack 'sound.*', and this model shares" in told[0] + told[1]
    assert any("has nothing of the model to train" in line for line in told)


def partial(message, context, app):
    reply = app(message, context)
    if message.metadata.message_type == "query.identity" and context.node_config["partition-id"] == 3:
        reply.content["config"]["lacks"] = ["head.*"]
    return reply


def test_a_client_that_lacks_a_part_ends_no_run_that_wants_whole_updates(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = run(tmp_path, partial, server__sampling__clients=3, server__aggregator__name="foolsgold")
    assert not result.failed_rounds and all(3 not in record["sampled"] for record in result.history)
    assert any("'foolsgold' follows whole updates over the rounds" in record.message for record in caplog.records)


def test_clients_of_another_version_are_refused(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match=r"runs other code \(ffffffffffff at .*than the server"):
        run(tmp_path, foreign_code)


def test_a_wrong_number_of_nodes_names_the_remedy(tmp_path: Path) -> None:
    experiment = load(RAW)
    with InlineGrid("clients.app:app", 3) as grid, pytest.raises(IdentityError, match="num-supernodes=6"):
        run_experiment(grid, experiment, RunDir.create(tmp_path / "run", experiment))


def silent(message, context, app):
    if message.metadata.message_type == "evaluate":
        raise RuntimeError("busy")
    return app(message, context)


def garbled(message, context, app):
    reply = app(message, context)
    if is_training(message) and context.node_config["partition-id"] == 0:
        sent = reply.content[ARRAYS]["flat"]
        reply.content[ARRAYS]["flat"] = Array(dtype=sent.dtype, shape=sent.shape, stype=sent.stype, data=b"garbage")
    if is_training(message) and context.node_config["partition-id"] == 1:
        reply.content["config"]["update-form"] = "model"
    return reply


def test_bytes_that_are_no_array_and_models_for_deltas_are_refused(tmp_path: Path) -> None:
    result = run(tmp_path, garbled)
    refused = result.history[0]["refused"]
    assert "bytes that are no array" in refused["0"] and "form 'model'" in refused["1"]
    assert not result.failed_rounds


def mute(message, context, app):
    reply = app(message, context)
    if message.metadata.message_type == "query.identity" and context.node_config["partition-id"] == 2:
        del reply.content["config"]["code-hash"]
    return reply


def test_a_client_of_an_older_protocol_is_refused_and_the_rest_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = run(tmp_path, mute, server__sampling__clients=3)
    assert any("lacks code-hash" in record.message for record in caplog.records)
    assert all(sorted(record["sampled"]) == [0, 1, 3] for record in result.history)


def odd_scores(message, context, app):
    reply = app(message, context)
    if message.metadata.message_type == "evaluate" and context.node_config["partition-id"] == 4:
        reply.content[METRICS]["score.0"] = [0.5]
    return reply


def test_malformed_scores_are_one_clients_failure(tmp_path: Path) -> None:
    result = run(tmp_path, odd_scores)
    assert result.evaluation("test") is None and "episodes where 2 were asked" in result.results["last"]["failed"]["4"]
    assert result.evaluation("pooled") is not None


def odd_success(message, context, app):
    reply = app(message, context)
    if message.metadata.message_type == "evaluate" and context.node_config["partition-id"] in (2, 3):
        reply.content[METRICS]["asr.0"] = 0.5
    return reply


def test_a_malformed_attack_success_is_one_clients_failure(tmp_path: Path) -> None:
    """The run goes on, the client's scores count, and results and rounds name it."""
    raw = {
        **RAW,
        "data": {"name": "hershey", "writers": 2, "examples_per_writer": 2},
        "partition": {"name": "iid", "clients": 2, "validation_clients": 1, "test_clients": 2},
        "task": {"ways": 3, "shots": 1, "queries": 1},
        "model": {"name": "conv4", "filters": 2, "normalisation": "group", "groups": 2},
        "server": {"rounds": 1, "sampling": {"name": "fixed", "clients": 2}},
        "evaluation": {"every": 1, "validation_episodes": 2, "episodes": 2, "pooled_episodes": 2},
        "attack": {"method": {"name": "neurotoxin", "target": 1}, "fraction": 0.5, "steps": [0]},
    }
    result = run(tmp_path, odd_success, raw)
    last, (first,) = result.results["last"], result.history
    for failed, client in ((first["validation_failed"], "2"), (last["failed"], "3")):
        assert list(failed) == [client] and failed[client].startswith("malformed attack success: ")
    assert "attack_success" not in first and list(first["validation"]["clients"]) == ["2"]
    assert last["attack"]["test"]["episodes"] <= 2 and list(last["test"]["clients"]) == ["3", "4"]


VALIDATED = {**RAW, "partition": {"name": "iid", "clients": 3, "validation_clients": 1, "test_clients": 1}}


def test_a_failed_validation_is_written_down_and_chooses_nothing(tmp_path: Path) -> None:
    result = run(tmp_path, silent, raw=VALIDATED, server__sampling__clients=3, evaluation__every=1)
    assert all("RuntimeError: busy" in record["validation_failed"]["3"] for record in result.history)
    assert result.results["best"] is None


def test_a_diverging_server_step_keeps_model_and_state(tmp_path: Path) -> None:
    result = run(tmp_path, lambda m, c, app: app(m, c), server__optimiser__lr=1e38, client__optimiser__lr=1e6)
    assert (
        set(result.failed_rounds)
        and "lower server.optimiser.lr" in result.history[result.failed_rounds[0] - 1]["event"]
    )
    checkpoint = RunDir.open(result.path, exclusive=False).load("last")
    assert all(value.isfinite().all() for value in [*checkpoint.params.values(), *checkpoint.optimiser.values()])


def test_a_record_of_a_round_that_crashed_before_its_checkpoint_is_dropped(tmp_path: Path) -> None:
    experiment = load(RAW)
    rundir = RunDir.create(tmp_path / "run", experiment)
    rundir.append({"round": 1, "train": {}, "failed": {}, "refused": {}, "event": None, "failed_round": False})
    with (rundir.path / "metrics.jsonl").open("a") as file:
        file.write('{"round": 2, "tr')
    rundir.close()
    resumed = simulate(resume=tmp_path / "run", engine="inline", report=False)
    assert [record["round"] for record in resumed.history] == [1, 2, 3]


def test_nobody_evaluates_and_the_run_still_ends(tmp_path: Path) -> None:
    result = run(tmp_path, silent)
    assert result.evaluation("test") is None and result.rounds == 3


GLYPHS = {
    **RAW,
    "data": {"name": "hershey", "writers": 2, "examples_per_writer": 2},
    "partition": {"name": "alphabet"},
    "task": {"ways": 5, "shots": 1, "queries": 3},
    "model": {"name": "mlp", "hidden": [8]},
    "learner": {"name": "protonet"},
}


@pytest.fixture(scope="module", autouse=True)
def small_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    patch = pytest.MonkeyPatch()
    patch.setenv("FEDMETA_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"task.ways": 99}, r"client \d+ \(.*has \d+ classes, and an episode needs 99"),
        ({"task.queries": 4}, r"4 examples of class .*1 shots \+ 4 queries = 5"),
        ({"evaluation.queries": 9}, r"9 queries"),
        (
            {"partition.name": "dirichlet", "partition.alpha": 0.001, "partition.clients": 2000},
            "raise partition.min_classes",
        ),
    ],
)
def test_tasks_that_data_cannot_give_are_refused_before_any_client_works(
    tmp_path: Path, overrides: dict, words: str
) -> None:
    with pytest.raises(FedmetaError, match=words):
        simulate(GLYPHS, engine="inline", overrides=overrides, out=tmp_path / "run", report=False)
    assert not (tmp_path / "run").exists(), "a start that failed leaves nothing"


def test_one_query_a_class_learns(tmp_path: Path) -> None:
    """F01, the whole run: with one query per class accuracy must not stand at 1/ways."""
    result = simulate(
        GLYPHS,
        engine="inline",
        overrides={"task.queries": 1, "server.rounds": 15, "client.steps": 5},
        out=tmp_path / "run",
        report=False,
    )
    assert result.evaluation("pooled").after.mean > 0.3


def test_own_data_as_one_task(tmp_path: Path) -> None:
    raw = {
        **GLYPHS,
        "partition": {"name": "iid", "clients": 3, "test_clients": 1, "min_examples": 1},
        "task": {"kind": "own", "support_fraction": 0.5},
        "learner": {"name": "fomaml", "inner_lr": 0.1},
        "server": {"rounds": 1, "sampling": {"name": "fixed", "clients": 2}},
        "evaluation": {"episodes": 1, "pooled_episodes": 1},
    }
    result = simulate(raw, engine="inline", out=tmp_path / "run", report=False)
    assert result.evaluation("test") is not None and not result.failed_rounds


def test_missing_data_is_named(tmp_path: Path) -> None:
    raw = {**GLYPHS, "data": {"name": "omniglot", "path": str(tmp_path / "nowhere")}}
    with pytest.raises(DataError, match="nowhere"):
        simulate(raw, engine="inline", out=tmp_path / "run", report=False)


def test_damaged_checkpoints_and_foreign_directories_are_refused(tmp_path: Path) -> None:
    simulate(RAW, engine="inline", out=tmp_path / "run", report=False)
    checkpoint = tmp_path / "run" / "checkpoints" / "last.safetensors"
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"last\.safetensors' is damaged"):
        simulate(resume=tmp_path / "run", engine="inline", report=False)
    checkpoint.write_bytes(content)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    (tmp_path / "run" / "config.json").write_text(json.dumps({**config, "seed": 5}))
    with pytest.raises(CheckpointError, match="belongs to another experiment"):
        simulate(resume=tmp_path / "run", engine="inline", report=False)
    (tmp_path / "run" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="damaged"):
        simulate(resume=tmp_path / "run", engine="inline", report=False)
    with pytest.raises(CheckpointError, match="not a run directory"):
        simulate(resume=tmp_path, engine="inline", report=False)


def test_resuming_changes_no_results_by_settings(tmp_path: Path) -> None:
    simulate(RAW, engine="inline", out=tmp_path / "run", report=False)
    with pytest.raises(FedmetaError, match=r"server\.optimiser\.lr: 1\.0 -> .* would change the results"):
        simulate(resume=tmp_path / "run", engine="inline", overrides={"server.optimiser.lr": 0.3}, report=False)
    with pytest.raises(FedmetaError, match=r"a resumed run goes on as it was.*server\.rounds = -1"):
        simulate(resume=tmp_path / "run", engine="inline", overrides={"server.rounds": -1}, report=False)
    with pytest.raises(FedmetaError, match="neither a file nor an output"):
        simulate(RAW, resume=tmp_path / "run", engine="inline", report=False)
    with pytest.raises(FedmetaError, match="is not empty"):
        simulate(RAW, engine="inline", out=tmp_path / "run", report=False)
    again = simulate(resume=tmp_path / "run", engine="inline", report=False)
    assert again.rounds == 3, "a finished run is judged again and nothing else"


def test_failures_are_logged_on_our_logger(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    with caplog.at_level(logging.WARNING, logger="fedmeta"):
        run(tmp_path, raising)
    assert all(record.name.startswith("fedmeta") for record in caplog.records if "no column age" in record.message)
