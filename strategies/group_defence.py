"""Robust rules over group means: what an assumed number of malicious clients becomes, and where that cannot work.

Under secure aggregation a rule's row is the mean of a group, and a group with one malicious client is a bad row. So
`f`, which an experiment gives in clients, is translated to the number of groups that f clients may spoil.
"""

import dataclasses
import math
import warnings
from dataclasses import dataclass
from typing import Any

from fedmeta.errors import ConfigurationError
from fedmeta.experiment import Experiment
from fedmeta.privacy.secagg_settings import LEAST_CLIENTS, group_plan, warn_of_weak_plan
from strategies.aggregation import Aggregator, Bounded, Rule
from strategies.pipeline import Pipeline
from strategies.preaggregation import PreAggregator
from strategies.secagg_groups import GroupOdds, group_sizes

NO_CLAIM = ("mean", "norm_bound", "rlr")
"""Rules that bear no number of malicious rows: they bound what a row can do, or nothing."""


@dataclass(frozen=True)
class GroupPromise:
    """What a robust rule over groups can promise in a round.

    Attributes:
        rule: its name.
        odds: of the assumed malicious clients.
        tolerated: bad groups that the rule bears; None where it makes no such claim.
    """

    rule: str
    odds: GroupOdds
    tolerated: int | None

    @property
    def holds(self) -> bool:
        """Whether more bad groups than the rule bears are as rare as asked for."""
        return self.tolerated is None or self.odds.beyond(self.tolerated) <= self.odds.risk

    def to_json(self) -> dict[str, Any]:
        """For the record of a run."""
        odds = self.odds
        return {
            "clients": odds.clients,
            "assumed_malicious": odds.malicious,
            "groups": list(odds.sizes),
            "clean_group": odds.clean,
            "bad_groups": odds.bad,
            "tolerated_groups": self.tolerated,
            "intolerable": None if self.tolerated is None else odds.beyond(self.tolerated),
            "rule": self.rule,
        }

    def __str__(self) -> str:
        odds = self.odds
        smallest, largest = min(odds.sizes), max(odds.sizes)
        sizes = f"{largest}" if smallest == largest else f"{smallest} to {largest}"
        groups = f"{odds.groups} group{'s' if odds.groups > 1 else ''}"
        said = (
            f"{odds.clients} clients a round in {groups} of {sizes}; with {odds.malicious} malicious a group is clean "
            f"with probability {odds.clean:.3g}"
        )
        if self.tolerated is None:
            return f"{said}; {self.rule} promises nothing against bad groups"
        return (
            f"{said}; {self.rule} bears {self.tolerated} bad groups, and more come with probability "
            f"{odds.beyond(self.tolerated):.2g}"
        )


def check_rule(pipeline: Pipeline) -> None:
    """Refuse a rule that needs single clients.

    Raises:
        ConfigurationError: it follows them over the rounds.
    """
    rule = pipeline.aggregator
    if isinstance(rule, Rule) and rule.requires.history:
        raise ConfigurationError(
            f"server.aggregator = '{_name(rule)}' follows every client over the rounds, and under secure aggregation "
            "the server sees means of groups that are drawn anew: choose a rule without histories, such as "
            "'trimmed_mean'"
        )


def group_promise(experiment: Experiment, clients: float | None) -> GroupPromise | None:
    """What the defence of an experiment promises over groups; None without secure aggregation, or without clients.

    A rule without an `f` is held to the share `secagg.corrupt` of the clients, and taken to bear less than half bad
    groups.

    Args:
        experiment: validated.
        clients: of a round; the expected number where it varies; None where it is not known.

    Raises:
        ConfigurationError: neighbours, threshold or shares of the clients that the groups cannot have.
    """
    secagg, count = experiment.secagg, round(clients or 0)
    if not secagg.enabled or count < 1:
        return None
    pipeline = Pipeline.of(experiment)
    for size in sorted(set(group_sizes(count, secagg.group_size))):
        group_plan(secagg, size)
    odds = GroupOdds.of(count, _assumed(pipeline, experiment, count), secagg.group_size, secagg.risk)
    return _promise(pipeline, odds)


