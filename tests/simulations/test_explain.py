"""`fedmeta explain` on whole runs: the replayed round is the run's, shares lose nothing, and pictures are drawn."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from fedmeta.errors import ConfigurationError
from fedmeta.workload import Workload
from server.configuration import load
from server.files import finite
from server.findings import finding
from server.report.explain import explanation_figures
from server.report.explain_episode import influence_caption, influence_figure
from server.rundir import RunDir
from simulations.command import app
from simulations.explain import Effort, _why_no_round, explain
from simulations.explain_clients import NothingToSee, flags_section, map_section, worth_section
from simulations.explain_command import tables
from simulations.explain_model import influence_section, layers_section, saliency_section
from simulations.launch import open_run, play
from simulations.stage import open_stage
from strategies.meta import vector_hash

RAW: dict[str, Any] = {
    "data": {"name": "hershey", "writers": 2, "examples_per_writer": 2},
    "partition": {"name": "alphabet", "validation_clients": 1},
    "task": {"ways": 5, "shots": 2, "queries": 2},
    "model": {"name": "conv4", "filters": 4, "normalisation": "group", "groups": 2},
    "learner": {"name": "anil", "inner_lr": 0.1, "test_steps": 2},
    "client": {"steps": 1, "tasks_per_step": 1, "execution": "loop"},
    "server": {
        "rounds": 2,
        "sampling": {"name": "fixed", "clients": 5},
        "aggregator": {"name": "multi_krum", "f": 1},
        "optimiser": {"name": "sgd", "lr": 1.0, "momentum": 0.5},
    },
    "evaluation": {"episodes": 1, "pooled_episodes": 1, "validation_episodes": 1},
    "attack": {"method": {"name": "sign_flip", "scale": 10}, "fraction": 0.4, "steps": [0]},
}


def run(folder: Path, raw: dict[str, Any] = RAW, **changes: Any):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return play(open_run({**raw, **changes}, out=folder), "inline", draw=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory):
    """An attacked and defended run of two rounds."""
    return run(tmp_path_factory.mktemp("explain") / "run")


def test_rounds_played_on_a_stage_are_those_of_the_run(finished) -> None:
    experiment = RunDir.open(finished.path, exclusive=False).experiment
    with open_stage(experiment) as stage:
        first = stage.play(1, stage.workload.initial_vector())
        second = stage.play(2, first.after)
        assert vector_hash(second.after) == finished.model_hash
        for played, record in zip((first, second), finished.history, strict=True):
            assert played.report.defence == record["defence"] and list(played.report.attackers) == record["attackers"]
        assert stage.moved(second, (second.after - second.before)).shape == second.after.shape
        everybody = set(second.clients)
    with open_stage(experiment, absent=frozenset(first.clients[:2])) as stage:
        assert set(stage.play(1, stage.workload.initial_vector()).clients) == set(first.clients[2:])
    assert len(everybody) == 5


def test_explain_writes_figures_and_draws_them(finished) -> None:
    arguments = ["explain", str(finished.path), "--of", "start", "--episodes", "2", "--permutations", "7", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    found = finding(RunDir.open(finished.path, exclusive=False), "explain")
    assert found is not None and found["left_out"] == {} and json.loads(done.output) == found
    console = Console(width=160)
    with console.capture() as captured:
        for table in tables(found):
            assert all(column.header for column in table.columns), "every column has a name"
            console.print(table)
    for words in ("What adaptation changes", "Scores of multi_krum by layer, round 1", "Worth, in nats"):
        assert words in captured.get()
    page = (finished.path / "report.html").read_text()
    for part, title in (
        ("influence", "Which support examples drove"),
        ("saliency", "Which pixels speak"),
        ("layers", "What adaptation changes"),
        ("map", "A map of the clients"),
        ("flags", "Why clients stood out"),
        ("worth", "What clients are worth"),
    ):
        assert part in found and title in page and (finished.path / "plots" / f"explain-{part}.png").exists()
    assert found["influence"]["method"] == "gradient" and len(found["influence"]["values"]) == 10
    moved = {layer["layer"]: layer["distance"] for layer in found["layers"]["layers"]}
    assert moved["head"] > 0 and all(value == 0 for layer, value in moved.items() if layer != "head")

    record = finished.history[0]
    assert found["map"]["round"] == 1
    for key, told in (("flagged", record["defence"]["flagged"]), ("malicious", record["attackers"])):
        assert [client["client"] for client in found["map"]["clients"] if client[key]] == told
    for client in found["flags"]["clients"]:
        assert client["score"] == pytest.approx(record["defence"]["scores"][str(client["client"])], rel=1e-5)
        assert sum(client["layers"].values()) == pytest.approx(client["score"] - client["ordinary"], rel=1e-5)
    worth = found["worth"]
    assert worth["permutations"] == 0 and worth["evaluations"] == 32, "five clients are enumerated"
    gained = worth["loss_without"] - worth["loss_with_all"]
    assert sum(client["shapley"] for client in worth["clients"]) == pytest.approx(gained, abs=1e-9)


def test_prototypes_have_shares_and_parts_that_cannot_be_say_why() -> None:
    server = {**RAW["server"], "aggregator": {"name": "mean"}}
    changes = {"learner": {"name": "protonet"}, "server": server, "attack": {"method": {"name": "none"}}}
    partition = {"name": "alphabet", "validation_clients": 0}
    workload = Workload(load({**RAW, **changes, "partition": partition}, {}))
    client = next(info for info in workload.federation.clients if info.role == "test")
    [episode] = workload.frozen_episodes(client.id, 1)
    found = finite(influence_section(workload, workload.initial, episode, client.name))
    assert found["method"] == "prototype"
    shares, outputs = found["shares"], found["outputs"]
    for query in range(10):
        for slot in range(5):
            own = sum(row[query] for row, y in zip(shares, found["support_y"], strict=True) if y == slot)
            assert own == pytest.approx(outputs[query][slot], rel=1e-4, abs=1e-4)
    assert influence_figure(found) is not None and "Exact" in influence_caption(found)
    with pytest.raises(ValueError, match="moves no weight"):
        layers_section(workload, workload.initial, [episode])
    with open_stage(workload.experiment) as stage:
        played = stage.play(1, stage.workload.initial_vector())
        assert not any(client["malicious"] or client["flagged"] for client in map_section(stage, played)["clients"])
        with pytest.raises(NothingToSee, match="no score"):
            flags_section(stage, played)
        with pytest.raises(NothingToSee, match="validation_clients"):
            worth_section(stage, played, 1, 2)


def test_a_regression_is_explained_without_pictures() -> None:
    waves = {
        "data": {"name": "sinusoid"},
        "partition": {"name": "iid", "clients": 3, "validation_clients": 1, "test_clients": 1},
        "task": {"ways": 1, "shots": 3, "queries": 4},
        "model": {"name": "sinusoid"},
        "learner": {"name": "reptile", "inner_lr": 0.01, "test_steps": 3},
        "server": {"rounds": 1, "sampling": {"name": "fixed", "clients": 2}},
    }
    workload = Workload(load(waves, {}))
    client = next(info for info in workload.federation.clients if info.role == "test")
    episodes = workload.frozen_episodes(client.id, 2)
    found = {"of": "start", "round": 0, "left_out": {"saliency": "no pictures"}}
    found["influence"] = influence_section(workload, workload.initial, episodes[0], client.name)
    found["layers"] = layers_section(workload, workload.initial, episodes)
    assert found["influence"]["method"] == "leave-one-out" and len(found["layers"]["layers"]) == 3
    assert all(layer["distance"] > 0 and layer["cka"] <= 1 for layer in found["layers"]["layers"])
    with pytest.raises(ValueError, match="pictures"):
        saliency_section(workload, workload.initial, episodes[0], client.name)
    drawn = explanation_figures(finite(found))
    assert [name for name, *_ in drawn] == ["explain-influence", "explain-layers"]
    assert "loses when the model is adapted without" in drawn[0][3] and "Not explained: saliency" in drawn[1][3]
    assert explanation_figures(None) == []
    with open_stage(workload.experiment) as stage:
        worth = worth_section(stage, stage.play(1, workload.initial_vector()), 2, 2)
    assert len(worth["clients"]) == 2 and worth["evaluations"] == 4


def test_what_cannot_be_explained_says_why(finished) -> None:
    with pytest.raises(ConfigurationError, match="'last' model of a run"):
        explain(finished.path, Effort(of="first"))
    server = {**RAW["server"], "aggregator": {"name": "mean"}}
    hidden = load({**RAW, "server": server, "attack": {"method": {"name": "none"}}, "secagg": {"enabled": True}}, {})
    assert "nobody sees one client's update" in str(_why_no_round(Workload(hidden), None))


def test_texts_are_drawn_as_texts(tmp_path: Path) -> None:
    """Codes of characters mean nothing to a reader; what the font lacks is a dot, and a price is no formula."""
    letters = {"aaa": "abcde ", "bbb": "fghij ", "ccc": "klmno$"}
    words = {name: [own[i % 6 :] + own * 6 for i in range(12)] for name, own in letters.items()}
    (tmp_path / "texts.json").write_text(json.dumps(words), encoding="utf-8")
    text = {
        "data": {"name": "udhr", "path": str(tmp_path / "texts.json"), "characters": 12, "min_paragraphs": 12},
        "partition": {"name": "iid", "clients": 1, "test_clients": 1},
        "task": {"kind": "own", "ways": 1},
        "model": {"name": "text", "channels": 8},
        "learner": {"name": "fomaml"},
    }
    workload = Workload(load(text, {}))
    client = next(info for info in workload.federation.clients if info.role == "test")
    [episode] = workload.frozen_episodes(client.id, 1)
    found = finite(influence_section(workload, workload.initial, episode, client.name))
    shown = [one[0] for one in found["query_x"]]
    assert len(shown) == 5 and all(set(one) <= set("".join(letters.values())) and len(one) == 12 for one in shown)
    found["query_x"][0] = ["a \U00013000 for $5"]
    drawn = [words.get_text() for words in influence_figure(found).axes[0].texts]
    assert "a · for \\$5" in drawn and sum("taken for" in words for words in drawn) == 5
