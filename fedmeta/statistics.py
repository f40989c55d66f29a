"""Summaries of evaluations: plain records that travel as JSON."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from fedmeta.calibration import calibration_error
from fedmeta.estimates import Estimate, Unit, estimate, json_object, within

ERRORS = frozenset({"mse", "mae"})
"""Scores of which less is better."""

ANY = (-math.inf, math.inf)
SCORE_BOUNDS = {"accuracy": (0.0, 1.0), **dict.fromkeys(ERRORS, (0.0, math.inf))}
"""Between which a score lies, where it cannot be anything."""

SCORES = ("accuracy", "return", *sorted(ERRORS))
"""Scores that a running training tells beside its loss."""


@dataclass(frozen=True)
class Evaluation:
    """One model judged on the frozen episodes of some clients.

    Attributes:
        split: `validation`, `test` (each client's own episodes) or `pooled` (episodes across all test clients' data).
        score_name: of the task, such as `accuracy` (fraction) or `mse`.
        steps: ascending numbers of adaptation steps that were judged; 0 is before adaptation.
        adapted: the number among them that counts as after adaptation: the learner's own, else the last.
        loss, score: an Estimate for every number of steps.
        quantiles: of the clients' mean scores after adaptation, by level: `{"0.1": ..., "0.5": ..., "0.9": ...}`.
        clients: client id -> mean score after adaptation.
        baselines: what learns nothing, on the same episodes: name -> figure (score and measures) -> Estimate; its
            `count` is smaller than the score's where a baseline has no score for some clients.
        protocol: ways, shots, queries, episodes per client, seed, transductive: what must stand beside the number.
        brier: the Brier score, an Estimate for every number of steps; empty in regression, and in files from before.
        bins: confidence against accuracy, `[3][BINS]` for every number of steps (`fedmeta.calibration`), over all
            queries of all clients; empty as above.
        ece: the expected calibration error by these bins, for every number of steps; empty as above.
        measures: what the task measures beside its score: name -> an Estimate for every number of steps.
        lead: the score after adaptation less the best baseline's, paired by client (or by episode); None without a
            baseline, and in files from before.
    """

    split: str
    score_name: str
    steps: tuple[int, ...]
    loss: tuple[Estimate, ...]
    score: tuple[Estimate, ...]
    quantiles: dict[str, float]
    clients: dict[str, float]
    baselines: dict[str, dict[str, Estimate]]
    adapted: int
    protocol: dict[str, Any] = field(default_factory=dict)
    brier: tuple[Estimate, ...] = ()
    bins: tuple[Sequence[Sequence[float]], ...] = ()
    ece: tuple[float, ...] = ()
    measures: dict[str, tuple[Estimate, ...]] = field(default_factory=dict)
    lead: Estimate | None = None

    @property
    def strongest(self) -> str | None:
        """The name of the best baseline, of those with a score for the most clients; None where there is none."""
        scores = {name: found[self.score_name] for name, found in self.baselines.items()}
        most = max((score.count for score in scores.values()), default=0)
        whole = {name: score.mean for name, score in scores.items() if score.count == most > 0}
        return strongest(whole, self.score_name)

    @property
    def baseline(self) -> Estimate | None:
        """The score of the best baseline; None where there is none."""
        return None if self.strongest is None else self.baselines[self.strongest][self.score_name]

    @property
    def before(self) -> Estimate:
        """The score with the fewest adaptation steps."""
        return self.score[0]

    @property
    def after(self) -> Estimate:
        """The score after `adapted` steps."""
        return self.score[self.steps.index(self.adapted)]

    @property
    def brier_after(self) -> Estimate | None:
        """The Brier score after `adapted` steps; None where it was not measured."""
        return self.brier[self.steps.index(self.adapted)] if self.brier else None

    @property
    def ece_after(self) -> float | None:
        """The expected calibration error after `adapted` steps, in [0, 1]; None where it was not measured."""
        return self.ece[self.steps.index(self.adapted)] if self.ece else None

    @property
    def loss_after(self) -> Estimate:
        """The loss after `adapted` steps."""
        return self.loss[self.steps.index(self.adapted)]

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `Evaluation.from_json` reads it back."""
        found = asdict(self, dict_factory=json_object)
        lists = {key: list(found[key]) for key in ("loss", "score", "brier", "steps", "ece")}
        return {**found, **lists, "bins": [[list(row) for row in each] for each in self.bins]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Evaluation":
        """Rebuild from `to_json`; null, which stands for NaN and infinity in files, becomes NaN."""
        estimates = {key: tuple(map(Estimate.from_json, data.get(key, ()))) for key in ("loss", "score", "brier")}
        baselines = {
            name: {figure: Estimate.from_json(item) for figure, item in figures.items()}
            for name, figures in data.get("baselines", {}).items()
        }
        if data.get("baseline") is not None:  # files from when there was but one
            baselines["pixel nearest neighbour"] = {data["score_name"]: Estimate.from_json(data["baseline"])}
        measures = {name: tuple(map(Estimate.from_json, items)) for name, items in data.get("measures", {}).items()}
        ece = tuple(math.nan if value is None else value for value in data.get("ece", ()))
        read = {"steps": tuple(data["steps"]), "bins": tuple(data.get("bins", ())), "ece": ece}
        known = {key: value for key, value in data.items() if key != "baseline"}
        lead = None if data.get("lead") is None else Estimate.from_json(data["lead"])
        return cls(**{**known, **estimates, **read, "baselines": baselines, "measures": measures, "lead": lead})


def strongest(means: Mapping[str, float], score_name: str) -> str | None:
    """The name of the best mean score, the first of equal ones; None of none.

    >>> strongest({"a": 0.7, "b": 0.8}, "mae"), strongest({"a": 0.7, "b": 0.8}, "accuracy")
    ('a', 'b')
    """
    best = min if score_name in ERRORS else max
    return best(means, key=lambda name: means[name]) if means else None


@dataclass(frozen=True)
class ClientScores:
    """What one client measured: `[steps][episodes]` losses and scores, and so each measure of the task, by name.

    Of every baseline score and measures `[episodes]`, by its name and theirs. In classification Brier scores too, and
    `[steps][3][BINS]`, confidence against accuracy over all its queries.
    """

    loss: Sequence[Sequence[float]]
    score: Sequence[Sequence[float]]
    baselines: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    brier: Sequence[Sequence[float]] = ()
    bins: Sequence[Sequence[Sequence[float]]] = ()
    measures: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)


