"""Callbacks, early stopping, and a run that is judged on validation alone."""

from pathlib import Path
from typing import Any

import pytest

from fedmeta.errors import FedmetaError
from fedmeta.experiment_sections import EvaluationSection
from server.callbacks import Callback, Ending
from server.configuration import load
from server.early_stopping import EarlyStopping
from simulations.launch import open_run, play

RAW: dict[str, Any] = {
    "data": {"name": "sinusoid"},
    "partition": {"name": "iid", "clients": 2, "validation_clients": 1, "test_clients": 1},
    "task": {"ways": 1, "shots": 2, "queries": 2},
    "model": {"name": "sinusoid", "hidden": [4]},
    "learner": {"name": "fomaml", "inner_lr": 0.01},
    "client": {"execution": "loop"},
    "server": {"rounds": 6, "sampling": {"name": "fixed", "clients": 1}},
    "evaluation": {"every": 2, "episodes": 1, "validation_episodes": 1, "pooled_episodes": 1},
}


class Listener(Callback):
    """Writes down what it hears, and asks for an end after one round."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.heard: list[Any] = []
        self.started: list[int] = []
        self.stop_after = stop_after
        self.ending: Ending | None = None

    def on_start(self, rounds):
        self.started.append(rounds)

    def on_round_end(self, record):
        self.heard.append(record["round"])
        return "enough" if record["round"] == self.stop_after else None

    def on_evaluation(self, round, evaluation):
        self.heard.append((round, evaluation.split))

    def on_stop(self, ending):
        assert self.ending is None
        self.ending = ending


def run(place: Path, *callbacks: Callback, **overrides: Any):
    experiment = load(RAW, {key.replace("__", "."): value for key, value in overrides.items()})
    return play(open_run(experiment, out=place), "inline", callbacks=callbacks, draw=False)


def resumed(place: Path):
    return play(open_run(None, resume=place), "inline", draw=False)


def test_all_that_happens_is_told_in_its_order(tmp_path: Path) -> None:
    listener = Listener()
    result = run(tmp_path / "run", listener, server__rounds=3)
    told = [1, 2, (2, "validation"), 3, (3, "validation")]
    assert listener.heard[:5] == told and listener.heard[5:7] == [(3, "test"), (3, "pooled")]
    assert listener.started == [0]
    assert listener.ending is not None and listener.ending.reason is None and listener.ending.rounds == 3
    assert listener.ending.results == result.results and "stopped" not in result.results


def test_a_run_that_cannot_be_has_not_started(tmp_path: Path) -> None:
    listener = Listener()
    with pytest.raises(FedmetaError):
        run(tmp_path / "run", listener, server__sampling__clients=5)
    assert listener.started == []
    run(tmp_path / "run", server__rounds=2)
    again = Listener()
    play(open_run(None, resume=tmp_path / "run"), "inline", draw=False, callbacks=[again])
    assert again.started == [], "a finished run is left as it is"
    (tmp_path / "run" / "results.json").unlink()
    play(open_run(None, resume=tmp_path / "run"), "inline", draw=False, callbacks=[again])
    assert again.started == [2]


def test_a_callback_ends_a_run_whose_last_model_is_validated(tmp_path: Path) -> None:
    """Asked for after round 1, which was not validated: round 2 is, and is the last; after a validation, at once."""
    early, even = Listener(stop_after=1), Listener(stop_after=2)
    first = run(tmp_path / "1", early, evaluation__every=5)
    assert first.rounds == 2 and (2, "validation") in early.heard and early.heard.count(1) == 1
    assert first.results["stopped"] == "enough" == early.ending.reason  # type: ignore[union-attr]
    assert first.results["last"]["round"] == first.results["best"]["round"] == 2
    second = run(tmp_path / "2", Listener(), even)
    assert second.rounds == 2 and second.history[-1]["validation"] is not None
    assert run(tmp_path / "3", Listener(stop_after=6)).results.get("stopped") is None, "all rounds were played"


def test_an_exception_is_an_ending_and_the_run_goes_on_later(tmp_path: Path) -> None:
    class Breaks(Listener):
        def on_round_end(self, record):
            raise KeyError("mine")

    broken = Breaks()
    with pytest.raises(KeyError, match="mine"):
        run(tmp_path / "run", broken)
    assert broken.ending == Ending(1, "KeyError: 'mine'", None)
    assert resumed(tmp_path / "run").rounds == 6


def test_early_stopping_waits_for_its_patience_and_survives_a_resume(tmp_path: Path) -> None:
    overrides = {"server__optimiser": {"name": "sgd", "lr": 0.0}, "evaluation__patience": 2, "evaluation__every": 1}
    whole = run(tmp_path / "whole", **overrides)  # a server that never moves: no score is better than the first
    assert whole.rounds == 3, "the first is the best, then two without a better one"
    assert whole.results["stopped"] == "no better score in 2 validations (evaluation.patience)"

    class Cut(Callback):
        def on_round_end(self, record):
            if record["round"] == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", Cut(), **overrides)
    later = resumed(tmp_path / "cut")
    assert later.rounds == 3 and later.model_hash == whole.model_hash
    assert resumed(tmp_path / "cut").rounds == 3, "a finished run stays finished"


def test_what_counts_as_better() -> None:
    def record(score: float | None, name: str = "accuracy") -> dict[str, Any]:
        if score is None:
            return {"validation": None}
        estimate = {"mean": score, "low": score, "high": score, "count": 1, "unit": "clients"}
        return {
            "validation": {
                "split": "validation",
                "score_name": name,
                "steps": [1],
                "adapted": 1,
                "loss": [estimate],
                "score": [estimate],
                "quantiles": {},
                "clients": {},
                "baseline": None,
                "protocol": {},
            }
        }

    def stops(scores: list[float | None], name: str = "accuracy", **settings: Any) -> bool:
        section = EvaluationSection(**settings)
        return EarlyStopping(section, [record(score, name) for score in scores]).reason is not None

    assert stops([0.5, 0.5, 0.4], patience=2) and not stops([0.5, None, 0.4, None], patience=2)
    assert not stops([0.5, 0.4, 0.6, 0.5], patience=2) and not stops([0.5] * 9)
    assert stops([0.5, 0.51, 0.52], patience=2, min_improvement=0.05)
    assert stops([0.1, 0.2, 0.3], "mse", patience=2) and not stops([0.3, 0.2, 0.1], "mse", patience=2)
    assert stops([float("nan"), float("nan")], patience=2)


def test_the_hash_of_runs_without_patience_is_the_old_one() -> None:
    plain = load(RAW)
    assert load(RAW, {"evaluation.min_improvement": 0.5}).hash == plain.hash
    assert load(RAW, {"evaluation.patience": 3}).hash != plain.hash


def test_a_run_that_is_not_judged_asks_no_test_client(tmp_path: Path) -> None:
    listener = Listener()
    opened = open_run(RAW, {"server.rounds": 2}, tmp_path / "run")
    result = play(opened, "inline", callbacks=[listener], draw=False, judge=False)
    assert listener.heard == [1, 2, (2, "validation")] and result.evaluation() is None
    assert result.results["best"]["split"] == "validation" and result.results["last"] == {"round": 2, "names": {}}
