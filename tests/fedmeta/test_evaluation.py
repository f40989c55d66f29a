"""Evaluation: shapes, the numbers themselves, the nearest-neighbour baseline."""

import pytest
import torch
from torch import nn

from fedmeta.evaluation import evaluate, judge_baseline, nearest_neighbour
from fedmeta.learners import make_learner
from fedmeta.models import make_model
from fedmeta.models.network import Network
from fedmeta.tasks import TASKS, Batch, Episode

torch.set_num_threads(1)


def episode(seed, queries=2, noise=0.1):
    """Three classes around three corners, so that the nearest example is of the right class."""
    generator = torch.Generator().manual_seed(seed)
    corners = 3 * torch.eye(3)

    def batch(each):
        y = torch.arange(3).repeat(each)
        return Batch(corners[y] + noise * torch.randn(len(y), 3, generator=generator), y)

    return Episode(batch(2), batch(queries), torch.arange(3))


def test_scores_of_every_step_and_episode():
    learner = make_learner("maml", make_model("mlp", input_shape=(3,), hidden=(8,), ways=3, normalisation="none"))
    params = learner.init(torch.Generator().manual_seed(0))
    tasks = [episode(seed) for seed in range(4)]
    result = evaluate(learner, params, tasks, (0, 2, 5), "loop")
    assert result.steps == (0, 2, 5) and result.loss.shape == result.score.shape == (3, 4)
    for row, steps in enumerate(result.steps):
        for column, task in enumerate(tasks):
            output = learner.predict(learner.adapt(params, task.support, 3, steps), task.query.x)
            torch.testing.assert_close(result.loss[row, column], learner.task.loss(output, task.query.y))
            assert result.score[row, column] == learner.task.score(output, task.query.y)
    assert not result.loss.requires_grad
    assert result.loss[2].mean() < result.loss[0].mean()


def test_protonet_before_and_after_the_support():
    learner = make_learner("protonet", Network(nn.Linear(3, 3, bias=False), None))
    result = evaluate(learner, {"body.weight": torch.eye(3)}, [episode(0), episode(1)], (0, 1, 7))
    assert result.score[0].tolist() == pytest.approx([1 / 3, 1 / 3])
    assert result.score[1:].tolist() == [[1, 1], [1, 1]]


def test_unequal_episodes_are_looped_over():
    learner = make_learner("protonet", Network(nn.Linear(3, 3, bias=False), None))
    result = evaluate(learner, {"body.weight": torch.eye(3)}, [episode(0, queries=1), episode(1, queries=4)], (1,))
    assert result.score.tolist() == [[1, 1]]


def test_chunks_do_not_matter():
    learner = make_learner("fomaml", make_model("mlp", input_shape=(3,), hidden=(8,), ways=3))
    params = learner.init(torch.Generator().manual_seed(0))
    tasks = [episode(seed) for seed in range(5)]
    whole, parts = (evaluate(learner, params, tasks, (1,), "vmap", chunk) for chunk in (None, 2))
    torch.testing.assert_close(whole.loss, parts.loss)


@pytest.mark.parametrize("steps", [(), (1, 0), (1, 1), (-1, 0)])
def test_steps_must_ascend(steps):
    learner = make_learner("maml", make_model("mlp", input_shape=(3,), hidden=(8,), ways=3))
    with pytest.raises(ValueError, match="must ascend"):
        evaluate(learner, learner.init(torch.Generator().manual_seed(0)), [episode(0)], steps)


def test_no_episodes():
    learner = make_learner("maml", make_model("mlp", input_shape=(3,), hidden=(8,), ways=3))
    with pytest.raises(ValueError, match="no episode"):
        evaluate(learner, learner.init(torch.Generator().manual_seed(0)), [], (0,))


def neighbours_accuracy(task: Episode) -> float:
    return judge_baseline(nearest_neighbour, TASKS["classification"], [task])["accuracy"][0]


def test_nearest_neighbour():
    assert neighbours_accuracy(episode(0)) == 1.0
    task = episode(0)
    shifted = task._replace(query=Batch(task.query.x, (task.query.y + 1) % 3))
    assert neighbours_accuracy(shifted) == 0.0
    flat = task._replace(support=Batch(torch.zeros_like(task.support.x), task.support.y))
    assert neighbours_accuracy(flat) == pytest.approx(1 / 3)  # all equally near: the first support example decides
