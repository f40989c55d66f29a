"""An experiment with distributed noise: its plan, what clients and server build from it, its claim, what is refused."""

import math

import numpy as np
import pytest

from fedmeta.errors import ConfigurationError
from fedmeta.privacy import Adjacency, NoAmplification, Unit, tightest
from fedmeta.privacy.account import Account
from fedmeta.privacy.distributed.adaptive import AdaptiveEncoder
from fedmeta.privacy.distributed.assumptions import colluders_assumed, survivors_needed
from fedmeta.privacy.distributed.encoder import clip
from fedmeta.privacy.distributed.mechanisms import DiscreteGaussian, Skellam
from fedmeta.privacy.distributed.round_encoder import adaptive_clip, client_words, round_encoder
from fedmeta.privacy.ledger import Ledger
from fedmeta.privacy.plan import local_plan
from fedmeta.privacy.statement import Facts, statement
from fedmeta.workload import Workload
from server.configuration import load
from server.report.confidential import privacy_facts
from server.rundir import RunDir

RAW = {
    "data": {"name": "sinusoid"},
    "partition": {"name": "iid", "clients": 20, "validation_clients": 1, "test_clients": 1},
    "task": {"ways": 1, "shots": 3, "queries": 2},
    "model": {"name": "sinusoid"},
    "learner": {"name": "reptile", "inner_lr": 0.01, "inner_steps": 2, "test_steps": 1},
    "server": {"rounds": 3, "sampling": {"name": "fixed", "clients": 12}},
}
PRIVACY = {"unit": "client", "placement": "distributed", "noise_multiplier": 2.0, "clip_norm": 0.3, "delta": 1e-3}
SECAGG = {"enabled": True, "corrupt": 0.1, "dropouts": 0.2, "adversary": "semi-honest"}


def experiment(privacy=None, secagg=None, **more):
    return load({**RAW, "privacy": {**PRIVACY, **(privacy or {})}, "secagg": {**SECAGG, **(secagg or {})}, **more})


@pytest.mark.parametrize(("mechanism", "kind"), [("skellam", Skellam), ("discrete_gaussian", DiscreteGaussian)])
def test_the_plan_is_what_clients_and_server_noise_by(mechanism, kind):
    """12 clients, of whom a fifth may leave: 9 survivors, two of whom collude."""
    found = experiment({"mechanism": mechanism})
    plan = local_plan(found)
    assert (survivors_needed(found), colluders_assumed(found)) == (9, 2)
    assert plan.local and plan.unit is Unit.CLIENT and plan.noise_multiplier == 2.0
    assert isinstance(plan.event.mechanism, kind) and plan.event.neighbours is Adjacency.REPLACE_ONE
    assert plan.event.scheme == NoAmplification()
    noise = round_encoder(found, 1, 0.3).noise
    assert noise.mechanism == plan.event.mechanism
    assert noise.share == pytest.approx(2.0 / math.sqrt(7)) and noise.clients == 12
    assert noise.size == Workload(found).spec.size()


@pytest.mark.parametrize("privacy", [{}, {"mechanism": "discrete_gaussian"}, {"per_layer": True}])
def test_what_clients_encode_the_server_decodes_with_the_noise_of_the_plan(privacy):
    """A round of 10 survivors; the variance over D coordinates errs by over 6 deviations with probability 2e-9."""
    found = experiment(privacy)
    size = Workload(found).spec.size()
    vectors = np.random.default_rng(0).normal(size=(10, size))
    total = sum(
        round_encoder(found, 2, 0.3, client_words(found, 2, client, simulated=True)).encode(
            vector, np.random.default_rng(client)
        )
        for client, vector in enumerate(vectors)
    )
    server = round_encoder(found, 2, 0.3)
    noised = server.decode(total, 10)
    error = noised - sum(clip(vector, 0.3, server.layers)[0] for vector in vectors)
    expected = 10 / 7 * (2.0 * 0.3) ** 2
    assert error.var() == pytest.approx(expected, rel=6 * math.sqrt(2 / size))
    other = round_encoder(found, 3, 0.3)
    assert not np.array_equal(other.rotation.signs, server.rotation.signs)


def test_the_seed_makes_noise_in_a_simulation_only():
    found = experiment()
    draws = [client_words(found, 1, 4, simulated=True)(3).tolist() for _ in range(2)]
    assert draws[0] == draws[1] != client_words(found, 1, 5, simulated=True)(3).tolist()
    assert (
        client_words(found, 1, 4, simulated=False)(3).tolist() != client_words(found, 1, 4, simulated=False)(3).tolist()
    )


def test_adaptive_clipping_costs_nothing_more_and_moves():
    fixed, adaptive = experiment(), experiment({"clipping": "adaptive"})
    encoder = round_encoder(adaptive, 1, 0.3)
    assert isinstance(encoder, AdaptiveEncoder)
    assert encoder.inner.noise.size == Workload(adaptive).spec.size() + 1
    delta = 1e-3
    assert tightest([local_plan(adaptive).event], delta).epsilon == pytest.approx(
        tightest([local_plan(fixed).event], delta).epsilon, rel=1e-6
    )
    clipper = adaptive_clip(adaptive)
    assert clipper.expected == 12 and clipper.count_noise == 2.0
    assert clipper.moved(0.3, -6.0, 12) > 0.3 > clipper.moved(0.3, 6.0, 12)
    assert adaptive_clip(fixed) is None


