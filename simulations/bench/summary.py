"""From the values of cells to what a reader asks: means with intervals, comparisons, the worst attack of a defence."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fedmeta.paired import Interval, holm, seed_interval, wilcoxon
from simulations.bench.cells import Plan
from simulations.bench.outcome import Outcome
from simulations.bench.questions import question_column

BROKEN_DROP, BROKEN_LIFT = 0.2, 0.5
"""An attack breaks a defence where the main task loses more than the one, or its lift exceeds the other."""

RESTORED_DROP, RESTORED_LIFT = 0.05, 0.1
"""A defence restores what the plain mean lost where no more than these are left."""

BREAK_STEP = 5
"""Adaptation steps after which the lift decides that, where success is measured there."""


@dataclass(frozen=True)
class Row:
    """One combination over its seeds.

    Attributes:
        setup, attack, defence: labels.
        by_seed: column name -> seed -> value.
        intervals: column name -> mean and interval over the seeds.
        states: of its cells, by seed.
    """

    setup: str
    attack: str
    defence: str
    by_seed: Mapping[str, Mapping[int, float]] = field(repr=False)
    intervals: Mapping[str, Interval] = field(repr=False)
    states: Mapping[int, str] = field(repr=False)

    @property
    def diverged(self) -> tuple[int, ...]:
        """Seeds whose model has no finite score, though the run is done: the worst that an attack can do."""
        scored = self.by_seed.get("score", {})
        return tuple(seed for seed, state in self.states.items() if state == "done" and seed not in scored)

    def mean(self, name: str) -> float | None:
        """The mean of a column; None where it has no value."""
        found = self.intervals.get(name)
        return None if found is None else found.mean


@dataclass(frozen=True)
class Comparison:
    """Two combinations, seed by seed.

    Attributes:
        family: the tests among which Holm's correction was made, in words.
        setup: label.
        first, second: what is compared, in words.
        column: name of the column.
        difference: first minus second, with its interval.
        p: two-sided, Wilcoxon's signed ranks.
        adjusted: by Holm, in its family.
    """

    family: str
    setup: str
    first: str
    second: str
    column: str
    difference: Interval
    p: float
    adjusted: float = 1.0


@dataclass(frozen=True)
class Worst:
    """What harms a defence most: the attack with the worst score (None: it diverged), and with the largest lift."""

    setup: str
    defence: str
    by_score: str | None
    score: float | None
    by_lift: str | None
    lift: float | None


@dataclass(frozen=True)
class Verdict:
    """An attack that breaks the plain mean, and what each defence leaves of the harm.

    Attributes:
        setup, attack: labels.
        drop, lift: under the plain mean.
        restored: defences that leave at most `RESTORED_DROP` and `RESTORED_LIFT`.
        broken: defences that the attack breaks too.
    """

    setup: str
    attack: str
    drop: float | None
    lift: float | None
    restored: tuple[str, ...]
    broken: tuple[str, ...]


def summarise(plan: Plan, outcomes: Iterable[Outcome]) -> list[Row]:
    """One row a combination, in the plan's order."""
    grouped: dict[tuple[str, str, str], list[Outcome]] = {}
    for outcome in outcomes:
        cell = outcome.cell
        grouped.setdefault((cell.setup, cell.attack, cell.defence), []).append(outcome)
    rows = []
    for labels, members in grouped.items():
        names = list(dict.fromkeys(name for outcome in members for name in outcome.values))
        by_seed = {
            name: {outcome.cell.seed: outcome.values[name] for outcome in members if name in outcome.values}
            for name in names
        }
        intervals = {name: _interval(list(values.values()), plan) for name, values in by_seed.items()}
        rows.append(Row(*labels, by_seed, intervals, {outcome.cell.seed: outcome.state for outcome in members}))
    return rows


def _interval(values: Sequence[float], plan: Plan) -> Interval:
    return seed_interval([[value] for value in values], resamples=plan.grid.measure.resamples)


def against_mean(plan: Plan, rows: Sequence[Row]) -> list[Comparison]:
    """Every defence against the plain mean under every attack: main task, and headline lift where there is one.

    One family is one set-up, attack and column: its tests are as many as there are other defences.
    """
    lift = f"lift@{plan.grid.measure.step}"
    found = []
    for row in rows:
        if row.defence != plan.undefended:
            continue
        others = [other for other in rows if _same(other, row, "setup", "attack") and other is not row]
        for name in ("score", lift):
            if name in row.by_seed:
                family = ", ".join(filter(None, (row.setup, row.attack, name)))
                tests = [_compared(plan, family, other, row, name, other.defence, row.defence) for other in others]
                found += _adjusted([test for test in tests if test is not None])
    return found


