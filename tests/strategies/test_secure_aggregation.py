"""Secure aggregation over a grid, in whole rounds: exact means, dropouts at every stage, and nothing in the clear."""

import itertools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAvg

from fedmeta.errors import ConfigurationError, FedmetaError
from fedmeta.privacy import secagg_names as names
from fedmeta.privacy.secagg import parse
from fedmeta.privacy.secagg_section import DropoutSection, SecaggSection
from fedmeta.wire import ARRAYS, CONFIG, GROUP, METRICS, WEIGHT, config_record, read_vector, vector_record
from fedmeta.workload import Workload
from server.configuration import load
from server.rounds import RunResult, run_experiment
from server.rundir import RunDir
from server.secure_aggregation import secured
from simulations import AdversarialGrid, InlineGrid
from strategies.decorator import GridDecorator
from strategies.secagg_round import STAGES
from strategies.secure_aggregation import SecureAggregationGrid

RAW = {
    "name": "secure",
    "data": {"name": "sinusoid"},
    "partition": {"name": "iid", "clients": 10, "validation_clients": 0, "test_clients": 1},
    "task": {"ways": 1, "shots": 5, "queries": 5},
    "model": {"name": "sinusoid"},
    "learner": {"name": "maml", "inner_lr": 0.01},
    "client": {"steps": 1, "tasks_per_step": 2, "execution": "loop", "optimiser": {"name": "sgd", "lr": 0.05}},
    "server": {"rounds": 2, "sampling": {"name": "fixed", "clients": 10}},
    "evaluation": {"every": 20, "episodes": 2, "pooled_episodes": 2},
}
SECURE = {"enabled": True, "group_size": 5}


def play(folder: Path, raw: dict) -> RunResult:
    """A whole run on the inline engine, as `simulate` has it, but for the report, which takes seconds to draw."""
    experiment = load(raw)
    with InlineGrid("clients.app:app", len(Workload(experiment).federation.clients), check=False) as grid:
        rundir = RunDir.create(folder, experiment)
        try:
            return run_experiment(secured(grid, experiment, simulated=True), experiment, rundir, simulated=True)
        finally:
            rundir.close()


class Spy(GridDecorator):
    """Keeps all that passes, both ways."""

    def __init__(self, grid) -> None:
        super().__init__(grid)
        self.sent: list[Message] = []
        self.came: list[Message] = []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        sent = list(messages)
        came = list(self._grid.send_and_receive(sent, timeout=timeout))
        self.sent += sent
        self.came += came
        return came


def train_messages(workload: Workload, grid, clients: int = 10, **config) -> list[Message]:
    told = {"experiment": workload.experiment.to_json(), "round": 1, "update-form": "delta", **config}
    content = RecordDict({ARRAYS: vector_record(workload.initial_vector()), CONFIG: config_record(told)})
    return [Message(content, node, "train") for node in list(grid.get_node_ids())[:clients]]


@pytest.fixture(scope="module")
def workload() -> Workload:
    return Workload(load(RAW))


@pytest.fixture(scope="module")
def plain(workload: Workload) -> np.ndarray:
    """`[10, D]`, what the clients send in the clear in round 1."""
    grid = InlineGrid("clients.app:app", 11)
    replies = grid.send_and_receive(train_messages(workload, grid))
    return np.stack([read_vector(reply.content[ARRAYS], workload.spec.size()).numpy() for reply in replies])


def secure_round(workload: Workload, settings: SecaggSection, clients: int = 10, **options):
    """One round under secure aggregation: the replies, by the clients that each speaks for, and the errors."""
    inner = Spy(InlineGrid("clients.app:app", 11))
    grid = SecureAggregationGrid(inner, settings, **{"seed": 0, "weighting": "uniform", **options})
    messages = train_messages(workload, inner, clients)
    replies = grid.send_and_receive(messages, timeout=60)
    ids = {message.metadata.message_id: client for client, message in enumerate(messages)}
    sums = {
        tuple(ids[each] for each in reply.content[CONFIG][GROUP]): reply for reply in replies if not reply.has_error()
    }
    errors = {ids[reply.metadata.reply_to_message_id]: reply.error.reason for reply in replies if reply.has_error()}
    return sums, errors, inner


def assert_is_mean(reply: Message, rows: np.ndarray) -> None:
    found = read_vector(reply.content[ARRAYS], rows.shape[1]).numpy()
    assert np.linalg.norm(found - rows.mean(0)) < 1e-5 * np.linalg.norm(rows.mean(0))


