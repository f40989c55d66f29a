"""Calibration: worked examples, brute force over bins, edges, and what a summary makes of many clients."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedmeta.calibration import BINS, brier, calibration_error, count_bins
from fedmeta.evaluation import evaluate
from fedmeta.learners import make_learner
from fedmeta.models import make_model
from fedmeta.statistics import ClientScores, Evaluation, summarise
from fedmeta.tasks import Batch, Episode


def brute_force(probabilities, y):
    """Brier score and ECE, one prediction at a time, from their definitions."""
    squares, gaps = 0.0, 0.0
    held = {b: [] for b in range(BINS)}
    for row, truth in zip(probabilities, y, strict=True):
        squares += sum((p - (k == truth)) ** 2 for k, p in enumerate(row))
        confidence = max(row)
        b = next(b for b in range(BINS) if confidence <= (b + 1) / BINS or b == BINS - 1)
        held[b].append((confidence, row.index(confidence) == truth))
    for found in held.values():
        if found:
            gaps += abs(sum(c for c, _ in found) - sum(right for _, right in found))
    return squares / len(y), gaps / len(y)


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 60))
def test_against_brute_force(seed, ways, count):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, ways, generator=generator, dtype=torch.float64)
    y = torch.randint(ways, (count,), generator=generator)
    want = brute_force(logits.softmax(dim=1).tolist(), y.tolist())
    assert float(brier(logits, y)) == pytest.approx(want[0], rel=1e-12)
    bins = count_bins(logits, y)
    assert calibration_error(bins.numpy()) == pytest.approx(want[1], abs=1e-12)
    assert bins[0].sum() == count and bool((bins[2] <= bins[0]).all())


def test_a_worked_example():
    """Four answers of confidence .9, three right: gap .15; one of .6, wrong: gap .6."""
    p = torch.tensor([[0.9, 0.1]] * 4 + [[0.4, 0.6]], dtype=torch.float64)
    y = torch.tensor([0, 0, 0, 1, 0])
    assert calibration_error(count_bins(p.log(), y).numpy()) == pytest.approx((4 * 0.15 + 0.6) / 5)
    assert float(brier(p.log(), y)) == pytest.approx((3 * 2 * 0.01 + 2 * 0.81 + 2 * 0.36) / 5)


def test_edges():
    """A border belongs to the bin below it; certainty to the last; nothing at all is NaN."""
    third = count_bins(torch.tensor([[0.0, 0.0, 0.0]], dtype=torch.float64), torch.tensor([2]))
    assert third[0].argmax() == 4 and third[2].sum() == 0
    sure = count_bins(torch.tensor([[1e4, 0.0]]), torch.tensor([0]))
    assert sure[0, BINS - 1] == 1 and calibration_error(sure.numpy()) == 0
    assert math.isnan(calibration_error(np.zeros((3, BINS))))


def test_evaluation_measures_it_for_classes_and_not_for_numbers():
    generator = torch.Generator().manual_seed(0)

    def task(queries=4):
        x = torch.randn(3 + queries, 5, generator=generator)
        return Episode(Batch(x[:3], torch.arange(3)), Batch(x[3:], torch.randint(3, (queries,))), torch.arange(3))

    learner = make_learner("boil", make_model("mlp", input_shape=(5,), hidden=(6,), ways=3, normalisation="none"))
    params, tasks = learner.init(generator), [task() for _ in range(4)]
    loop, vmap = (evaluate(learner, params, tasks, (0, 1), way) for way in ("loop", "vmap"))
    assert loop.brier.shape == (2, 4) and loop.bins.shape == (2, 3, BINS)
    torch.testing.assert_close(loop.brier, vmap.brier)
    assert torch.equal(loop.bins[:, [0, 2]], vmap.bins[:, [0, 2]])
    outputs = [learner.predict(learner.adapt(params, t.support, 3, 1), t.query.x) for t in tasks]
    together = count_bins(torch.cat(outputs), torch.cat([t.query.y for t in tasks]))
    torch.testing.assert_close(loop.bins[1], together.double())
    net = make_learner("maml", make_model("sinusoid"), "regression")
    wave = Episode(*(Batch(torch.randn(4, 1), torch.randn(4, 1)) for _ in range(2)), torch.zeros(0).long())
    found = evaluate(net, net.init(generator), [wave], (0, 1))
    assert found.brier.shape == (0, 1) and found.bins.shape == (0, 3, BINS)


def scores(right, count=10):
    """One client, one number of steps: answers of confidence .9 of which `right` are."""
    bins = np.zeros((3, BINS))
    bins[:, 13] = count, 0.9 * count, right
    return ClientScores([[0.5, 0.7]], [[0.8, 0.9]], brier=[[0.2, 0.3]], bins=[bins.tolist()])


def test_a_summary_adds_bins_up_before_it_takes_the_error():
    """One client too sure by .2, one too modest by .1: together .05, and not the mean .15."""
    found = summarise("test", "accuracy", (1,), {0: scores(7), 1: scores(10)}, {"test-steps": 1})
    assert found.ece_after == pytest.approx(0.05) and found.brier_after.mean == pytest.approx(0.25)
    assert found.loss_after.mean == pytest.approx(0.6)
    again = Evaluation.from_json(found.to_json())
    assert again == found and again.ece == found.ece


def test_files_from_before_are_read():
    data = summarise("test", "accuracy", (1,), {0: scores(7)}, {}).to_json()
    for key in ("brier", "bins", "ece"):
        del data[key]
    old = Evaluation.from_json(data)
    assert old.ece_after is None and old.brier_after is None