@pytest.mark.parametrize("mechanism", ["skellam", "discrete_gaussian"])
def test_calibration_reaches_the_target(mechanism):
    found = experiment({"mechanism": mechanism, "noise_multiplier": None, "target_epsilon": 4.0})
    event = local_plan(found).event
    epsilon = tightest([event] * 3, 1e-3).epsilon
    assert 0.98 * 4 <= epsilon <= 4
    assert round_encoder(found, 1, 0.3).noise.mechanism == event.mechanism


def test_groups_carry_their_noise_by_themselves():
    """Three groups of 4: each has its own z, so that colluders of one group must be told."""
    with pytest.raises(ConfigurationError, match=r"privacy.colluders must be given with secagg.group_size"):
        experiment({}, {"group_size": 4})
    with pytest.warns(UserWarning, match=r"each of 3 groups carries the noise by itself: .* 1.7 times"):
        found = experiment({"colluders": 1, "min_survivors": 3}, {"group_size": 4})
    noise = round_encoder(found, 1, 0.3).noise
    assert (noise.clients, noise.survivors, noise.colluders) == (4, 3, 1)
    assert noise.share == pytest.approx(2.0 / math.sqrt(2))
    server = {"rounds": 3, "sampling": {"name": "fixed", "clients": 11}}
    with pytest.warns(UserWarning, match=r"each of 2 groups"):
        uneven = experiment({"colluders": 0}, {"group_size": 5, "dropouts": 0.0}, server=server)  # one of 5, one of 6
    assert (survivors_needed(uneven), round_encoder(uneven, 1, 0.3).noise.clients) == (5, 6)


def test_the_statement_says_what_the_claim_rests_on(tmp_path):
    """Client 3 takes part in two rounds, client 5 in one: each has an account of its own."""
    found = experiment()
    plan = local_plan(found)
    account = Account(plan, Ledger(tmp_path / "privacy.jsonl"))
    account.reserve(1, [3, 5])
    account.ledger.release(account.reserve(2, [3]))
    said = statement(found, Facts.of(plan, 20, simulated=False), account)
    assert said["epsilon"] == tightest([plan.event] * 2, 1e-3).epsilon and said["client"] == 3
    assert said["accountant"] == "rdp" and "corollary 3.6" in said["analysis"]
    assert "not exactly" in said["exactness"] and said["mechanism"].startswith("Skellam shares, z = 2")
    assert said["survivors"] == 9 and said["placement"] == "distributed"
    assert "at most 2 of the clients in a sum" in said["trust"] and "fewer than 9" in said["trust"]
    assert "tells all clients the same survivors" in said["trust"]
    assert any("who took part" in line for line in said["not_covered"])
    again = Facts.from_json(Facts.of(plan, 20, simulated=True).to_json())
    assert again.plan(found) == plan and "no privacy was needed or given" in statement(found, again, account)["trust"]
    assert Ledger(tmp_path / "privacy.jsonl").events(Unit.CLIENT, 3)[0].mechanism == plan.event.mechanism


def test_the_report_sets_the_fewest_survivors_against_the_planned(tmp_path):
    found = experiment()
    rundir = RunDir.create(tmp_path / "run", found)
    rundir.write_privacy(Facts.of(local_plan(found), 20, simulated=True).to_json())
    Account(local_plan(found), rundir.ledger()).reserve(1, [0, 1])
    records = [{"sampled": [0], "groups": [{"clients": list(range(n))}]} for n in (12, 10)]
    rows = dict(privacy_facts(rundir, [*records, {"sampled": [0]}])["rows"])
    assert rows["survivors"] == "at least 9 of a group, or its masks stay on; 10 in the smallest sum of this run"
    assert rows["bounds"].startswith("by Agarwal, Kairouz, Liu 2021, corollary 3.6; RDP: ")
    assert "no sum was released" in dict(privacy_facts(rundir, [])["rows"])["survivors"]
    rundir.close()


@pytest.mark.parametrize(
    ("privacy", "secagg", "more", "words"),
    [
        ({}, {"enabled": False}, {}, ["needs secagg.enabled = true", "placement = 'local'"]),
        ({"unit": "task"}, {}, {}, ["privacy.unit = 'task'", "whole clients"]),
        ({"share_metrics": True}, {}, {}, ["share_metrics", "noised for the update alone"]),
        ({"min_survivors": 13}, {}, {}, ["privacy.min_survivors = 13 must be <= 12"]),
        ({"min_survivors": 3, "colluders": 3}, {}, {}, ["privacy.colluders = 3 must be < privacy.min_survivors = 3"]),
        ({"mechanism": "laplace"}, {}, {}, ["privacy.mechanism", "laplace"]),
        ({"colluders": -1}, {}, {}, ["privacy.colluders", "-1"]),
        (
            {},
            {},
            {"server": {"rounds": 3, "sampling": {"name": "poisson", "rate": 0.5}}},
            ["server.sampling.name = 'poisson'", "Use fixed"],
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_refused(privacy, secagg, more, words):
    with pytest.raises(ConfigurationError) as caught:
        experiment(privacy, secagg, **more)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("accountant", ["prv", "pld"])
def test_accountants_without_a_bound_are_refused(accountant):
    with pytest.raises(ConfigurationError, match=r"distributed noise|PLD needs the extra"):
        local_plan(experiment({"accountant": accountant}))


def test_keys_of_distributed_noise_have_no_part_in_other_hashes():
    central = {**PRIVACY, "placement": "central"}
    plain = load({**RAW, "privacy": central}).hash
    with pytest.warns(UserWarning, match=r"privacy.colluders has no effect"):
        assert load({**RAW, "privacy": {**central, "colluders": 3}}).hash == plain
    assert experiment({"colluders": 1}).hash != experiment({"colluders": 2}).hash
