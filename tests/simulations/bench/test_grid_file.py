"""The grid file: what is filled in, and what is refused in words that help."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from fedmeta.errors import ConfigurationError
from simulations.bench.cells import make_plan
from simulations.bench.grid_file import read_grid

CONFIGS = Path("simulations/configs")
SHIPPED = sorted(path for path in CONFIGS.glob("*.toml") if "seeds" in tomllib.loads(path.read_text()))


def test_none_and_mean_are_added_and_come_first(waves: dict[str, Any]) -> None:
    grid = read_grid(waves)
    assert [entry.label for entry in grid.attacks] == ["none", "sign_flip"]
    assert [entry.label for entry in grid.defences] == ["mean", "median", "multi_krum"]
    assert grid.added == ("attack 'none'", "defence 'mean'")
    waves["attacks"].append({"method": "none", "label": "nobody"})
    waves["defences"].append({"aggregator": "mean", "label": "fedavg"})
    again = read_grid(waves)
    assert again.added == () and again.attacks[0].label == "nobody" and again.defences[0].label == "fedavg"


def test_f_goes_to_the_rules_that_have_one_and_were_given_none(waves: dict[str, Any]) -> None:
    waves["defences"] = [
        {"aggregator": {"name": "trimmed_mean", "f": 0}},
        {"preaggregators": ["nnm", {"name": "bucketing", "s": 2}], "aggregator": "median"},
    ]
    _, given, chain = read_grid(waves).defences
    assert given.aggregator.parameters == {"f": 0}
    assert [part.parameters for part in chain.preaggregators] == [{"f": 1}, {"s": 2}]
    assert chain.label == "nnm + bucketing + median" and chain.aggregator.parameters == {}


def test_the_base_may_be_a_file_beside_the_grid(waves: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text('name = "b"\n[server]\nrounds = 77\n')
    (tmp_path / "grid.toml").write_text('base = "base.toml"\nseeds = [3]\n')
    assert make_plan(read_grid(tmp_path / "grid.toml")).cells[0].experiment.server.rounds == 77
    (tmp_path / "grid.toml").write_text('base = "nowhere.toml"\nseeds = [3]\n')
    with pytest.raises(ConfigurationError, match=r"cannot read the experiment file '.*nowhere.toml'"):
        read_grid(tmp_path / "grid.toml")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 1}, "unknown key 'seed'; did you mean 'seeds'"),
        ({"seeds": [1, 1]}, "different whole numbers"),
        ({"seeds": []}, "seeds"),
        ({"attacks": [{"method": "sign_flop"}]}, "unknown attack 'sign_flop'; did you mean 'sign_flip'"),
        ({"attacks": [{"method": "ipm", "fractoin": 0.1}]}, r"attacks.0.fractoin'; did you mean 'fraction'"),
        ({"attacks": [{"method": "ipm", "clean": "runs/x"}]}, "attacks.0.clean"),
        ({"attacks": [{"method": {"name": "ipm", "tua": 3.0}}]}, "method.tua is not a parameter of attack"),
        ({"defences": [{"aggregator": "krumm"}]}, "did you mean 'krum'"),
        ({"defences": [{"aggregator": "krum"}, {"aggregator": "krum"}]}, "two entries are called 'krum'"),
        ({"f": None, "defences": [{"aggregator": "krum"}]}, "aggregator.f is missing"),
        ({"compare": [{"attacks": ["none"]}]}, r"compare\.0\.attacks names one attack, and a question is of two"),
        ({"compare": [{"attacks": ["ipm", "none"]}]}, r"compare.attacks: 'ipm' is not in the grid"),
        (
            {"compare": [{"attacks": ["none", "none"], "column": "scor"}]},
            "'scor' is not a column; did you",
        ),
        ({"added": ["x"]}, "unknown key 'added'"),
        ({"seeds": 3}, "seeds = 3: must be a list"),
        ({"attacks": {"method": "ipm"}}, r"^\[attacks\] is one table, .* write \[\[attacks\]\] above each$"),
        ({"seeds": []}, "too few entries"),
        ({"seeds": ["a"]}, r"seeds.0 = 'a': Input should be a valid integer$"),
        ({"base": 3}, "base = 3: must be a table"),
        ({"name": "a/b"}, "must be letters, digits"),
    ],
)
def test_what_is_refused(waves: dict[str, Any], change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        read_grid({**waves, **change})


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("seed", 3, "belongs to seeds"),
        ("server.aggregator.name", "median", "belongs to defences"),
        ("attack.method", {"name": "ipm"}, "belongs to attacks"),
        ("server", {"rounds": 3}, 'write "server.rounds"'),
    ],
)
def test_axes_of_the_grid_are_not_set_elsewhere(waves: dict[str, Any], key: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        make_plan(read_grid({**waves, "setups": [{"set": {key: value}}]}))


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ({"attacks": ["badnets", "none"], "column": "robust"}, r"'robust' is not measured: add the table \[evasion\]"),
        (
            {"attacks": ["badnets", "ipm"], "column": "lift", "step": 1},
            "not measured of attack 'ipm', which has no trigger",
        ),
        (
            {"attacks": ["badnets", "badnets"], "column": "asr"},
            "after 10 adaptation steps: set compare.step to one of 0, 1",
        ),
        ({"attacks": ["badnets", "badnets"], "column": "asr", "step": 1}, ""),
        ({"attacks": ["badnets", "ipm"], "column": "score"}, ""),
    ],
)
def test_a_question_about_what_is_not_measured_is_refused(question: dict[str, Any], words: str) -> None:
    attacks = [{"method": "badnets", "steps": [0, 1]}, {"method": "ipm", "knowledge": "omniscient"}]
    grid = {"base": {"learner": {"name": "fomaml"}}, "seeds": [0], "attacks": attacks, "compare": [question]}
    if not words:
        assert make_plan(read_grid(grid)).runs
        return
    with pytest.raises(ConfigurationError, match=words):
        make_plan(read_grid(grid))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_grids_can_be_planned(path: Path) -> None:
    """Every combination is an experiment, or is refused for what the rule needs, never for a mistake in the file."""
    plan = make_plan(read_grid(path))
    assert plan.runs
    for cell in plan.cells:
        assert cell.refused is None or "needs" in cell.refused, cell


def test_the_other_kind_of_file_is_called_by_its_name() -> None:
    from server.configuration import load

    configs = Path(__file__).parents[3] / "simulations" / "configs"
    with pytest.raises(ConfigurationError, match="is a grid file, of many experiments: fedmeta bench"):
        load(configs / "defenses-small.toml")
    with pytest.raises(ConfigurationError, match="is an experiment file, and no grid of many: fedmeta simulate"):
        read_grid(configs / "demo.toml")