def test_each_group_gives_its_mean_and_nothing_else(workload: Workload, plain: np.ndarray) -> None:
    sums, errors, inner = secure_round(workload, SecaggSection(group_size=5))
    assert not errors and len(sums) == 2 and sorted(itertools.chain(*sums)) == list(range(10))
    for members, reply in sums.items():
        assert_is_mean(reply, plain[list(members)])
        assert reply.content[METRICS][WEIGHT] == pytest.approx(10, abs=1e-5), "five clients of two tasks"
        assert sorted(reply.content[METRICS]) == ["loss", "mse", WEIGHT] and reply.content[CONFIG]["clipped-share"] == 0
    assert Counter(message.metadata.message_type for message in inner.sent) == {
        "query.secagg_keys": 10, "query.secagg_shares": 10, "train": 10, "query.secagg_unmask": 10,
    }  # fmt: skip


def test_nothing_that_passes_the_inner_grid_tells_of_a_single_update(workload: Workload, plain: np.ndarray) -> None:
    """No float array comes back, no scalar but names and bounds, and masked words do not correlate with updates."""
    _, _, inner = secure_round(workload, SecaggSection(group_size=5))
    masked = []
    for reply in inner.came:
        arrays = [array for record in reply.content.array_records.values() for array in record.values()]
        assert all(array.dtype == "uint8" for array in arrays) and not reply.content.metric_records
        masked += [parse(array.numpy().data).vector for array in arrays]
        for record in reply.content.config_records.values():
            assert set(record) <= {"message", "metric-names", "weight-bound", "spec-hash", "update-form"}
    assert len(masked) == 10 and all(vector.dtype == np.uint32 for vector in masked)
    size = plain.shape[1]
    words = np.stack([vector[:size].view(np.int32).astype(float) for vector in masked])
    correlations = np.corrcoef(words, plain)[:10, 10:]
    assert np.abs(correlations).max() < 5 / np.sqrt(size), "ten masked vectors against ten updates"
    bins = np.histogram(words, bins=16, range=(-(2.0**31), 2.0**31))[0]
    expected = words.size / 16
    assert ((bins - expected) ** 2 / expected).sum() < 45, "chi square of 15 degrees: one in 10,000 is above"
    # The same words without masks would be found out.
    scaled = plain / np.abs(plain).max()
    assert np.corrcoef(scaled[0], plain[0])[0, 1] > 0.99


@pytest.mark.parametrize("stage", STAGES)
def test_a_dropout_at_a_stage_costs_that_client_alone(workload: Workload, plain: np.ndarray, stage: str) -> None:
    settings = SecaggSection(dropouts=0.3, adversary="semi-honest", dropout=DropoutSection(**{stage: 0.15}))
    for seed in range(5, 20):
        sums, errors, _ = secure_round(workload, settings, seed=seed)
        [(members, reply)] = sums.items()
        assert_is_mean(reply, plain[list(members)])
        assert sorted([*members, *errors]) == list(range(10))
        if stage == "unmask":
            assert not errors, "a vector that has arrived is in the sum, whoever helps to unmask it"
        if errors or stage == "unmask":
            assert all(f"fell silent before '{stage}'" in reason for reason in errors.values())
            break
    else:
        raise AssertionError("nobody ever fell silent")


def test_all_stages_at_once(workload: Workload, plain: np.ndarray) -> None:
    rates = DropoutSection(keys=0.1, shares=0.1, masked=0.1, unmask=0.1)
    settings = SecaggSection(dropouts=0.4, corrupt=0.1, adversary="semi-honest", dropout=rates)
    outcomes = set()
    for seed in range(6):
        sums, errors, _ = secure_round(workload, settings, seed=seed, min_success_fraction=0.0)
        for members, reply in sums.items():
            assert_is_mean(reply, plain[list(members)])
        outcomes.add(bool(sums))
        assert len(errors) + sum(map(len, sums)) == 10
    assert True in outcomes


