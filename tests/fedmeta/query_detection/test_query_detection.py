"""Detectors of adversarial queries against hand-written formulas, and judged against attackers who know them or not."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import median_filter
from torch import nn

from fedmeta.errors import ConfigurationError
from fedmeta.evasion.ball import Ball
from fedmeta.evasion.pgd import PGD
from fedmeta.learners import make_learner
from fedmeta.models import make_model
from fedmeta.models.network import Network
from fedmeta.query_detection import make_detector
from fedmeta.query_detection.base import NeedsNoFit, View
from fedmeta.query_detection.judge import Effort, judge, lowest_scores
from fedmeta.query_detection.squeezing import Median, OneBit
from fedmeta.tasks import Batch, Episode

WAYS, SIDE = 4, 8


def episode(seed: int, shots: int = 1) -> Episode:
    """Grey pictures: a pattern for each class, and noise."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.rand(WAYS, 1, SIDE, SIDE, generator=generator)

    def batch(each: int) -> Batch:
        y = torch.arange(WAYS).repeat(each)
        return Batch((patterns[y] + 0.1 * torch.randn(len(y), 1, SIDE, SIDE, generator=generator)).clamp(0, 1), y)

    return Episode(batch(shots), batch(3), torch.arange(WAYS))


def flat_protonet():
    """The embedding is the picture itself: all distances can be worked out by hand."""
    return make_learner("protonet", Network(nn.Sequential(nn.Flatten()), None, features=SIDE * SIDE)), {
        "unused": torch.zeros(1)
    }


def test_squeezers() -> None:
    """A filter of scipy's; and rounding, whose gradient is the identity's."""
    x = episode(0).query.x
    for one, squeezed in zip(x, Median().squeeze(x), strict=True):
        assert np.allclose(squeezed[0], median_filter(one[0].numpy(), size=3, mode="mirror"))
    leaf = x.clone().requires_grad_()
    rounded = OneBit().squeeze(leaf)
    assert torch.equal(rounded.detach().unique(), torch.tensor([0.0, 1.0]))
    assert torch.allclose(rounded.detach(), (x > 0.5).float())
    (slope,) = torch.autograd.grad((rounded * x).sum(), leaf)
    assert torch.equal(slope, x)


def test_scores_by_hand() -> None:
    learner, params = flat_protonet()
    task = episode(1, shots=2)
    view, x = View.of(learner, params, task), task.query.x
    z, support = x.flatten(1).double(), task.support.x.flatten(1).double()
    means = torch.stack([support[task.support.y == k].mean(0) for k in range(WAYS)])
    logits = -(torch.cdist(z, means) ** 2)
    confidence = make_detector("max_softmax").scores(view, x)
    assert torch.allclose(confidence.double(), 1 - logits.softmax(1).amax(1), atol=1e-5)
    swapped = torch.stack([logits.argmax(1) == k for k in range(WAYS)], dim=1)
    expected = []
    for one, answer in zip(z, swapped.float().argmax(1), strict=True):
        moved = means.clone()
        moved[answer] = one  # both shots are replaced by the query
        own = support[task.support.y == answer]
        expected.append(F.cross_entropy(-(torch.cdist(own, moved) ** 2), answer.expand(2)))
    found = make_detector("consistency").scores(view, x)
    assert torch.allclose(found.double(), torch.stack(expected), atol=1e-4)
    grey = torch.full_like(x, 0.25)
    assert make_detector("off_binary").scores(view, grey).tolist() == pytest.approx([0.25] * len(x))


def test_mahalanobis_by_hand() -> None:
    learner, params = flat_protonet()
    episodes = [episode(seed, shots=2) for seed in range(6)]
    detector = make_detector("mahalanobis", shrinkage=0.2).fitted(learner, params, episodes)
    deviations = []
    for each in episodes:
        z = torch.cat([each.support.x, each.query.x]).flatten(1).double().numpy()
        y = torch.cat([each.support.y, each.query.y]).numpy()
        deviations.append(np.concatenate([z[y == k] - z[y == k].mean(0) for k in range(WAYS)]))
    rows = np.concatenate(deviations)
    spread = rows.T @ rows / (len(rows) - 6 * WAYS)
    precision = np.linalg.inv(0.8 * spread + 0.2 * np.trace(spread) / SIDE**2 * np.eye(SIDE**2))
    task = episode(9)
    apart = task.query.x.flatten(1).double().numpy()[:, None] - task.support.x.flatten(1).double().numpy()
    expected = np.einsum("qkd,de,qke->qk", apart, precision, apart).min(1)
    found = detector.scores(View.of(learner, params, task), task.query.x)
    assert np.allclose(found, expected, rtol=1e-3)
    with pytest.raises(ValueError, match="fit the detector"):
        make_detector("mahalanobis").scores(View.of(learner, params, task), task.query.x)


def test_who_knows_the_detector_has_lower_scores() -> None:
    """On what the plain attack achieved no score is higher, and for most detectors some are lower."""
    learner, params = flat_protonet()
    task, ball = episode(0), Ball("linf", 0.35)
    view, (x, y) = View.of(learner, params, task), task.query
    moved = PGD(steps=10)(view.logits, x, y, ball, torch.tensor(0))
    deceived = view.logits(moved).argmax(dim=1) != y
    assert deceived.sum() >= 3
    lower = []
    for name in ("max_softmax", "mahalanobis", "median", "consistency"):
        detector = make_detector(name).fitted(learner, params, [task, episode(1)])
        plain = detector.scores(view, moved)
        spread = float(detector.scores(view, x).std())
        scores, success = lowest_scores(view, detector, x, y, moved, ball, spread, Effort(6, (1.0, 30.0), 0.25))
        assert success[deceived].all() and (scores[deceived] <= plain[deceived] + 1e-6).all()
        assert torch.isinf(scores[~success]).all()
        lower.append(bool((scores[deceived] < 0.95 * plain[deceived]).any()))
    assert sum(lower) >= 3


@dataclass(frozen=True)
class Blind(NeedsNoFit):
    def scores(self, view, x):
        return torch.zeros(len(x))


def test_a_blind_detector_is_worth_chance_and_no_success_is_no_verdict() -> None:
    learner, params = flat_protonet()
    episodes = [episode(0), episode(1)]
    found = judge(learner, params, episodes, {"blind": Blind()}, Ball("linf", 0.35), Effort(steps=8, weights=(1.0,)))
    assert found["blind"].plain["auroc"] == found["blind"].adaptive["auroc"] == 0.5
    assert found["blind"].plain["tpr"] == 0.0
    nothing = judge(learner, params, episodes, {"blind": Blind()}, Ball("linf", 0.0), Effort(steps=1, weights=()))
    assert nothing["blind"].plain is None and nothing["blind"].successes == (0, 0)


def test_learners_that_a_detector_cannot_serve() -> None:
    model = make_model("mlp", input_shape=(1, SIDE, SIDE), hidden=(6,), ways=WAYS, normalisation="none")
    learner = make_learner("abml", model)
    with pytest.raises(ConfigurationError, match="leave it out"):
        make_detector("mahalanobis").fitted(learner, learner.init(torch.Generator()), [episode(0)])
    fomaml = make_learner("perfedavg", model)
    params, task = fomaml.init(torch.Generator()), episode(0)
    with pytest.raises(ConfigurationError, match="gradients"):
        make_detector("consistency").scores(View.of(fomaml, params, task), task.query.x)