def summarise(
    split: str, score_name: str, steps: Sequence[int], scores: Mapping[int, ClientScores], protocol: Mapping[str, Any]
) -> Evaluation:
    """Summarise clients' scores. Clients are the independent units where there are several, else episodes are.

    Args:
        split: see `Evaluation`.
        score_name: of the task.
        steps: the numbers of adaptation steps, ascending.
        scores: client id -> what it measured; at least one client.
        protocol: facts that must stand beside the numbers.
    """
    ordered = [scores[client] for client in sorted(scores)]
    unit: Unit = "clients" if len(ordered) > 1 else "episodes"

    def pool(rows: Sequence[Sequence[float]], bounds: tuple[float, float] = ANY) -> Estimate:
        found = estimate([float(np.mean(row)) for row in rows] if unit == "clients" else rows[0], unit)
        return within(found, *bounds)

    bounds = SCORE_BOUNDS.get(score_name, ANY)
    # A cross-entropy and an error are never below 0; the loss of a policy may be.
    loss_bounds = (0.0, math.inf) if score_name in SCORE_BOUNDS else ANY

    wanted = int(protocol.get("test-steps", steps[-1]))
    adapted = wanted if wanted in steps else steps[-1]
    place = list(steps).index(adapted)
    means = {str(client): float(np.mean(scores[client].score[place])) for client in sorted(scores)}
    calibrated = all(len(item.brier) == len(item.bins) == len(steps) for item in ordered)
    # Every client has as many episodes as the others: added up, each query counts alike.
    bins = np.sum([np.asarray(item.bins, dtype=np.float64) for item in ordered], axis=0) if calibrated else []
    levels = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
    baselines = _baselines(ordered, score_name, unit)
    lead = _lead(ordered, baselines, score_name, place)
    return Evaluation(
        split=split,
        score_name=score_name,
        steps=tuple(steps),
        loss=tuple(pool([item.loss[i] for item in ordered], loss_bounds) for i in range(len(steps))),
        score=tuple(pool([item.score[i] for item in ordered], bounds) for i in range(len(steps))),
        quantiles={f"{level:g}": float(np.quantile(list(means.values()), level)) for level in levels},
        clients=means,
        baselines=baselines,
        adapted=adapted,
        protocol=dict(protocol),
        brier=tuple(pool([item.brier[i] for item in ordered], (0.0, 2.0)) for i in range(len(steps)))
        if calibrated
        else (),
        bins=tuple(each.tolist() for each in bins),
        ece=tuple(calibration_error(each) for each in bins),
        measures={
            name: tuple(pool([item.measures[name][i] for item in ordered]) for i in range(len(steps)))
            for name in ordered[0].measures
            if all(name in item.measures for item in ordered)
        },
        lead=pool(lead) if lead else None,
    )