def answers(plan: Plan, rows: Sequence[Row]) -> list[Comparison]:
    """The grid's own questions, one family each over set-ups and defences."""
    by_labels = {(row.setup, row.attack, row.defence): row for row in rows}
    found = []
    for question in plan.grid.compare:
        first, second = question.attacks
        name = question_column(plan.grid, question)
        family = f"{first} against {second}, {name}"
        tests = [
            _compared(
                plan,
                family,
                by_labels[(setup.label, first, defence)],
                by_labels[(setup.label, second, defence)],
                name,
                f"{first} under {defence}",
                f"{second} under {defence}",
            )
            for setup in plan.grid.setups
            for defence in question.defences
        ]
        found += _adjusted([test for test in tests if test is not None])
    return found


def _compared(
    plan: Plan, family: str, first: Row, second: Row, name: str, first_words: str, second_words: str
) -> Comparison | None:
    """Seed by seed over the seeds that both have; None where there is none."""
    ours, theirs = first.by_seed.get(name, {}), second.by_seed.get(name, {})
    differences = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    if not differences:
        return None
    p = wilcoxon(differences)
    return Comparison(family, first.setup, first_words, second_words, name, _interval(differences, plan), p)


def _adjusted(tests: Sequence[Comparison]) -> list[Comparison]:
    adjusted = holm([test.p for test in tests])
    return [replace(test, adjusted=p) for test, p in zip(tests, adjusted, strict=True)]


def worst_attacks(plan: Plan, rows: Sequence[Row]) -> list[Worst]:
    """For every set-up and defence the attacks that harm it most."""
    lift = f"lift@{plan.grid.measure.step}"
    found = []
    for setup in plan.grid.setups:
        for defence in plan.grid.defences:
            own = [r for r in rows if (r.setup, r.defence) == (setup.label, defence.label)]
            attacked = [row for row in own if row.attack != plan.unattacked]
            judged = [row for row in attacked if row.diverged or "drop" in row.intervals]
            lost = max(judged, key=lambda r: (len(r.diverged), r.mean("drop") or 0.0), default=None)
            taken = max((r for r in attacked if lift in r.intervals), key=lambda r: r.mean(lift) or 0.0, default=None)
            found.append(
                Worst(
                    setup.label,
                    defence.label,
                    None if lost is None else lost.attack,
                    None if lost is None or lost.diverged else lost.mean("score"),
                    None if taken is None else taken.attack,
                    None if taken is None else taken.mean(lift),
                )
            )
    return found


def verdicts(plan: Plan, rows: Sequence[Row], score_name: str) -> list[Verdict]:
    """The attacks that break the plain mean; none where the score is an error, for which no bound is meant."""
    if score_name != "accuracy":
        return []
    lift = break_lift(rows, plan.grid.measure.step)
    found = []
    for row in rows:
        if row.defence != plan.undefended or row.attack == plan.unattacked or not _breaks(row, lift):
            continue
        others = [other for other in rows if _same(other, row, "setup", "attack") and other is not row]
        judged = [other for other in others if "drop" in other.intervals]
        restored = tuple(other.defence for other in judged if _restores(other, lift))
        broken = tuple(other.defence for other in judged if _breaks(other, lift))
        found.append(Verdict(row.setup, row.attack, row.mean("drop"), row.mean(lift), restored, broken))
    return found


def break_lift(rows: Iterable[Row], headline: int) -> str:
    """The lift that decides whether an attack breaks a defence."""
    wanted = f"lift@{BREAK_STEP}"
    return wanted if any(wanted in row.intervals for row in rows) else f"lift@{headline}"


def _breaks(row: Row, lift: str) -> bool:
    return (row.mean("drop") or 0.0) > BROKEN_DROP or (row.mean(lift) or 0.0) > BROKEN_LIFT


def _restores(row: Row, lift: str) -> bool:
    return (row.mean("drop") or 0.0) <= RESTORED_DROP and (row.mean(lift) or 0.0) <= RESTORED_LIFT


def _same(first: Row, second: Row, *keys: str) -> bool:
    return all(getattr(first, key) == getattr(second, key) for key in keys)
