"""Clients whose data train a part of the model only: every entry is aggregated over those who hold it.

A plain mean would count an encoder's entries as not moved by everybody who has no data for it, and so shrink its step
to the share of those who have. Here the flat vector falls into parts, each held by the same clients, and a rule sees
every part with its holders alone. What a client says of entries that it lacks is dropped, whatever it says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedmeta.errors import ConfigurationError
from fedmeta.experiment import Experiment
from fedmeta.params import ParamSpec
from strategies.aggregation import Aggregate, NotEnoughUpdates, RoundContext, Rule
from strategies.directory import Member
from strategies.pipeline import Pipeline


@dataclass(frozen=True)
class Part:
    """Elements of the flat vector that the same clients hold.

    Attributes:
        name: of its first entry, for messages.
        elements: `[k]` their places, ascending.
        lacking: the clients that do not hold them.
    """

    name: str
    elements: Tensor
    lacking: frozenset[int]


@dataclass(frozen=True)
class Holdings:
    """Who holds what.

    Attributes:
        parts: of the flat vector, which they divide.
        size: D.
        clients: all that train.
    """

    parts: tuple[Part, ...]
    size: int
    clients: tuple[int, ...]

    @classmethod
    def of(cls, spec: ParamSpec, members: Sequence[Member]) -> "Holdings | None":
        """From what each member says that it lacks; None where every one holds everything.

        Raises:
            ConfigurationError: patterns that the model does not know, or a part that no client holds.
        """
        if not any(member.lacks for member in members):
            return None
        kinds = sorted({member.lacks for member in members})
        # Two elements belong together where the same kinds of clients hold both.
        held = torch.stack([spec.holds(lacks) for lacks in kinds])
        signatures, part_of = held.unique(dim=1, return_inverse=True)
        owners = [name for entry in spec.select("shared") for name in [entry.name] * entry.size]
        parts = []
        for index, signature in enumerate(signatures.T.tolist()):
            elements = (part_of == index).nonzero().squeeze(1)
            without = {lacks for lacks, holds in zip(kinds, signature, strict=True) if not holds}
            lacking = frozenset(member.client for member in members if member.lacks in without)
            name = owners[int(elements[0])]
            if len(lacking) == len(members):
                raise ConfigurationError(
                    f"no training client has data for '{name}': it could not be trained. Freeze it (sharing.frozen), "
                    "or give some clients what it needs"
                )
            parts.append(Part(name, elements, lacking))
        return cls(tuple(parts), spec.size(), tuple(member.client for member in members))

    def check(self, experiment: Experiment, pipeline: Pipeline) -> None:
        """Refuse what has no meaning, or hides less, where clients hold parts.

        Raises:
            ConfigurationError: names the setting and the reason.
        """
        reason = why_whole(experiment, pipeline)
        if reason:
            raise ConfigurationError(reason)

    def masked(self, matrix: Tensor, clients: Sequence[int]) -> Tensor:
        """A copy of the updates `[n, D]`, zero where the client of a row lacks the element."""
        kept = matrix.clone()
        for part in self.parts:
            rows = [row for row, client in enumerate(clients) if client in part.lacking]
            if rows:
                kept[torch.tensor(rows)[:, None], part.elements] = 0.0
        return kept

    @property
    def share(self) -> Tensor:
        """`[D]` float64, the share of the training clients that hold each element, in (0, 1]."""
        shares = torch.empty(self.size, dtype=torch.float64)
        for part in self.parts:
            shares[part.elements] = 1 - len(part.lacking) / len(self.clients)
        return shares

    def aggregate(self, rule: Rule, matrix: Tensor, context: RoundContext) -> Aggregate:
        """Every part of the updates `[n, D]` by the rule, over those of `context.clients` who hold it.

        A part that none of them holds stays as it is. Weights are the means over elements, scores the highest of any
        part; a client is flagged that is flagged in one. There is an event where no part has anything to aggregate.

        Raises:
            NotEnoughUpdates: fewer holders of a part than the rule's bound; names the part.
        """
        vector = torch.zeros(self.size, dtype=matrix.dtype)
        weights = torch.zeros(len(matrix), dtype=torch.float64)
        scores = torch.full((len(matrix),), -torch.inf, dtype=torch.float64)
        flagged = torch.zeros(len(matrix), dtype=torch.bool)
        accuses = scored = weighed = False
        facts: dict[str, object] = {}
        state: dict[str, Tensor] = {}
        events: list[str | None] = []
        for index, part in enumerate(self.parts):
            holds = torch.tensor([client not in part.lacking for client in context.clients])
            place = f"part {index}/"
            known = _of_part(context.state, place)
            seen = context.take(holds)
            if not holds.any() or (seen.weights is not None and not seen.weights.sum() > 0):
                state |= {place + key: value for key, value in known.items()}
                continue
            try:
                found = rule(matrix[holds][:, part.elements], replace(seen, state=known, spec=None, model=None))
            except NotEnoughUpdates as error:
                raise NotEnoughUpdates(f"of {int(holds.sum())} clients that hold '{part.name}': {error}") from None
            vector[part.elements] = found.vector
            events.append(found.event)
            state |= {place + key: value for key, value in found.state.items()}
            facts |= dict(found.diagnostics)
            if found.weights is not None:
                weighed = True
                weights[holds] += found.weights.to(torch.float64) * len(part.elements) / self.size
            if found.scores is not None:
                scored = True
                scores[holds] = torch.maximum(scores[holds], found.scores.to(torch.float64))
            if found.flagged is not None:
                accuses = True
                flagged[holds] |= found.flagged
        return Aggregate(
            vector,
            weights if weighed else None,  # a median has none, which is not zero for everybody
            scores if scored else None,
            flagged if accuses else None,
            diagnostics=facts,
            state=state,
            event=next(iter(events), None) if all(events) else None,
        )


def why_whole(experiment: Experiment, pipeline: Pipeline) -> str:
    """Why all clients of a run must train all of the model, with the remedy; empty where they need not."""
    if experiment.secagg.enabled:
        return (
            "secagg.enabled = true, and some clients train a part of the model only: the sum over those of a group "
            "who hold a part would hide each of them among fewer than the group promises. Switch it off, or give "
            "all clients all parts (data.owners)"
        )
    rule = pipeline.aggregator
    if isinstance(rule, Rule) and (rule.requires.context or rule.requires.history):
        why = "compares whole updates" if rule.requires.context else "follows whole updates over the rounds"
        return (
            f"server.aggregator = '{rule.name}' {why}, and some clients train a part of the model only: choose one "
            "that needs the updates alone, such as mean, median, trimmed_mean, geometric_median or krum"
        )
    return ""


def misfits(spec: ParamSpec, members: Sequence[Member], experiment: Experiment, pipeline: Pipeline) -> dict[int, str]:
    """Node id -> why, of members whose own words about what they lack leave them no place in a run.

    They lack what this model does not share, or all of it, or a part where all must train the whole. What one node
    says must cost that node, and not the run of the others.
    """
    found = {}
    whole = why_whole(experiment, pipeline)
    for member in members:
        reason = whole if member.lacks else ""
        try:
            spec.holds(member.lacks)
        except ConfigurationError as error:
            reason = str(error)
        if reason:
            found[member.node] = reason
    return found


def _of_part(state: Mapping[str, Tensor], place: str) -> dict[str, Tensor]:
    return {key.removeprefix(place): value for key, value in state.items() if key.startswith(place)}
