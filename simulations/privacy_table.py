"""`fedmeta privacy`: epsilon, or the noise that keeps to one, by every valid accountant side by side."""

from dataclasses import asdict, dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from fedmeta.errors import ConfigurationError
from fedmeta.privacy import NoAmplification, Poisson, TruncatedPoisson, TwoStage, WithoutReplacement
from fedmeta.privacy.accountants import ACCOUNTANTS
from fedmeta.privacy.accounting import bounds, calibrate, check_delta
from fedmeta.privacy.events import Event, Gaussian
from fedmeta.privacy.schemes import Scheme
from server.words import counted


@dataclass(frozen=True)
class Answer:
    """One accountant's line: epsilon and noise multiplier, or why it has none."""

    accountant: str
    epsilon: float | None
    noise_multiplier: float | None
    version: str
    refusal: str


def scheme_of(
    rate: float | None, population: int | None, drawn: int | None, cap: int | None, task_rate: float | None
) -> Scheme:
    """The sampling scheme that options name.

    Args:
        rate: of Poisson coins; None for no amplification.
        population: units there are, for `drawn` and `cap`.
        drawn: units a round without replacement, in place of a rate.
        cap: most units of a Poisson draw.
        task_rate: a second stage, of tasks.

    Raises:
        ConfigurationError: options that do not go together.
    """
    if drawn is not None:
        if rate is not None or cap is not None or task_rate is not None or population is None:
            raise ConfigurationError("--drawn goes with --population, and with no rate or cap")
        return WithoutReplacement(population, drawn)
    if rate is None:
        if cap is not None or task_rate is not None:
            raise ConfigurationError("--cap and --task-rate need --sampling-rate")
        return NoAmplification()
    if task_rate is not None:
        if cap is not None:
            raise ConfigurationError("--cap and --task-rate have no common analysis here: give one of them")
        return TwoStage(rate, task_rate)
    if cap is not None:
        if population is None:
            raise ConfigurationError("--cap needs --population: how many units there are")
        return TruncatedPoisson(population, rate, cap)
    return Poisson(rate)


def answers(
    scheme: Scheme, rounds: int, delta: float, noise_multiplier: float | None, target_epsilon: float | None
) -> list[Answer]:
    """Every accountant's answer; exactly one of the last two arguments is given.

    Raises:
        ConfigurationError: a value out of bounds, both or neither given.
    """
    if (noise_multiplier is None) == (target_epsilon is None):
        raise ConfigurationError("give one of --noise-multiplier and --target-epsilon")
    check_delta(delta)
    if rounds < 0:
        raise ConfigurationError(f"--rounds = {rounds} must be >= 0")
    if noise_multiplier is not None:
        if not noise_multiplier > 0:
            raise ConfigurationError(
                f"--noise-multiplier = {noise_multiplier:g} must be > 0: without noise there is no guarantee"
            )
        found = bounds([Event(Gaussian(noise_multiplier), scheme, count=rounds)], delta)
        return [
            Answer(v.accountant, v.bound.epsilon, noise_multiplier, v.bound.version, "")
            if v.bound
            else Answer(v.accountant, None, None, "", v.refusal)
            for v in found
        ]
    assert target_epsilon is not None
    return [_calibrated(name, scheme, rounds, delta, target_epsilon) for name in ACCOUNTANTS]


def _calibrated(name: str, scheme: Scheme, rounds: int, delta: float, target: float) -> Answer:
    def plan(z: float) -> list[Event]:
        return [Event(Gaussian(z), scheme, count=rounds)]

    refusal = ACCOUNTANTS[name].refusal(plan(1.0)[0])
    if refusal:
        return Answer(name, None, None, "", refusal)
    z = calibrate(plan, target, delta, name)
    verdict = next(v for v in bounds(plan(z), delta) if v.accountant == name)
    return Answer(name, verdict.bound.epsilon if verdict.bound else None, z, _version(verdict), "")


def _version(verdict: Any) -> str:
    return verdict.bound.version if verdict.bound is not None else ""


def as_json_object(scheme: Scheme, rounds: int, delta: float, found: list[Answer]) -> dict[str, Any]:
    """The answers as JSON values, with what they rest on."""
    event = Event(Gaussian(1.0), scheme, count=rounds)
    return {
        "sampling": str(scheme),
        "adjacency": event.neighbours.value,
        "rounds": rounds,
        "delta": delta,
        "answers": [asdict(answer) for answer in found],
    }


def table_of(scheme: Scheme, rounds: int, delta: float, found: list[Answer]) -> Table:
    """The answers as a table; the least bound stands out."""
    event = Event(Gaussian(1.0), scheme, count=rounds)
    title = f"{scheme}; {event.neighbours.value} neighbours, {counted(rounds, 'round')}, delta {delta:g}"
    table = Table(title=title, title_justify="left")
    for column in ("accountant", "epsilon", "noise multiplier", "note"):
        table.add_column(column, justify="right" if column in ("epsilon", "noise multiplier") else "left")
    known = [answer for answer in found if answer.epsilon is not None]
    best = min(known, key=lambda answer: (answer.noise_multiplier, answer.epsilon), default=None)
    for answer in found:
        style = "bold" if answer is best else ""
        figures = ["" if value is None else f"{value:.4g}" for value in (answer.epsilon, answer.noise_multiplier)]
        table.add_row(answer.accountant, *figures, escape(answer.refusal or answer.version), style=style)
    return table