@pytest.mark.parametrize("stage", STAGES)
def test_below_the_threshold_there_is_no_sum_and_no_part_of_one(workload: Workload, stage: str) -> None:
    settings = SecaggSection(group_size=5, threshold=4, dropout=DropoutSection(**{stage: 0.9}))
    sums, errors, inner = secure_round(workload, settings, min_success_fraction=0.0)
    assert not sums and sorted(errors) == list(range(10))
    assert all("its group has no sum" in why or f"fell silent before '{stage}'" in why for why in errors.values())
    asked = Counter(message.metadata.message_type for message in inner.sent)
    if stage != "unmask":
        assert not asked["query.secagg_unmask"], "nobody is asked to help towards a sum that cannot be"


def test_too_few_clients_in_sums_end_the_round_before_anything_is_unmasked(workload: Workload) -> None:
    settings = SecaggSection(group_size=5, threshold=3, dropout=DropoutSection(masked=0.3))
    sums, errors, inner = secure_round(workload, settings, seed=1, min_success_fraction=0.9)
    assert not sums and len(errors) == 10
    assert any("below server.min_success_fraction = 0.9" in reason for reason in errors.values())
    assert not any(message.metadata.message_type == "query.secagg_unmask" for message in inner.sent)


def test_the_least_share_of_clients_in_sums_is_enough(workload: Workload) -> None:
    settings = SecaggSection(group_size=5, threshold=3, dropout=DropoutSection(masked=0.3))
    sums, errors, _ = secure_round(workload, settings, seed=1, min_success_fraction=0.0)
    share = sum(map(len, sums)) / 10
    assert 0 < share < 1 and len(errors) == 10 - round(10 * share)
    assert secure_round(workload, settings, seed=1, min_success_fraction=share)[0].keys() == sums.keys()


def test_values_beyond_the_bound_are_cut_and_the_share_is_told(workload: Workload, plain: np.ndarray) -> None:
    bound = float(np.quantile(np.abs(plain), 0.9))
    sums, _, _ = secure_round(workload, SecaggSection(bound=bound))
    [(members, reply)] = sums.items()
    assert_is_mean(reply, np.clip(plain, -bound, bound)[list(members)])
    assert reply.content[CONFIG]["clipped-share"] == pytest.approx(0.1, abs=1e-3)


def test_a_client_that_cannot_train_is_left_out_by_name(workload: Workload, plain: np.ndarray) -> None:
    """Its model message is spoilt on the way: it refuses, and the others' sum does not hold it."""

    class Spoiling(GridDecorator):
        def send_and_receive(self, messages, *, timeout=None):
            sent = list(messages)
            for message in sent:
                if message.metadata.message_type == "train" and message.metadata.dst_node_id == 1003:
                    message.content[ARRAYS] = vector_record(torch.full((workload.spec.size(),), torch.nan))
            return self._grid.send_and_receive(sent, timeout=timeout)

    inner = InlineGrid("clients.app:app", 11)
    grid = SecureAggregationGrid(Spoiling(inner), SecaggSection(), weighting="uniform", seed=0)
    replies = grid.send_and_receive(train_messages(workload, inner))
    [mean] = [reply for reply in replies if not reply.has_error()]
    [error] = [reply for reply in replies if reply.has_error()]
    assert "NaN or infinite" in error.error.reason
    assert_is_mean(mean, np.delete(plain, 3, axis=0))


@pytest.mark.parametrize("stage", STAGES)
def test_rubbish_from_a_client_costs_that_client_alone(workload: Workload, plain: np.ndarray, stage: str) -> None:
    """Text or floats for bytes, a request for a reply, a cut message, an empty one; and all replies come twice."""
    kind = {"keys": names.KEYS, "shares": names.SHARES, "masked": "train", "unmask": names.UNMASK}[stage]

    def spoilt(content: RecordDict, data: bytes | None) -> RecordDict:
        """The content with other bytes of the protocol in it, or without any."""
        if data is None:
            return RecordDict({})
        if stage == "masked":
            array = Array(np.frombuffer(data, np.uint8) if data else np.ones(3))
            return RecordDict({**content, names.MASKED: ArrayRecord({names.BYTES: array})})
        return RecordDict({**content, names.RECORD: ConfigRecord({names.MESSAGE: data or "text"})})

    class Malicious(GridDecorator):
        def send_and_receive(self, messages, *, timeout=None):
            sent = list(messages)
            replies = {reply.metadata.src_node_id: reply for reply in self._grid.send_and_receive(sent)}
            if sent[0].metadata.message_type == kind:
                request = sent[0].content[names.RECORD][names.MESSAGE]
                for node, data in ((1000, b""), (1001, request), (1002, b"\x02\x00"), (1003, None)):
                    replies[node].content = spoilt(replies[node].content, data)
            return [*replies.values(), *replies.values()][::-1]

    settings = SecaggSection(corrupt=0.0, dropouts=0.4, adversary="semi-honest")
    inner = InlineGrid("clients.app:app", 11, check=False)
    grid = SecureAggregationGrid(Malicious(inner), settings, weighting="uniform", seed=0)
    messages = train_messages(workload, inner)
    replies = grid.send_and_receive(messages)
    errors = {reply.metadata.reply_to_message_id for reply in replies if reply.has_error()}
    bad = [client for client, message in enumerate(messages) if message.metadata.message_id in errors]
    # In the last exchange their vectors are in the sum already, and enough others help to unmask it.
    assert bad == ([] if stage == "unmask" else [0, 1, 2, 3])
    [mean] = [reply for reply in replies if not reply.has_error()]
    assert_is_mean(mean, np.delete(plain, bad, axis=0))


