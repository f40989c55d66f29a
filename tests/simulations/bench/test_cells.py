"""Planning: keys that name what a cell is computed from, twins, and combinations that cannot be."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmeta.errors import ConfigurationError
from simulations.bench.cells import Plan, find, make_plan
from simulations.bench.fingerprint import cell_key
from simulations.bench.grid_file import read_grid
from simulations.bench.schedule import jobs_of

BACKDOOR = {"method": {"name": "badnets"}, "target": "slot"}


def plan_of(raw: dict[str, Any]) -> Plan:
    return make_plan(read_grid(raw))


@pytest.fixture
def glyphs() -> dict[str, Any]:
    """A grid with a backdoor; planning loads no data."""
    base = {
        "learner": {"name": "fomaml"},
        "attack": {"fraction": 0.25, "start": 2, "method": {"name": "ipm", "tau": 9.0}},
    }
    return {"base": base, "seeds": [0, 1], "f": 1, "attacks": [BACKDOOR], "defences": [{"aggregator": "median"}]}


def test_every_combination_once_and_keys_differ(waves: dict[str, Any]) -> None:
    plan = plan_of(waves)
    assert len(plan.cells) == 2 * 3 * 2 == len({cell.key for cell in plan.cells})
    assert [cell.words for cell in plan.cells[:3]] == [
        "none, mean, seed 0",
        "none, mean, seed 7",
        "none, median, seed 0",
    ]
    cell = find(plan.cells, "", "sign_flip", "multi_krum")[1]
    assert cell.experiment.seed == 7 and cell.experiment.attack.fraction == 0.25
    assert cell.experiment.server.aggregator.parameters["f"] == 1


CHANGES = {
    "seed": st.integers(1, 9),
    "server.rounds": st.integers(5, 99),
    "learner.inner_lr": st.floats(0.02, 1.0),
    "client.steps": st.integers(2, 9),
    "evaluation.pooled_episodes": st.integers(5, 99),
    "engine.threads": st.integers(2, 8),
}


@given(st.dictionaries(st.sampled_from(sorted(CHANGES)), st.data(), max_size=3), st.data())
@settings(max_examples=25, deadline=None)
def test_a_key_is_the_same_for_the_same_run_and_for_no_other(chosen: dict[str, Any], data: Any) -> None:
    from server.configuration import load

    base = load({"data": {"name": "sinusoid"}, "model": {"name": "sinusoid"}, "learner": {"name": "maml"}})
    values = {key: data.draw(CHANGES[key]) for key in chosen}
    changed = load(base, values)
    assert (cell_key(changed, None, "code") == cell_key(base, None, "code")) == (not values)
    same = load(changed, {"name": "other", "engine.actors": 3, "tracking.project": "p"})
    assert cell_key(same, None, "code") == cell_key(changed, None, "code")
    assert len({cell_key(base, clean, code) for clean in (None, "a") for code in ("x", "y")}) == 4


def test_planning_again_gives_the_same_keys_whatever_the_order_of_the_file(waves: dict[str, Any]) -> None:
    other = copy.deepcopy(waves)
    other["defences"].reverse()
    other["seeds"].reverse()
    ours, theirs = ({(c.attack, c.defence, c.seed): c.key for c in plan_of(raw).cells} for raw in (waves, other))
    assert ours == theirs


def test_a_backdoor_is_measured_against_the_same_defence_and_seed(glyphs: dict[str, Any]) -> None:
    plan = plan_of(glyphs)
    for cell in plan.cells:
        twin = find(plan.cells, "", "none", cell.defence)[glyphs["seeds"].index(cell.seed)]
        assert cell.clean == (twin.key if cell.attack == "badnets" else None)
        if cell.attack == "none":
            assert cell.experiment.attack.method.name == "none"
        else:  # the base's threat model without its method, which belongs to the grid
            assert cell.experiment.attack.start == 2 and "tau" not in cell.experiment.attack.method.parameters
        rest = cell.experiment.model_copy(update={"attack": twin.experiment.attack})
        assert rest.hash == twin.experiment.hash


def test_twins_are_played_first(glyphs: dict[str, Any], tmp_path) -> None:
    jobs = jobs_of(plan_of(glyphs), tmp_path)
    assert [job.needs is None for job in jobs] == [True] * 4 + [False] * 4
    for job in jobs[4:]:
        assert job.experiment.attack.clean == str(tmp_path / "cells" / job.needs)
    assert [job.cell.seed for job in jobs[4:]] == [0, 0, 1, 1]


def test_the_same_run_under_two_labels_is_one_job(waves: dict[str, Any], tmp_path) -> None:
    waves["attacks"].append({**waves["attacks"][0], "label": "again"})
    plan = plan_of(waves)
    assert len(plan.cells) == 18 and len(jobs_of(plan, tmp_path)) == 12


def test_set_ups_change_the_base_for_all(waves: dict[str, Any]) -> None:
    waves["setups"] = [{"label": "short", "set": {"server.rounds": 2, "attack.fraction": 0.5}}, {"label": "long"}]
    plan = plan_of(waves)
    assert {cell.experiment.server.rounds for cell in plan.cells if cell.setup == "short"} == {2}
    assert [find(plan.cells, s, "sign_flip", "mean")[0].experiment.attack.fraction for s in ("short", "long")] == [
        0.5,
        0.25,
    ]


def test_a_combination_that_cannot_be_is_refused_and_the_others_stand(waves: dict[str, Any]) -> None:
    waves["defences"].append({"aggregator": {"name": "bulyan", "f": 2}})
    refused = [cell for cell in plan_of(waves).cells if cell.refused]
    assert {cell.defence for cell in refused} == {"bulyan"} and len(refused) == 4
    assert "server.sampling.clients = 6" in refused[0].refused and refused[0].key == ""


def test_warnings_are_kept_with_the_cells_they_were_said_of(waves: dict[str, Any]) -> None:
    waves["attacks"][0]["start"] = 99
    [note] = plan_of(waves).notes.items()
    assert "attack.start = 99" in note[0] and note[1][0] == "sign_flip, mean"


@pytest.mark.parametrize(
    ("base", "words"),
    [({"server": {"weighting": "tasks"}}, "uniform"), ({"serverr": {}}, "did you mean 'server'")],
)
def test_a_base_that_cannot_be_ends_the_plan(base: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        plan_of({"base": base, "seeds": [0]})
