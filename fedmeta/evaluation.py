"""Judging meta-parameters: adapt to episodes that were never trained on, and score their queries."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fedmeta.calibration import BINS, brier, count_bins
from fedmeta.execution import Execution, TaskFunction, over_tasks, resolve, stackable, to_device
from fedmeta.learners.base import MetaLearner
from fedmeta.learners.functional import ways_of
from fedmeta.memory import available_bytes, fitting_tasks
from fedmeta.params import Params
from fedmeta.tasks import Baseline, Episode, Task


class EpisodeScores(NamedTuple):
    """Every episode by itself, so that intervals can be taken over episodes, clients or both.

    Attributes:
        steps: adaptation steps, ascending.
        loss: `[len(steps), episodes]`, mean loss over an episode's queries.
        score: `[len(steps), episodes]`, the task's score: accuracy in [0, 1], or mean squared error.
        brier: `[len(steps), episodes]`, the Brier score of an episode's queries; empty `[0, episodes]` in regression.
        bins: `[len(steps), 3, BINS]`, confidence against accuracy over all episodes together
            (`fedmeta.calibration.count_bins`); empty `[0, 3, BINS]` in regression.
        measures: what the task measures beside its score: name -> `[len(steps), episodes]`.
    """

    steps: tuple[int, ...]
    loss: Tensor
    score: Tensor
    brier: Tensor
    bins: Tensor
    measures: Mapping[str, Tensor] = MappingProxyType({})


def evaluate(
    learner: MetaLearner,
    params: Params,
    episodes: Sequence[Episode],
    steps: Sequence[int],
    execution: Execution = "auto",
    chunk_size: int | Literal["auto"] | None = None,
) -> EpisodeScores:
    """Adapt to each episode's support, and judge its query after each number of steps; no outer graph is built.

    With a network of batch statistics (`model.transductive`) all queries of an episode are seen together.

    Args:
        learner: whose `trajectory` and `predict` are used.
        params: meta-parameters, the learner's own beside the network's.
        episodes: at least one.
        steps: ascending numbers of adaptation steps; 0 is before adaptation.
        execution: `auto` loops over episodes of unequal shapes.
        chunk_size: episodes batched at once under vmap; None for all, `auto` for as many as memory holds.

    Raises:
        ValueError: no episodes, or steps that do not ascend from 0 or more.
    """
    if not episodes:
        raise ValueError("there is no episode to evaluate on")
    if not steps or steps[0] < 0 or list(steps) != sorted(set(steps)):
        raise ValueError(f"steps {list(steps)} must ascend from 0 or more without repeats")

    classes, beside = learner.task.kind == "classification", learner.task.measures

    def judge(params: Params, episode: Episode) -> tuple[Tensor, ...]:
        found = []
        for adapted in learner.trajectory(params, episode.support, ways_of(episode), steps):
            output, y = learner.predict(adapted, episode.query.x), episode.query.y
            judged = (learner.task.loss, learner.task.score, *beside.values())
            figures = tuple(figure(output, y) for figure in judged)
            found.append((*figures, brier(output, y), count_bins(output, y)) if classes else figures)
        return tuple(torch.stack(column) for column in zip(*found, strict=True))

    way = resolve(execution, learner.model, next(iter(params.values())).device)
    if execution == "auto" and not stackable(episodes):
        way = "loop"
    with torch.no_grad():
        if chunk_size == "auto":
            chunk_size = fitting_episodes(judge, params, episodes[0]) if way == "vmap" else None
        loss, score, *rest = over_tasks(judge, params, episodes, way, chunk_size)
    measures = {name: found.T for name, found in zip(beside, rest, strict=False)}
    if not classes:
        return EpisodeScores(tuple(steps), loss.T, score.T, loss.T[:0], loss.new_zeros((0, 3, BINS)), measures)
    briers, bins = rest[len(beside) :]
    return EpisodeScores(tuple(steps), loss.T, score.T, briers.T, bins.double().sum(dim=0), measures)


def judge_baseline(baseline: Baseline, task: Task, episodes: Sequence[Episode]) -> dict[str, list[float]]:
    """The score of every episode, and whatever else the task measures, by name."""
    figures = {task.score_name: task.score, **task.measures}
    outputs = [baseline(episode) for episode in episodes]
    return {
        name: [float(figure(output, episode.query.y)) for output, episode in zip(outputs, episodes, strict=True)]
        for name, figure in figures.items()
    }


def fitting_episodes(judge: TaskFunction, params: Params, episode: Episode) -> int:
    """How many episodes like this one memory holds at once, by what judging it keeps."""
    device = next(iter(params.values())).device
    return fitting_tasks(lambda: judge(params, to_device(episode, device)), available_bytes(device))


def nearest_neighbour(episode: Episode) -> Tensor:
    """The baseline that learns nothing: each query takes the label of its nearest support example by raw pixels.

    Euclidean distance; ties go to the first support example.

    Returns:
        `[queries, ways]`, 1 for the label and 0 elsewhere.
    """
    distances = torch.cdist(episode.query.x.flatten(1), episode.support.x.flatten(1))
    return nearest_labels(-distances, episode)


def nearest_labels(similarities: Tensor, episode: Episode) -> Tensor:
    """`[queries, support examples]`, the more the nearer, to the labels of the nearest as `[queries, ways]`.

    Ties go to the first support example.
    """
    return F.one_hot(episode.support.y[similarities.argmax(dim=1)], ways_of(episode)).double()
