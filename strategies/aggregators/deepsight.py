"""DeepSight (Rieger et al., NDSS 2022, section IV)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedmeta.parameters import parameter
from strategies.aggregation import Aggregate, NotApplicable, Requires, RoundContext, Rule, selection
from strategies.clustering import hdbscan, need_sklearn
from strategies.rows import Rows, as_cosines, clip_factors, median

BATCH = 500
"""Noise inputs that a model answers at once."""


@dataclass(frozen=True)
class DeepSight(Rule):
    """Look at what the last layer's update says about a client's labels, and drop clusters with many suspects.

    NEUP_p ~ (|db_p| + sum_h |dW_ph|)^2, normalised; TE = number of p with NEUP_p > max(0.01, 1/P) max NEUP; a client is
    a suspect where TE <= median / 2: it trained on few labels. Clients are clustered by the cosines of their bias
    updates, by NEUP and by DDif (how a local model answers noise, against the global one), each by HDBSCAN; the mean of
    "in other clusters" over the three is clustered once more. A cluster is accepted where less than a third are
    suspects; a client in no cluster is its own. The accepted are clipped to the median norm, and averaged.

    It needs a head whose outputs mean the same for all clients. An embedding has none, and where classes get slots by
    chance an honest client's NEUP is as flat as an attacker's: both are refused.
    """

    name: ClassVar[str] = "deepsight"
    requires: ClassVar[Requires] = Requires(rows="n >= 2", context=("model", "spec", "probe"))

    head: tuple[str, ...] = parameter(doc="the last layer's entries: its weight `[P, H]` and its bias `[P]`")
    samples: int = parameter(20_000, doc="noise inputs of one DDif", ge=1, unit="inputs")
    seeds: int = parameter(3, doc="noise samples, whose DDifs are clustered apart", ge=1)

    @staticmethod
    def check_together(values: Mapping[str, Any], where: str) -> None:
        """Refuse it where there is nothing to cluster with."""
        need_sklearn(where)

    def least_rows(self) -> int:
        """n >= 2."""
        return 2

    def aggregate(self, rows: Rows, context: RoundContext) -> Aggregate:
        """The mean of accepted, clipped rows. Scores: minus TE, so that few trained labels look suspicious."""
        assert context.probe is not None
        if not context.probe.fixed_slots:
            raise NotApplicable(
                "deepsight needs outputs that mean the same for every client, and here classes get their slots by "
                "chance, or there is no head: set task.kind = 'own' with a learner that has a head, or use another rule"
            )
        weight, bias = _head_updates(rows, context, self.head)
        energy = energies(weight, bias)
        threshold = max(0.01, 1 / energy.shape[1])
        trained = (energy > threshold * energy.max(dim=1, keepdim=True).values).sum(dim=1).to(torch.float64)
        suspect = trained <= median(trained) / 2
        labels = self._cluster(rows, context, bias, energy)
        factors = clip_factors(rows.norms, median(rows.norms))
        diagnostics = {"suspects": int(suspect.sum()), "clusters": int(labels.max()) + 1}
        reason = "DeepSight accepted no cluster"
        kept = accepted(labels, suspect)
        return selection(rows, kept, -trained, factors=factors, diagnostics=diagnostics, reason=reason)

    def _cluster(self, rows: Rows, context: RoundContext, bias: Tensor, energy: Tensor) -> Tensor:
        norms = bias.norm(dim=1)
        by_bias = apart(hdbscan(1.0 - as_cosines(bias @ bias.T, norms), 2, single=False))
        by_energy = apart(hdbscan(torch.cdist(energy, energy), 2, single=False))
        differences = division_differences(rows, context, self.samples, self.seeds)
        by_answers = torch.stack([apart(hdbscan(torch.cdist(d, d), 2, single=False)) for d in differences]).mean(dim=0)
        return hdbscan((by_bias + by_energy + by_answers) / 3, 2, single=True)


def accepted(labels: Tensor, suspect: Tensor) -> Tensor:
    """`[n]` bool: members of clusters of which less than a third are suspects; of those in no cluster, all others."""
    found = (labels == -1) & ~suspect
    for label in labels[labels >= 0].unique().tolist():
        members = labels == label
        if 3 * int(suspect[members].sum()) < int(members.sum()):
            found |= members
    return found


def energies(weight: Tensor, bias: Tensor) -> Tensor:
    """NEUP: `[n, P]`, summing to one (zeros for no update), from `[n, P, H]` and `[n, P]`."""
    energy = (bias.abs() + weight.abs().sum(dim=2)).square()
    return energy / energy.sum(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)


def division_differences(rows: Rows, context: RoundContext, samples: int, seeds: int) -> list[Tensor]:
    """DDif: per seed `[n, P]`, the mean over noise inputs of local over global probabilities.

    A model so far off that its outputs are no numbers gives every class the probability 0.
    """
    assert context.probe is not None and context.model is not None
    draws, found = context.numpy_generator(), []
    for _ in range(seeds):
        total: Tensor | float = 0.0
        for start in range(0, samples, BATCH):
            shape = (min(BATCH, samples - start), *context.probe.input_shape)
            inputs = torch.from_numpy(draws.random(shape, dtype="float32"))
            before = context.probe.probabilities(context.model, inputs).to(torch.float64).clamp_min(1e-12)
            ratios = [
                (context.probe.probabilities(context.model + row, inputs).nan_to_num().double() / before).sum(dim=0)
                for row in rows.matrix.to(context.model.dtype)
            ]
            total = total + torch.stack(ratios)
        found.append(torch.as_tensor(total) / samples)
    return found


def apart(labels: Tensor) -> Tensor:
    """`[n, n]`: 0 for clients of one cluster, else 1; a client in no cluster is apart from all others."""
    together = (labels[:, None] == labels[None, :]) & (labels[:, None] >= 0)
    return 1.0 - together.to(torch.float64).fill_diagonal_(1.0)


def _head_updates(rows: Rows, context: RoundContext, head: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """The last layer's updates `[n, P, H]` and `[n, P]`, float64."""
    assert context.spec is not None
    entries = context.spec.unflatten(rows.matrix)
    missing = [name for name in head if name not in entries]
    shapes = {name: entries[name].dim() for name in head if name in entries}
    if missing or sorted(shapes.values()) != [2, 3]:
        raise NotApplicable(
            f"deepsight.head = {list(head)} must name a shared weight [P, H] and a shared bias [P], of {list(entries)}"
        )
    by_dim = {dim: entries[name].to(torch.float64) for name, dim in shapes.items()}
    return by_dim[3], by_dim[2]
