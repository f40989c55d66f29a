"""The contract of an aggregator: a pure function of the round's update matrix, and what a rule declares that it needs.

A rule is a frozen dataclass derived from `Rule` with one method, `aggregate`. What all rules share happens in one
place, `Rule.__call__`: arrays become tensors, rows that are not finite are rejected and flagged, and a rule that cannot
work on what is left says so before it starts.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedmeta.errors import ConfigurationError
from fedmeta.params import ParamSpec
from strategies.rows import Rows

Matrix = Tensor | npt.NDArray[np.floating[Any]]
"""`[n, D]` deltas, one row a client."""


class NotEnoughUpdates(ConfigurationError):
    """Fewer rows than a rule's bound: with a smaller f, or more clients, the same rule works."""


class NotApplicable(ConfigurationError):
    """A rule that has no meaning here: it lacks what it compares with, or its signal does not exist in this task."""


@dataclass(frozen=True)
class Probe:
    """How a rule may ask models for outputs (DeepSight's DDif).

    Attributes:
        input_shape: of one input.
        probabilities: (shared parameters `[D]`, inputs `[k, *input_shape]`) -> class probabilities `[k, P]`.
        fixed_slots: whether output p means the same class for every client. In episodes whose classes get slots by
            chance it does not.
    """

    input_shape: tuple[int, ...]
    probabilities: Callable[[Tensor, Tensor], Tensor]
    fixed_slots: bool


@dataclass(frozen=True, eq=False)
class RoundContext:
    """What an aggregator may know beside the updates.

    Attributes:
        round: counted from 1; 0 outside a run.
        clients: ids of the clients, in the order of the rows; empty where unknown: then row numbers stand for them.
        weights: `[n]` non-negative weights of the rows; None for equal ones. Only the mean takes them: a weight that a
            client reports would let it buy influence.
        model: `[D]` the shared parameters that the clients started from.
        root_update: `[D]` the server's own delta on data it trusts.
        momentum: `[D]` where centred clipping starts; None: its own last result.
        state: what the same rule returned last round, by name; empty at first.
        generator: of a rule's draws; None: one of a fixed seed, so that a call is reproducible.
        spec: names and shapes of what a row holds, for rules that look at layers.
        probe: for rules that ask models for outputs.
    """

    round: int = 0
    clients: tuple[int, ...] = ()
    weights: Tensor | None = None
    model: Tensor | None = None
    root_update: Tensor | None = None
    momentum: Tensor | None = None
    state: Mapping[str, Tensor] = field(default_factory=dict)
    generator: torch.Generator | None = None
    spec: ParamSpec | None = None
    probe: Probe | None = None

    def numpy_generator(self) -> np.random.Generator:
        """A numpy generator seeded by one draw from `generator`, which moves on by it."""
        source = torch.Generator().manual_seed(0) if self.generator is None else self.generator
        return np.random.default_rng(int(torch.randint(2**62, (), generator=source)))

    def normal(self, size: int, std: float) -> Tensor:
        """`[size]` float64 draws from N(0, std^2)."""
        return torch.from_numpy(self.numpy_generator().normal(0.0, std, size))

    def take(self, kept: Tensor) -> "RoundContext":
        """The context of the rows where `kept` (`[n]` bool) holds, in which every row has an id."""
        ids = self.clients if self.clients else tuple(range(len(kept)))
        clients = tuple(client for client, keep in zip(ids, kept.tolist(), strict=True) if keep)
        return replace(self, clients=clients, weights=None if self.weights is None else self.weights[kept])


@dataclass(frozen=True, eq=False)
class Aggregate:
    """What an aggregator returns.

    Attributes:
        vector: `[D]`, the aggregated delta.
        weights: `[n]`, the share of each row in it, or None where rows have none.
        scores: `[n]`, how suspicious each row is (higher is more; infinite for rows that are not finite), or None.
        flagged: `[n]` bool, rows left out as malicious, or None where a rule accuses nobody.
        diagnostics: scalars for the metrics.
        state: what the rule wants to see next round as `RoundContext.state`.
        event: why there is nothing to aggregate, so that `vector` is zero; or None.
    """

    vector: Tensor
    weights: Tensor | None = None
    scores: Tensor | None = None
    flagged: Tensor | None = None
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Tensor] = field(default_factory=dict)
    event: str | None = None


class Aggregator(Protocol):
    """Anything that turns updates `[n, D]` into one, such as a `Rule`; updates are never modified."""

    def __call__(self, updates: Matrix, context: RoundContext = ...) -> Aggregate:
        """Aggregate the rows."""
        ...


@dataclass(frozen=True)
class Requires:
    """What a rule needs, so that what cannot work is refused before any client does.

    Attributes:
        rows: its bound on n in words, such as `n > 2 f`; `Rule.least_rows` is the same as a number.
        context: fields of `RoundContext` that must be given.
        history: whether it follows clients by id over the rounds, so that every row must be one client's.
        signs: whether it counts signs: coin flips once noise of an update's own size is added.
        weights: whether `RoundContext.weights` changes its result.
    """

    rows: str = "n >= 1"
    context: tuple[str, ...] = ()
    history: bool = False
    signs: bool = False
    weights: bool = False