def test_facts_that_cannot_be_read_cost_that_client_alone(workload: Workload, plain: np.ndarray) -> None:
    """Names of metrics that nest too deeply to be read, and a bound that is none."""

    class Malicious(GridDecorator):
        def send_and_receive(self, messages, *, timeout=None):
            replies = {reply.metadata.src_node_id: reply for reply in self._grid.send_and_receive(messages)}
            for node, key, value in ((1000, names.METRIC_NAMES, "[" * 100_000), (1001, names.WEIGHT_BOUND, "wide")):
                record = replies[node].content[names.RECORD] if node in replies else {}
                if key in record:
                    record[key] = value
            return list(replies.values())

    inner = InlineGrid("clients.app:app", 11, check=False)
    settings = SecaggSection(corrupt=0.0, dropouts=0.4, adversary="semi-honest")
    grid = SecureAggregationGrid(Malicious(inner), settings, weighting="uniform", seed=0)
    replies = list(grid.send_and_receive(train_messages(workload, inner)))
    assert sum(reply.has_error() for reply in replies) == 2
    [mean] = [reply for reply in replies if not reply.has_error()]
    assert_is_mean(mean, plain[2:])


def test_one_deadline_is_over_all_exchanges(workload: Workload) -> None:
    """A grid that always takes all the time it is given leaves a share to the exchanges that follow."""
    clock, given = [1000.0], []

    class Slow(GridDecorator):
        def send_and_receive(self, messages, *, timeout=None):
            given.append(timeout)
            clock[0] += timeout
            return self._grid.send_and_receive(messages)

    inner = InlineGrid("clients.app:app", 11)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("strategies.secagg_round.time.monotonic", lambda: clock[0])
        grid = SecureAggregationGrid(Slow(inner), SecaggSection(seconds=50.0), weighting="uniform", seed=0)
        replies = grid.send_and_receive(train_messages(workload, inner), timeout=3600.0)
    assert given == pytest.approx([5.0, 5.0, 35.0, 5.0]) and not any(reply.has_error() for reply in replies)


def test_runs_with_and_without_it_agree(tmp_path: Path) -> None:
    """MetaStrategy over several rounds, groups of unequal size: the same model and metrics to rounding."""
    runs = {}
    for name, secagg in (("plain", {}), ("secure", SECURE | {"group_size": 4})):
        runs[name] = play(tmp_path / name, {**RAW, "secagg": secagg})
    start = Workload(load(RAW)).initial_vector()
    moved = runs["plain"].vector - start
    assert (runs["secure"].vector - runs["plain"].vector).norm() < 1e-5 * moved.norm()
    for plain, secure in zip(runs["plain"].history, runs["secure"].history, strict=True):
        assert secure["train"]["loss"] == pytest.approx(plain["train"]["loss"], rel=1e-5)
        assert not secure["failed"] and sorted(c for g in secure["groups"] for c in g["clients"]) == list(range(10))
        assert sorted(len(group["clients"]) for group in secure["groups"]) == [5, 5]
    said = runs["secure"].results["secagg"]
    assert (said["sums"], said["smallest_sum"], said["thresholds"]) == (4, 5, {"5": 4})
    again = play(tmp_path / "again", {**RAW, "secagg": SECURE | {"group_size": 4}})
    assert again.model_hash == runs["secure"].model_hash, "masks cancel, and rounding comes from the seed"


