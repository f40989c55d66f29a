"""What explains a run's model on episodes of test clients: influence, movement by layer, saliency."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from fedmeta.explain.influence import explain_support, relative_shares
from fedmeta.explain.movement import LayerChange, layer_changes, mean_changes
from fedmeta.explain.saliency import explain_query
from fedmeta.learners.functional import ways_of
from fedmeta.params import Params
from fedmeta.seeding import SERVER, torch_generator
from fedmeta.tasks import Episode
from fedmeta.workload import Workload

SUPPORTS, QUERIES = 25, 5
"""So many examples are drawn; the figures of all are kept."""


def influence_section(workload: Workload, params: Params, episode: Episode, client: str) -> dict[str, Any]:
    """Which support examples drove the predictions of one episode, with what is needed to draw it.

    Raises:
        ValueError: a support of one example, or tasks of another kind.
    """
    learner, ways = workload.learner, ways_of(episode)
    _check(workload, episode)
    found = explain_support(learner, params, episode.support, ways, episode.query.x)
    supports = _first_of_each(episode.support.y, SUPPORTS)
    queries = _first_of_each(episode.query.y, QUERIES)
    section = {
        "client": client,
        "method": found.method,
        "kind": learner.task.kind,
        "steps": learner.default_steps,
        "values": found.values,
        "slots": found.slots,
        "outputs": found.outputs,
        "support_y": episode.support.y,
        "query_y": episode.query.y,
        "shown_supports": supports,
        "shown_queries": queries,
        "support_x": _drawn(episode.support.x, supports, workload),
        "query_x": _drawn(episode.query.x, queries, workload),
    }
    if found.shares is not None:
        section["shares"] = found.shares
        section["relative_shares"] = relative_shares(found.shares, episode.support.y, ways)
    return section


def layers_section(workload: Workload, params: Params, episodes: list[Episode]) -> dict[str, Any]:
    """How far each layer moves in adaptation and whether its outputs on the queries change: means over episodes.

    Raises:
        ValueError: adaptation that moves no weights, or draws them.
    """
    learner = workload.learner
    _check(workload, episodes[0])
    names = [name for name, _ in learner.model.named_parameters()]
    generator = torch_generator(workload.experiment.evaluation.seed, 0, SERVER, "random pairings")
    found: list[list[LayerChange]] = []
    for episode in episodes:
        steps = sorted({0, learner.default_steps})
        states = list(learner.trajectory(params, episode.support, ways_of(episode), steps))
        before, after = (_weights(state, names) for state in (states[0], states[-1]))
        if any(before[name].dim() != params[name].dim() for name in names):
            raise ValueError("the learner adapts a distribution of weights, which is not one network before and after")
        found.append(layer_changes(learner.model, before, after, episode.query.x, generator))
    return {
        "episodes": len(episodes),
        "steps": learner.default_steps,
        "inputs": len(episodes[0].query.y),
        "layers": [asdict(change) for change in mean_changes(found)],
    }


def saliency_section(workload: Workload, params: Params, episode: Episode, client: str) -> dict[str, Any]:
    """Which pixels speak for the answers to a few queries of one episode.

    Raises:
        ValueError: inputs that are no pictures of classes.
    """
    learner, query = workload.learner, episode.query
    _check(workload, episode)
    if learner.task.kind != "classification" or query.x.dim() != 4 or ways_of(episode) < 2:
        raise ValueError("saliency is drawn on pictures of two classes or more")
    adapted = learner.adapt(params, episode.support, ways_of(episode))
    found = []
    for row in _first_of_each(query.y, QUERIES):
        one = explain_query(learner, adapted, query.x, row)
        found.append({**asdict(one), "map": _rounded(one.map.sum(dim=0)), "true": int(query.y[row])})
    rows = _first_of_each(query.y, QUERIES)
    return {
        "client": client,
        "steps": learner.default_steps,
        "queries": found,
        "query_x": _drawn(query.x, rows, workload),
    }


def _check(workload: Workload, episode: Episode) -> None:
    kind = workload.learner.task.kind
    if kind not in ("classification", "regression") or not isinstance(episode.support.x, Tensor):
        raise ValueError(
            f"only examples with classes or numbers are explained, one tensor each, not tasks of kind {kind}"
        )


def _weights(state: Any, names: list[str]) -> Params:
    if not isinstance(state, Mapping) or any(name not in state for name in names):
        raise ValueError("adaptation moves no weight of the network: every layer says the same before and after")
    return {name: state[name] for name in names}


def _first_of_each(y: Tensor, count: int) -> list[int]:
    """Rows of the first examples of each class in turn, at most `count`; evenly spread ones where there are no classes.

    In the order of classes, so that examples of a class stand together.
    """
    if y.is_floating_point():
        return sorted({round(place) for place in torch.linspace(0, len(y) - 1, min(count, len(y))).tolist()})
    rows = {int(slot): torch.nonzero(y == slot).flatten().tolist() for slot in y.unique()}
    taken: list[tuple[int, int]] = []
    for turn in range(max(map(len, rows.values()))):
        taken += [(slot, own[turn]) for slot, own in rows.items() if turn < len(own)]
    return [row for _, row in sorted(taken[:count])]


def _drawn(x: Tensor, rows: list[int], workload: Workload) -> list[Any]:
    """The inputs of some rows, rounded for a file: pictures by their first channel, of vectors the first numbers.

    Codes are told as text where the data set can; else an item by its number, and several codes, which mean nothing to
    a reader, by their row.
    """
    chosen = x[torch.tensor(rows)]
    if not x.is_floating_point():
        read = getattr(workload.spec_of_data, "words", None)
        if read is not None:
            return [[read(one)] for one in chosen]
        return [[str(int(one)) if one.numel() == 1 else f"#{row}"] for row, one in zip(rows, chosen, strict=True)]
    return list(_rounded(chosen[:, 0] if chosen.dim() == 4 else chosen.flatten(start_dim=1)[:, :8]))


def _rounded(values: Tensor) -> Any:
    """Nested lists with four decimals."""

    def shorter(nest: Any) -> Any:
        return [shorter(inner) for inner in nest] if isinstance(nest, list) else round(nest, 4)

    return shorter(values.tolist())
