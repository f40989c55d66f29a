"""Clients that hold a part of the model: every entry is aggregated over its holders, and nothing else is believed."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from fedmeta.errors import ConfigurationError
from fedmeta.params import ParamSpec
from fedmeta.seeding import numpy_generator
from fedmeta.workload import Workload
from server.configuration import load
from simulations import simulate
from strategies import make_aggregator
from strategies.aggregation import NotEnoughUpdates, RoundContext
from strategies.directory import Directory, Member
from strategies.holdings import Holdings
from strategies.meta import MetaStrategy
from strategies.pipeline import Pipeline

SPEC = ParamSpec.of({"image.w": torch.zeros(2), "common": torch.zeros(1), "name.w": torch.zeros(3)})
LACKS = [(), ("name.*",), ("image.*",), (), ("name.*",), ("name.*",)]
MEMBERS = [Member(client, 100 + client, "x", "train", lacks=lacks) for client, lacks in enumerate(LACKS)]
HOLDS = np.array([[not any(e in lack for lack in lacks) for e in "iicnnn"] for lacks in LACKS])
UPDATES = torch.randn((6, 6), generator=torch.Generator().manual_seed(0))
CONTEXT = RoundContext(clients=tuple(range(6)), weights=torch.tensor([1.0, 2.0, 1.0, 3.0, 1.0, 1.0]))


def holdings() -> Holdings:
    found = Holdings.of(SPEC, MEMBERS)
    assert found is not None
    return found


def test_the_flat_vector_falls_into_parts_by_who_holds_them() -> None:
    parts = {part.name: (part.elements.tolist(), set(part.lacking)) for part in holdings().parts}
    assert parts == {"image.w": ([0, 1], {2}), "common": ([2], set()), "name.w": ([3, 4, 5], {1, 4, 5})}
    assert holdings().share.tolist() == pytest.approx([5 / 6, 5 / 6, 1, 1 / 2, 1 / 2, 1 / 2])
    assert torch.equal(holdings().masked(UPDATES, range(6)) != 0, torch.from_numpy(HOLDS))
    everything = [Member(0, 1, "x", "train"), Member(1, 2, "x", "train")]
    assert Holdings.of(SPEC, everything) is None, "an ordinary federation goes its ordinary way"


def test_the_mean_is_over_those_who_hold() -> None:
    found = holdings().aggregate(make_aggregator("mean"), UPDATES, CONTEXT)
    weights = CONTEXT.weights.numpy()[:, None] * HOLDS
    expected = (weights * UPDATES.numpy()).sum(axis=0) / weights.sum(axis=0)
    assert np.allclose(found.vector.numpy(), expected, atol=1e-6)
    assert np.allclose(found.weights.numpy(), (weights / weights.sum(axis=0)).mean(axis=1)), "mean share of elements"
    equal = holdings().aggregate(make_aggregator("mean"), UPDATES, RoundContext(clients=tuple(range(6))))
    assert np.allclose(equal.vector.numpy(), (UPDATES.numpy() * HOLDS).sum(axis=0) / HOLDS.sum(axis=0), atol=1e-6)
    assert np.allclose(equal.weights.numpy(), (HOLDS / HOLDS.sum(axis=0)).mean(axis=1)), "no weights: equal ones"
    none = holdings().aggregate(make_aggregator("median"), UPDATES, CONTEXT)
    assert none.weights is None, "a rule without weights gives none, and not zero to everybody"


@pytest.mark.parametrize("name", ["median", "trimmed_mean"])
def test_a_rule_by_coordinates_is_that_of_the_holders(name: str) -> None:
    settings = {"f": 1} if name == "trimmed_mean" else {}
    updates, members = UPDATES.repeat(2, 1) + torch.arange(12)[:, None], []
    members = [Member(client, client, "x", "train", lacks=LACKS[client % 6]) for client in range(12)]
    found = Holdings.of(SPEC, members)
    assert found is not None
    vector = found.aggregate(make_aggregator(name, **settings), updates, RoundContext(clients=tuple(range(12)))).vector
    for column in range(6):
        own = updates.numpy()[np.tile(HOLDS[:, column], 2), column]
        expected = np.median(own) if name == "median" else np.sort(own)[1:-1].mean()
        assert vector[column].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["mean", "median", "geometric_median"])
def test_what_a_client_says_of_entries_that_it_lacks_is_dropped(name: str) -> None:
    lies = torch.where(torch.from_numpy(HOLDS), UPDATES, 1e6)
    rule = make_aggregator(name)
    plain = holdings().aggregate(rule, UPDATES, CONTEXT)
    assert torch.equal(holdings().aggregate(rule, lies, CONTEXT).vector, plain.vector)


def test_a_part_that_nobody_holds_this_round_stays() -> None:
    context = RoundContext(clients=(1, 4))
    found = holdings().aggregate(make_aggregator("mean"), UPDATES[[1, 4]], context)
    assert torch.equal(found.vector[3:], torch.zeros(3)) and found.vector[:3].all()


def test_a_rule_that_keeps_nobody_of_any_part_is_an_event() -> None:
    nobody = make_aggregator("signguard", lower=2.5, upper=3.0)
    found = holdings().aggregate(nobody, torch.ones(6, 6), CONTEXT)
    assert found.event is not None and not found.vector.any()
    updates = torch.ones(6, 6)
    updates[0, :2] = 0.1
    short = holdings().aggregate(make_aggregator("signguard", lower=0.0, upper=0.5), updates, CONTEXT)
    assert short.event is None and short.vector[:2].all() and not short.vector[2:].any(), "one part is enough"


def test_too_few_holders_are_named_with_their_part() -> None:
    with pytest.raises(NotEnoughUpdates, match=r"of 3 clients that hold 'name.w': krum.f = 1 with n = 3"):
        holdings().aggregate(make_aggregator("krum", f=1), UPDATES, CONTEXT)


def test_flags_and_states_are_kept_by_part() -> None:
    members = [Member(client, client, "x", "train", lacks=LACKS[client % 6]) for client in range(12)]
    updates = UPDATES.repeat(2, 1)
    updates[7, :2] = 1e3  # holds the image entries alone
    held = Holdings.of(SPEC, members)
    assert held is not None
    found = held.aggregate(make_aggregator("multi_krum", f=1, m=4), updates, RoundContext(clients=tuple(range(12))))
    assert found.flagged is not None and bool(found.flagged[7])
    clipped = make_aggregator("centered_clipping", clip_norm=1.0, iterations=1)
    first = held.aggregate(clipped, updates, RoundContext(clients=tuple(range(12))))
    assert {key.split("/")[0] for key in first.state} == {"part 0", "part 1", "part 2"}
    again = RoundContext(clients=tuple(range(12)), state=first.state)
    assert not torch.equal(held.aggregate(clipped, updates, again).vector, first.vector)


def test_what_has_no_meaning_is_refused() -> None:
    for name, why in (("fltrust", "compares"), ("foolsgold", "follows")):
        with pytest.raises(ConfigurationError, match=f"server.aggregator = '{name}' {why} whole updates"):
            holdings().check(load({}), Pipeline((), make_aggregator(name)))
    secret = load({"secagg": {"enabled": True}})
    with pytest.raises(ConfigurationError, match="hide each of them among fewer than the group promises"):
        holdings().check(secret, Pipeline((), make_aggregator("mean")))
    with pytest.raises(ConfigurationError, match=r"no training client has data for 'name.w'"):
        Holdings.of(SPEC, [Member(0, 1, "x", "train", lacks=("name.*",))])
    with pytest.raises(ConfigurationError, match=r"lack 'sound.*', and this model shares image.w, common, name.w"):
        Holdings.of(SPEC, [Member(0, 1, "x", "train", lacks=("sound.*",))])


RAW = {
    "data": {"name": "glyph_names", "owners": ["both", "image", "name"], "writers": 1},
    "partition": {"name": "alphabet"},
    "task": {"ways": 3, "shots": 1, "queries": 2},
    "model": {"name": "two_encoders", "filters": 8, "features": 8},
    "learner": {"name": "protonet"},
    "client": {"steps": 1, "tasks_per_step": 2, "optimiser": {"name": "sgd", "lr": 0.1}},
    "server": {"rounds": 1, "sampling": {"name": "fixed", "clients": 9}},
    "evaluation": {"episodes": 2, "pooled_episodes": 2, "validation_episodes": 2},
}


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One for all tests here: drawing takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDMETA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def test_a_round_of_clients_of_one_modality(tmp_path: Path, own_cache: None) -> None:
    """The model moves by every entry's mean over its holders; so does a private one, of which the noise is zero."""
    experiment = load(RAW)
    workload = Workload(experiment)
    start, spec = workload.initial_vector(), workload.spec
    updates, held = [], []
    for client in range(9):

        def sample(_: int, step: int, count: int, client: int = client) -> list:
            rng = numpy_generator(experiment.seed, 1, client, f"episodes/{step}")
            return [workload.source(client).sample(workload.training_shape, rng) for _ in range(count)]

        updates.append(workload.local_update(start, sample, 1))
        held.append(spec.holds(workload.federation.clients[client].lacks))
    rows, mask = torch.stack(updates), torch.stack(held)
    assert not rows[~mask].any(), "an encoder without data has gradient zero"
    assert mask.sum(dim=0).unique().tolist() == [6], "three clients of nine own both, three each alone"
    expected = start + rows.sum(dim=0) / mask.sum(dim=0)
    found = simulate(RAW, engine="inline", out=tmp_path / "plain", report=False)
    assert torch.allclose(found.vector, expected, atol=1e-6)
    judged = found.results["last"]["test"]["baselines"]
    assert list(judged) == ["chance", "pixel neighbour, images alone", "trigram neighbour, names alone"]
    assert judged["chance"]["accuracy"]["mean"] == pytest.approx(1 / 3)
    privacy = {"unit": "client", "noise_multiplier": 0.0, "clip_norm": 1e6, "delta": 1e-3}
    private = simulate({**RAW, "privacy": privacy}, engine="inline", out=tmp_path / "private", report=False)
    assert torch.allclose(private.vector, expected, atol=1e-6)


def test_a_run_that_cannot_be_is_refused_before_its_first_round(own_cache: None) -> None:
    workload = Workload(load(RAW))
    clients = workload.federation.clients
    directory = Directory(tuple(Member(c.id, 10 + c.id, c.name, c.role, lacks=c.lacks) for c in clients))
    for raw, reason in (
        ({**RAW, "secagg": {"enabled": True}}, "secagg.enabled = true, and some clients train a part"),
        ({**RAW, "server": {**RAW["server"], "aggregator": {"name": "foolsgold"}}}, "follows whole updates"),
    ):
        with pytest.raises(ConfigurationError, match=reason):
            MetaStrategy(load(raw), workload.spec, directory)
