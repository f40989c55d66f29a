"""FLDetector (Zhang et al., KDD 2022, algorithms 1 to 3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedmeta.parameters import parameter
from strategies.aggregation import Aggregate, Requires, RoundContext, Rule, selection
from strategies.clustering import gap_clusters, split_line
from strategies.lbfgs import hessian_times
from strategies.rows import Rows

State = Mapping[str, Tensor]

MOST_CLUSTERS = 10
"""As in the authors' code."""


@dataclass(frozen=True)
class FLDetector(Rule):
    """Flag clients whose updates do not follow from their own last ones.

    Predicted is g_i = g_i(last) + H (theta - theta(last)), where *last* is the client's own last round and H comes by
    L-BFGS from the last `window` global steps; in a round the distances to what came are divided by their sum. A
    client's score is its mean over its last `window` distances. Among the clients with `window` of them, where the gap
    statistic finds more than one cluster of scores, the one with the higher mean of two is flagged; clients with fewer
    rounds are not judged. An update u is taken as a negative gradient. The paper ends training when it has flagged;
    here the flagged are left out of the mean.
    """

    name: ClassVar[str] = "fldetector"
    requires: ClassVar[Requires] = Requires(context=("model",), history=True)

    window: int = parameter(10, doc="rounds of history, and distances in a score", ge=1, unit="rounds")

    def aggregate(self, rows: Rows, context: RoundContext) -> Aggregate:
        """The mean of the rows that are not flagged; a client without distances scores 0."""
        assert context.model is not None
        distances = self._distances(rows, context)
        judged = self._judge(distances, context)
        lengths = torch.tensor([len(line) for line in judged])
        scores = torch.stack([line.mean() if len(line) else torch.zeros((), dtype=torch.float64) for line in judged])
        flagged = self._flag(scores, lengths, context)
        found = selection(rows, ~flagged, scores, diagnostics={"judged": int((lengths == self.window).sum())})
        return Aggregate(**{**vars(found), "state": self._next_state(rows, context, judged, found.vector)})

    def _distances(self, rows: Rows, context: RoundContext) -> Tensor:
        """`[n]` distances between predicted and received updates over their sum; NaN for clients without a last one."""
        assert context.model is not None
        state = context.state
        known: dict[int, Tensor] = {}
        found = torch.full((rows.n,), torch.nan, dtype=torch.float64)
        for index, client in enumerate(context.clients):
            if f"update/{client}" not in state:
                continue
            last = int(state[f"round/{client}"])
            if last not in known:  # clients that were last seen in the same round share the product
                known[last] = self._expected_change(context.model.to(torch.float64), last, state)
            predicted = state[f"update/{client}"].to(torch.float64) - known[last]
            found[index] = (predicted - rows.matrix[index].to(torch.float64)).norm()
        total = found.nansum()
        return found / total if total > 0 else found

    def _expected_change(self, model: Tensor, last: int, state: State) -> Tensor:
        """H (theta - theta(last)), zero while there are no two global steps."""
        moved = model - state[f"model/{last}"].to(torch.float64)
        return hessian_times(state["steps"], state["changes"], moved) if "steps" in state else torch.zeros_like(moved)

    def _judge(self, distances: Tensor, context: RoundContext) -> list[Tensor]:
        """Per row the client's last distances, at most `window`, the newest last."""
        lines = []
        for client, distance in zip(context.clients, distances, strict=True):
            past = context.state.get(f"distances/{client}", torch.zeros(0, dtype=torch.float64))
            lines.append(past if distance.isnan() else torch.cat([past, distance[None]])[-self.window :])
        return lines

    def _flag(self, scores: Tensor, lengths: Tensor, context: RoundContext) -> Tensor:
        flagged = torch.zeros(len(scores), dtype=torch.bool)
        judged = torch.nonzero(lengths == self.window).flatten()
        if len(judged) < 3:
            return flagged
        values = scores[judged].numpy()
        if gap_clusters(values, MOST_CLUSTERS, context.numpy_generator()) >= 2:
            flagged[judged] = torch.from_numpy(split_line(values, 2)[0] == 1)
        return flagged

    def _next_state(self, rows: Rows, context: RoundContext, judged: list[Tensor], vector: Tensor) -> dict[str, Tensor]:
        """Global pairs for L-BFGS, and per client its last update, its round and its distances."""
        assert context.model is not None
        old, now = context.state, int(context.state["rounds"]) + 1 if "rounds" in context.state else 0
        state = dict(old)
        state |= {"rounds": torch.tensor(now), "last-model": context.model.clone(), "last-vector": vector.clone()}
        if "last-model" in old:
            # An update is a negative gradient.
            for name, new in (
                ("steps", context.model - old["last-model"]),
                ("changes", old["last-vector"] - vector),
            ):
                past = old.get(name, torch.zeros(0, rows.size, dtype=new.dtype))
                state[name] = torch.cat([past, new[None]])[-self.window :]
        for client, row, line in zip(context.clients, rows.matrix, judged, strict=True):
            state[f"update/{client}"] = row.clone()
            state[f"round/{client}"] = torch.tensor(now)
            state[f"distances/{client}"] = line
        state[f"model/{now}"] = context.model.clone()
        used = {int(value) for name, value in state.items() if name.startswith("round/")}
        return {k: v for k, v in state.items() if not k.startswith("model/") or int(k.removeprefix("model/")) in used}
