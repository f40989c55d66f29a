"""What explains a round: a map of its clients, why some were flagged, and what each was worth."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedmeta.errors import FedmetaError
from fedmeta.evaluation import evaluate
from fedmeta.explain.directions import direction_map
from fedmeta.explain.layers import layer_columns, layer_names
from fedmeta.explain.score_shares import score_shares
from fedmeta.explain.worth import Remembered, leave_one_out, shapley
from fedmeta.seeding import SERVER, derive, torch_generator
from fedmeta.tasks import Episode
from fedmeta.workload import Workload
from simulations.stage import Played, Stage
from strategies.configurations import settled_workload

ACCUSED = 6
"""Of so many clients at most the score is taken apart."""


class NothingToSee(FedmetaError):
    """A part of the explanation that this run cannot have, and why."""


def map_section(stage: Stage, played: Played) -> dict[str, Any]:
    """Where the clients of a round lie by the directions of their updates, who was flagged, and who is malicious.

    Raises:
        NothingToSee: fewer than two updates.
    """
    if len(played.clients) < 2:
        raise NothingToSee(f"{len(played.clients)} updates came in round {played.round}: a map needs two")
    found = direction_map(played.matrix)
    flagged = played.report.defence.get("flagged")
    names = {member.client: member.name for member in stage.strategy.directory.members}
    attackers = played.report.attackers
    return {
        "round": played.round,
        "parameters": played.matrix.shape[1],
        "explained": found.explained,
        "aggregator": stage.workload.experiment.server.aggregator.name,
        "accuses": flagged is not None,
        "attacked": attackers is not None,
        "clients": [
            {
                "client": client,
                "name": names[client],
                "x": point[0],
                "y": point[1],
                "norm": norm,
                "flagged": client in (flagged or ()),
                "malicious": client in (attackers or ()),
            }
            for client, point, norm in zip(
                played.clients, found.points.tolist(), played.matrix.norm(dim=1).tolist(), strict=True
            )
        ],
    }


def flags_section(stage: Stage, played: Played) -> dict[str, Any]:
    """The share of each layer in the scores of the flagged clients, else of the three most suspicious ones.

    Raises:
        NothingToSee: an aggregator that scores nobody.
    """
    experiment = stage.workload.experiment
    said = played.report.defence
    if played.context is None:
        raise NothingToSee("with central noise there is no rule that scores clients")
    scores = {int(client): float(score) for client, score in said.get("scores", {}).items()}
    if not scores:
        raise NothingToSee(f"server.aggregator = '{experiment.server.aggregator.name}' gives clients no score")
    flagged = said.get("flagged") or []
    ranked = sorted(scores, key=lambda client: -scores[client])
    chosen = [client for client in ranked if client in flagged][:ACCUSED] or ranked[:3]
    columns = layer_columns(stage.workload.spec, layer_names(stage.workload.learner.model))
    context = played.context

    def score(rows: Tensor) -> Tensor:
        # A fresh generator, so that ties and buckets are drawn as they were.
        generator = torch_generator(stage.strategy.experiment.seed, played.round, SERVER, "aggregation")
        found = stage.strategy.aggregation.judged(rows, replace(context, generator=generator)).scores
        assert found is not None
        return found

    explained = []
    for client in chosen:
        one = score_shares(played.matrix, played.clients.index(client), columns, score)
        explained.append(
            {
                "client": client,
                "flagged": client in flagged,
                "malicious": client in (played.report.attackers or ()),
                "score": one.score,
                "ordinary": one.ordinary,
                "layers": one.layers,
                "errors": one.errors,
                "shares": one.shares,
            }
        )
    return {
        "round": played.round,
        "aggregator": experiment.server.aggregator.name,
        "median_score": float(np.median(list(scores.values()))),
        "flagged": len(flagged),
        "sizes": {layer: len(own) for layer, own in columns.items()},
        "clients": explained,
    }


def worth_section(stage: Stage, played: Played, episodes: int, permutations: int) -> dict[str, Any]:
    """What each client's update is worth: by how much it lowers the validation clients' loss after adaptation.

    v(S) is minus the loss of the model that the server's optimiser makes of the mean over the updates of S alone,
    whatever the run's aggregator is; nobody's mean is zero. One round only (Wang et al. 2020).

    Raises:
        NothingToSee: no validation client, no update, or updates of parts of the model.
    """
    workload, players = stage.workload, len(played.clients)
    if stage.strategy.aggregation.holdings is not None:
        raise NothingToSee("some clients train parts of the model only: a mean over some clients may lack a part")
    settled = settled_workload(workload, stage.strategy.state())
    judged = validation_episodes(workload, episodes)
    if not players:
        raise NothingToSee(f"no update came in round {played.round}")

    def value(coalition: frozenset[int]) -> float:
        kept = torch.tensor(sorted(coalition), dtype=torch.int64)
        weights = played.weights[kept]
        aggregate = torch.zeros(played.matrix.shape[1])
        if len(kept) and float(weights.sum()) > 0:
            aggregate = ((weights / weights.sum()).to(played.matrix.dtype) @ played.matrix[kept]).float()
        return -validation_loss(settled, stage.moved(played, aggregate), judged)

    known = Remembered(value)
    alone = leave_one_out(players, known)
    rng = np.random.default_rng(derive(workload.experiment.seed, played.round, SERVER, "orders of clients"))
    found = shapley(players, known, permutations, rng)
    attackers, flagged = played.report.attackers or (), played.report.defence.get("flagged") or ()
    return {
        "round": played.round,
        "episodes": len(judged),
        "loss_without": -known(frozenset()),
        "loss_with_all": -known(frozenset(range(players))),
        "evaluations": known.asked,
        "permutations": found.permutations,
        "truncated": found.truncated,
        "clients": [
            {
                "client": client,
                "leave_one_out": float(alone[row]),
                "shapley": float(found.values[row]),
                "error": float(found.errors[row]),
                "flagged": client in flagged,
                "malicious": client in attackers,
            }
            for row, client in enumerate(played.clients)
        ],
    }


def validation_episodes(workload: Workload, count: int) -> list[Episode]:
    """About `count` frozen episodes, as many of each validation client.

    Raises:
        NothingToSee: there is none.
    """
    clients = [info.id for info in workload.federation.clients if info.role == "validation"]
    if not clients:
        raise NothingToSee("there is no validation client: set partition.validation_clients")
    each = max(1, count // len(clients))
    return [episode for client in clients for episode in workload.frozen_episodes(client, each)]


def validation_loss(workload: Workload, vector: Tensor, episodes: list[Episode]) -> float:
    """The mean query loss after the learner's own number of steps; a million where the model is no longer finite."""
    spec = workload.spec
    own = spec.unflatten(workload.first_personal(vector), "personal")
    params = {**workload.initial, **spec.unflatten(vector), **own}
    found = evaluate(workload.learner, params, episodes, (workload.learner.default_steps,))
    loss = float(found.loss.mean())
    return loss if np.isfinite(loss) else 1e6