def check_promise(promise: GroupPromise, experiment: Experiment) -> None:
    """Refuse groups that cannot bear the assumed number of malicious clients; warn where the experiment allows them.

    Warns of a threshold that holds against less than the experiment assumes, too.

    Raises:
        ConfigurationError: names the groups, the odds and what would do.
    """
    for members in sorted(set(promise.odds.sizes)):
        warn_of_weak_plan(experiment.secagg, members)
    if promise.holds:
        return
    odds, secagg = promise.odds, experiment.secagg
    size = "none" if secagg.group_size is None else secagg.group_size
    text = (
        f"secagg.group_size = {size}: {promise}, where secagg.risk = {odds.risk:g} is accepted (up to {odds.bad} bad "
        "groups are to be expected)"
    )
    if not secagg.allow_unsafe_groups:
        raise ConfigurationError(
            f"{text}. {_remedy(promise, experiment)}, or set secagg.allow_unsafe_groups = true to study what then "
            "happens"
        )
    warnings.warn(f"unsafe groups, as allowed: {text}", stacklevel=4)


def over_groups(pipeline: Pipeline, promise: GroupPromise) -> Pipeline:
    """The pipeline with every `f` in bad groups, as many as f malicious clients may spoil.

    Other counts of a rule, such as `multi_krum.m` or `rlr.threshold`, are rows, and so groups already.
    """
    odds = promise.odds

    def translate(part: Any) -> Any:
        f = _f(part)
        if f is None:
            return part
        bad = dataclasses.replace(odds, malicious=min(f, odds.clients)).bad
        return dataclasses.replace(part, f=bad if promise.tolerated is None else min(bad, promise.tolerated))

    return Pipeline(tuple(translate(part) for part in pipeline.preaggregators), translate(pipeline.aggregator))


def _promise(pipeline: Pipeline, odds: GroupOdds) -> GroupPromise:
    name = _name(pipeline.aggregator)
    return GroupPromise(name, odds, _tolerated(pipeline, name, odds.groups))


def _name(rule: Aggregator) -> str:
    return rule.name if isinstance(rule, Rule) and rule.name else type(rule).__name__


def _parts(pipeline: Pipeline) -> list[PreAggregator | Aggregator]:
    return [*pipeline.preaggregators, pipeline.aggregator]


def _f(part: object) -> int | None:
    found = getattr(part, "f", None)
    return found if isinstance(found, int) else None


def _assumed(pipeline: Pipeline, experiment: Experiment, clients: int) -> int:
    """Malicious clients that the defence is set up against: the largest f, else the assumed share of the clients."""
    given = [f for part in _parts(pipeline) if (f := _f(part)) is not None]
    return max(given) if given else math.ceil(experiment.secagg.corrupt * clients)


def _tolerated(pipeline: Pipeline, name: str, groups: int) -> int | None:
    """Bad rows that every part of the chain bears: by its own bound where it has an f, else less than half."""
    if name in NO_CLAIM and all(_f(part) is None for part in _parts(pipeline)):
        return None
    found, rows = [(groups - 1) // 2], groups
    for part in _parts(pipeline):
        if _f(part) is not None and isinstance(part, Bounded):
            found.append(_largest_f(part, rows))
        if isinstance(part, PreAggregator):
            rows = part.rows_after(rows)
    return max(0, min(found))


def _largest_f(part: Any, rows: int) -> int:
    fits = [f for f in range(rows + 1) if dataclasses.replace(part, f=f).least_rows() <= rows]
    return max(fits, default=0)


def _remedy(promise: GroupPromise, experiment: Experiment) -> str:
    """The largest group size that would do, if any; else what else to change."""
    odds, pipeline = promise.odds, Pipeline.of(experiment)
    current = min(experiment.secagg.group_size or odds.clients, odds.clients)
    for size in range(current - 1, LEAST_CLIENTS - 1, -1):
        if _promise(pipeline, GroupOdds.of(odds.clients, odds.malicious, size, odds.risk)).holds:
            return f"Set secagg.group_size to {size}"
    return "Take more clients a round, or assume fewer malicious ones (f, or secagg.corrupt)"