def test_flowers_fedavg_is_unchanged_under_it(workload: Workload) -> None:
    def fedavg(secure: bool) -> torch.Tensor:
        inner = InlineGrid("clients.app:app", 11)
        grid = SecureAggregationGrid(inner, SecaggSection(group_size=5), seed=0) if secure else inner
        strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=11, min_available_nodes=11)
        config = ConfigRecord({"experiment": workload.experiment.to_json()})
        arrays = vector_record(workload.initial_vector())
        result = strategy.start(grid=grid, initial_arrays=arrays, num_rounds=2, train_config=config)
        assert sorted(result.train_metrics_clientapp[2]) == ["loss", "mse"]
        return read_vector(result.arrays, workload.spec.size())

    plain, secure = fedavg(False), fedavg(True)
    assert (secure - plain).norm() < 1e-5 * (plain - workload.initial_vector()).norm()


def test_attackers_within_clients_meet_a_robust_rule_over_groups(tmp_path: Path) -> None:
    """Two of ten clients boost a flipped update: the mean of groups follows them, the median of five means does not."""
    base = {
        **RAW,
        "partition": {"name": "iid", "clients": 20, "validation_clients": 0, "test_clients": 1},
        "attack": {"method": {"name": "sign_flip", "scale": 30.0}, "fraction": 0.1, "knowledge": "own"},
        "secagg": {**SECURE, "group_size": 4, "bound": 10.0, "risk": 0.05},
    }
    norms = {}
    for name in ("mean", "median"):
        server = {"rounds": 1, "sampling": {"name": "fixed", "clients": 20}, "aggregator": {"name": name}}
        run = play(tmp_path / name, {**base, "server": server})
        [record] = run.history
        assert len(record["attackers"]) == 2 and len(record["groups"]) == 5
        norms[name] = record["train"]["update-norm"]
        assert record["defence"]["flagged"] is None, "a rule over groups accuses no client"
        assert "groups" in record["defence"] and "detection" not in run.results
    server = {"rounds": 1, "sampling": {"name": "fixed", "clients": 20}}
    [record] = play(tmp_path / "honest", {**base, "attack": {}, "server": server}).history
    honest = record["train"]["update-norm"]
    assert norms["mean"] > 1.5 * honest and norms["median"] < 1.5 * honest


def test_whoever_rewrites_or_pushes_is_refused(workload: Workload) -> None:
    from fedmeta.attacks import make_attack

    inner = InlineGrid("clients.app:app", 11)
    with pytest.raises(ConfigurationError, match="an attacker who rewrites replies cannot act"):
        SecureAggregationGrid(AdversarialGrid(inner, make_attack("ipm"), malicious={0}))
    grid = SecureAggregationGrid(inner)
    with pytest.raises(ConfigurationError, match="masked"):
        AdversarialGrid(grid, make_attack("ipm"), malicious={0})
    with pytest.raises(FedmetaError, match="send_and_receive"):
        grid.push_messages(train_messages(workload, inner))


def test_sums_on_actors_are_off_under_it(tmp_path: Path) -> None:
    run = {**RAW, "secagg": SECURE, "engine": {"reduce": "auto"}, "server": {**RAW["server"], "rounds": 0}}
    with pytest.warns(UserWarning, match=r"engine.reduce = 'auto' has no effect"):
        play(tmp_path / "run", run)


def test_a_small_draw_is_an_ordinary_round_without_a_sum(tmp_path: Path) -> None:
    server = {"rounds": 4, "sampling": {"name": "poisson", "rate": 0.4}}
    run = play(tmp_path / "run", {**RAW, "server": server, "secagg": {"enabled": True}})
    sampled = [len(record["sampled"]) for record in run.history]
    assert min(sampled) < 4 <= max(sampled) and not run.failed_rounds
    for record in run.history:
        assert bool(record.get("groups")) == (len(record["sampled"]) >= 4)
        assert record["event"] is None or "has no sum of so few" in record["event"]


def test_a_group_that_is_too_small_to_hide_in_has_no_sum(workload: Workload) -> None:
    sums, errors, inner = secure_round(workload, SecaggSection(), clients=3)
    assert not sums and not inner.sent and all("fewer than 4" in reason for reason in errors.values())
    sums, errors, _ = secure_round(workload, SecaggSection(allow_unsafe_groups=True, corrupt=0.0), clients=3)
    assert len(sums) == 1 and not errors