def _baselines(ordered: Sequence[ClientScores], score_name: str, unit: Unit) -> dict[str, dict[str, Estimate]]:
    """Every baseline's figures over the clients (or the episodes of the only one) for which it has a score.

    Where it has none somewhere, `count` is the smaller; where it has none at all the mean is NaN of 0.
    """
    found: dict[str, dict[str, Estimate]] = {}
    for name in dict.fromkeys(name for item in ordered for name in item.baselines):
        told = [item.baselines[name] for item in ordered if score_name in item.baselines.get(name, {})]
        figures = dict.fromkeys([score_name, *(figure for each in told for figure in each)])
        found[name] = {}
        for figure in figures:
            rows = [np.asarray(each[figure], dtype=np.float64) for each in told if figure in each]
            known = [row[np.isfinite(row)] for row in rows if np.isfinite(row).any()]
            values = [float(row.mean()) for row in known] if unit == "clients" else [v for row in known for v in row]
            if not values:
                found[name][figure] = Estimate(math.nan, math.nan, math.nan, 0, unit)
                continue
            one = estimate(values, unit)
            found[name][figure] = within(one, *SCORE_BOUNDS.get(figure, ANY))
    return found


def _scored(ordered: Sequence[ClientScores], name: str, score_name: str) -> int:
    """For how many episodes a baseline has a score."""
    rows = [item.baselines.get(name, {}).get(score_name, ()) for item in ordered]
    return sum(int(np.isfinite(np.asarray(row, dtype=np.float64)).sum()) for row in rows)


def _lead(
    clients: Sequence[ClientScores], baselines: Mapping[str, Mapping[str, Estimate]], score_name: str, place: int
) -> list[list[float]]:
    """`[clients][episodes]`, the score at `place` of the steps less that of the best baseline; empty without one.

    Of the baselines with a score for every episode. Both saw the very same episodes: what makes some of them hard for
    both falls out of the difference.
    """
    everywhere = sum(len(item.score[place]) for item in clients)
    means = {
        name: figures[score_name].mean
        for name, figures in baselines.items()
        if _scored(clients, name, score_name) == everywhere
    }
    best = strongest(means, score_name)
    if best is None:
        return []
    return [
        [own - other for own, other in zip(item.score[place], item.baselines[best][score_name], strict=True)]
        for item in clients
    ]