REMEDIES = {
    "model": "pass RoundContext(model=...), the parameters that clients started from",
    "root_update": "pass RoundContext(root_update=...), the server's own update on data it trusts",
    "spec": "pass RoundContext(spec=...), the ParamSpec of the rows",
    "probe": "pass RoundContext(probe=...), by which the rule asks models for outputs",
}
"""Field of `RoundContext` -> what to do where it is missing."""


class Bounded:
    """A component with a lowest number of rows that may depend on its parameters."""

    name: ClassVar[str] = ""
    requires: ClassVar[Requires] = Requires()

    def least_rows(self) -> int:
        """The lowest n it works on."""
        return 1

    def check_rows(self, n: int) -> None:
        """Refuse too few rows.

        Raises:
            NotEnoughUpdates: names f, n, the bound and what to do.
        """
        least = self.least_rows()
        if n >= least:
            return
        name = self.name or type(self).__name__
        setting, remedy = "", ""
        f = getattr(self, "f", None)
        if isinstance(f, int):
            setting = f".f = {f}"
            fits = [g for g in range(f) if replace(self, f=g).least_rows() <= n]  # type: ignore[type-var]
            remedy = f"Set f to at most {max(fits)}, or have" if fits else "Have"
        raise NotEnoughUpdates(
            f"{name}{setting} with n = {n} updates: {self.requires.rows} is needed. "
            f"{remedy or 'Have'} at least {least} updates a round"
        )


class Rule(Bounded, ABC):
    """An aggregation rule: a frozen dataclass of parameters with one method, `aggregate`."""

    @abstractmethod
    def aggregate(self, rows: Rows, context: RoundContext) -> Aggregate:
        """Aggregate finite rows, at least `least_rows()` of them; every row has its id in `context.clients`."""

    def __call__(self, updates: Matrix | Rows, context: RoundContext = RoundContext()) -> Aggregate:
        """Aggregate `[n, D]` updates, which are never modified.

        Rows that hold NaN or infinite values are left out and flagged; where none is left the vector is zero and
        `event` says why.

        Raises:
            ValueError: not a matrix of floating-point numbers, without rows, or ids or weights that are not n.
            NotEnoughUpdates: fewer finite rows than the rule's bound.
            NotApplicable: something in the context that the rule needs is missing.
        """
        rows = updates if isinstance(updates, Rows) else Rows.of(updates)
        _check_lengths(rows.n, context)
        for needed in self.requires.context:
            if getattr(context, needed) is None:
                raise NotApplicable(f"{self.name or type(self).__name__} needs {needed}: {REMEDIES[needed]}")
        finite = rows.finite
        context = context.take(finite)
        if not finite.any():
            return nothing(rows, f"all {rows.n} updates hold NaN or infinite values", state=context.state)
        kept = rows if finite.all() else Rows(rows.matrix[finite])
        self.check_rows(kept.n)
        return _spread(self.aggregate(kept, context), finite)


def nothing(
    rows: Rows, event: str, scores: Tensor | None = None, state: Mapping[str, Tensor] | None = None
) -> Aggregate:
    """The zero vector, all rows flagged, and why."""
    return Aggregate(
        vector=torch.zeros(rows.size, dtype=rows.matrix.dtype),
        weights=torch.zeros(rows.n, dtype=torch.float64),
        scores=scores,
        flagged=torch.ones(rows.n, dtype=torch.bool),
        state=state or {},
        event=event,
    )


def selection(
    rows: Rows,
    kept: Tensor,
    scores: Tensor | None = None,
    *,
    factors: Tensor | None = None,
    diagnostics: Mapping[str, Any] | None = None,
    state: Mapping[str, Tensor] | None = None,
    reason: str = "the rule kept no update",
) -> Aggregate:
    """The mean of the kept rows, each scaled by its factor; all others are flagged.

    Args:
        kept: `[n]` bool.
        factors: `[n]`, such as clipping factors; None for ones.
        reason: the event where nothing is kept.
    """
    if not kept.any():
        return nothing(rows, reason, scores, state)
    weights = kept.to(torch.float64) / kept.sum()
    if factors is not None:
        weights = weights * factors
    return Aggregate(
        rows.weighted_sum(weights), weights, scores, ~kept, diagnostics=diagnostics or {}, state=state or {}
    )


def _check_lengths(n: int, context: RoundContext) -> None:
    if n == 0:
        raise ValueError("no updates to aggregate")
    for what, given in (("clients", context.clients or None), ("weights", context.weights)):
        if given is not None and len(given) != n:
            raise ValueError(f"{len(given)} {what} for {n} updates")


def _spread(found: Aggregate, finite: Tensor) -> Aggregate:
    """The result over all rows: those that were not finite have no weight, and are flagged."""
    if finite.all():
        return found

    def over(values: Tensor | None, rest: float) -> Tensor | None:
        if values is None:
            return None
        spread = torch.full((len(finite),), rest, dtype=values.dtype)
        spread[finite] = values
        return spread

    flagged = over(found.flagged, True)
    diagnostics = {**found.diagnostics, "not-finite": int((~finite).sum())}
    return dataclasses.replace(
        found,
        weights=over(found.weights, 0.0),
        scores=over(found.scores, torch.inf),
        flagged=~finite if flagged is None else flagged,
        diagnostics=diagnostics,
    )
