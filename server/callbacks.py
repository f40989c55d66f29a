"""Callbacks: what a user's own code hears of a run as it goes, and how it asks the run to end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedmeta.statistics import Evaluation


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Attributes:
        rounds: finished ones.
        reason: why no further round was played: early stopping, a callback, a spent privacy budget, or an exception;
            None where all were.
        results: as in results.json; None where an exception ended the run.
    """

    rounds: int
    reason: str | None
    results: Mapping[str, Any] | None


class Callback:
    """Override what you need and pass an instance: `simulate("file.toml", callbacks=[Mine()])`.

    All methods run in the process of the server, between rounds; an exception in one ends the run, which can be
    resumed. A callback that changes the record or the evaluation changes nothing of the run.

    A reason (a text) that `on_round_end`, or `on_evaluation` on validation, returns asks the run to end: it does so as
    soon as its last model has been validated, at most one round later, and is then judged as any run.
    """

    def on_start(self, rounds: int) -> None:
        """Once, when all is checked and the clients are known, before the first round to play; `rounds` are played.

        Not where a finished run is resumed, to which nothing is left to do.
        """

    def on_round_end(self, record: Mapping[str, Any]) -> str | None:
        """After every round, with its record as it stands in metrics.jsonl; the checkpoint is written by then."""

    def on_evaluation(self, round: int, evaluation: Evaluation) -> str | None:
        """After every evaluation: `evaluation.split` is `validation` within a run, `test` and `pooled` at its end."""

    def on_stop(self, ending: Ending) -> None:
        """Once, when the run has ended, however it did."""


@dataclass
class Callbacks:
    """All callbacks of a run as one.

    Attributes:
        each: the callbacks; each is called in this order.
        asked: why the run shall end; None while nobody asks.
        rounds: the last finished round.
    """

    each: Sequence[Callback]
    asked: str | None = None
    rounds: int = field(default=0)

    def started(self) -> None:
        """Tell that nothing stands against the run any more."""
        for callback in self.each:
            callback.on_start(self.rounds)

    def round_ended(self, record: Mapping[str, Any]) -> None:
        """Tell of a round and, where it had one, of its validation."""
        self.rounds = int(record["round"])
        found = record["validation"]
        evaluation = None if found is None else Evaluation.from_json(found)
        for callback in self.each:
            answers = [callback.on_round_end(record)]
            if evaluation is not None:
                answers.append(callback.on_evaluation(self.rounds, evaluation))
            self.asked = next(filter(None, [self.asked, *answers]), None)

    def ended(self, reason: str | None, results: Mapping[str, Any] | None) -> None:
        """Tell of the final evaluations, and that the run is over."""
        for which in ("last", "best"):
            judged = (results or {}).get(which) or {}
            if which == "best" and judged.get("round") == self.rounds:
                continue  # the same evaluation
            for split in ("test", "pooled"):
                if judged.get(split):
                    for callback in self.each:
                        callback.on_evaluation(int(judged["round"]), Evaluation.from_json(judged[split]))
        for callback in self.each:
            callback.on_stop(Ending(self.rounds, reason, results))
