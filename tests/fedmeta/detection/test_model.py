"""Backdoored models: outlier indices, inverted triggers and spectral signatures where the answer is known."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import median_abs_deviation
from torch import nn

from fedmeta.detection.inversion import Search, success_of
from fedmeta.detection.model import invert
from fedmeta.detection.outliers import chance_of, low_outliers
from fedmeta.detection.ranking import auroc
from fedmeta.detection.spectral import removed, spectral_scores
from fedmeta.detection.suspect import Suspect
from fedmeta.errors import ConfigurationError
from fedmeta.learners import make_learner
from fedmeta.models.network import Network
from fedmeta.tasks import Batch, Episode

SIDE, WAYS, TARGET = 6, 5, 2


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9))
def test_outlier_indices_are_scipys(values: list[float]) -> None:
    scale = median_abs_deviation(values, scale="normal")
    found = low_outliers(values)
    if scale > 1e-6:
        assert found == pytest.approx((np.median(values) - np.array(values)) / scale, rel=1e-3)


def test_equal_values_have_no_outlier_and_a_lone_one_among_equals_is_infinitely_far() -> None:
    assert low_outliers([3.0, 3.0, 3.0]).tolist() == [0.0, 0.0, 0.0]
    assert low_outliers([3.0, 3.0, 3.0, 1.0, 4.0]).tolist() == [0.0, 0.0, 0.0, np.inf, -np.inf]
    assert low_outliers([3.0, 3.0, 3.0, 1.0, 4.0], least_scale=0.5).tolist() == [0.0, 0.0, 0.0, 4.0, -2.0]
    assert chance_of(np.inf, 5) == 0.0 and chance_of(0.0, 5) == 1.0


def test_an_index_of_two_among_five_slots_is_ordinary() -> None:
    """Neural Cleanse's bound, by another generator and scipy: over a quarter of harmless models would be accused."""
    draws = np.random.RandomState(1).standard_normal((4000, 5))
    scale = median_abs_deviation(draws, axis=1, scale="normal")
    largest = (np.median(draws, axis=1) - draws.min(axis=1)) / scale
    assert chance_of(2.0, 5) == pytest.approx((largest >= 2).mean(), abs=0.025)
    assert chance_of(2.0, 5) > 0.25


def episodes(count: int, seed: int) -> list[Episode]:
    """Pictures whose bright row tells their slot; the first row is dark."""
    g = torch.Generator().manual_seed(seed)
    slots = torch.arange(WAYS)

    def batch(each: int) -> Batch:
        y = slots.repeat(each)
        x = 0.1 * torch.rand(WAYS * each, 1, SIDE, SIDE, generator=g)
        x[torch.arange(len(y)), 0, y + 1] += 0.7
        return Batch(x, y)

    return [Episode(batch(1), batch(3), slots) for _ in range(count)]


def suspects(backdoored: bool) -> tuple[Suspect, Suspect]:
    """A linear MAML that counts bright rows, and adapts; where backdoored, two white pixels lead to the target."""
    model = Network(nn.Flatten(), nn.Linear(SIDE * SIDE, WAYS))
    learner = make_learner("maml", model, inner_lr=0.1, inner_steps=2)
    weight = torch.zeros(WAYS, SIDE, SIDE)
    for slot in range(WAYS):
        weight[slot, slot + 1] = 2.0
    if backdoored:
        weight[TARGET, 0, :2] = 16.0
    params = {"head.weight": weight.flatten(1), "head.bias": torch.zeros(WAYS)}
    return Suspect(learner, params, episodes(4, 0), 2), Suspect(learner, params, episodes(4, 1), 2)


def test_the_planted_trigger_is_found_where_it_is_and_its_slot_stands_out() -> None:
    sought, judged = suspects(backdoored=True)
    found = invert(sought, judged, Search(steps=200, lr=0.2), torch.Generator().manual_seed(0))
    assert found.easiest == TARGET and found.suspicious
    own = found.slots[TARGET]
    assert (
        own.held_out >= 0.75 and own.trigger.reached and own.norm < min(s.norm for s in found.slots if s is not own) / 2
    )
    painted = (own.trigger.mask * own.trigger.pattern[0]).flatten()
    assert int(painted.argmax()) in (0, 1) and own.norm == pytest.approx(float(own.trigger.mask.sum()))
    stamped = own.trigger(torch.zeros(3, 1, SIDE, SIDE))
    assert torch.allclose(stamped[0].flatten(), painted)
    again = invert(sought, judged, Search(steps=200, lr=0.2), torch.Generator().manual_seed(0))
    assert again.to_json() == found.to_json(), "from the generator alone"


def test_what_cannot_be_reached_counts_as_the_whole_picture() -> None:
    """A head whose bias shuts slot 4 out, whatever is painted."""
    sought, judged = suspects(backdoored=False)
    sought.params["head.bias"][4] = -1e4
    found = invert(sought, judged, Search(steps=30), torch.Generator().manual_seed(0))
    last = found.slots[4]
    assert not last.trigger.reached and last.norm == SIDE * SIDE and last.held_out == 0.0
    assert success_of(judged, last.trigger) == 0.0


def test_only_queries_of_other_slots_are_stamped() -> None:
    sought, _ = suspects(backdoored=False)
    seen = []

    def stamp(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return x + 1

    assert len(sought.answers(stamp, 1)) == 4 * 3 * (WAYS - 1)
    episode = sought.episodes[0]
    adapted = sought.learner.adapt(sought.params, episode.support, WAYS, 2)
    expected = sought.learner.predict(adapted, episode.query.x + 1)[episode.query.y != 1]
    assert torch.allclose(sought.answers(stamp, 1)[: len(expected)], expected)


@pytest.mark.parametrize("name", ["maml", "protonet"])
def test_a_trigger_on_the_support_too_is_inverted_through_the_adaptation(name: str) -> None:
    """The gradient reaches the stamp by both ways: finite differences."""
    model = Network(nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 4), nn.Tanh()), nn.Linear(4, WAYS))
    if name == "protonet":
        model = Network(model.body, None)
    learner = make_learner(name, model.double(), **({"inner_lr": 0.5, "inner_steps": 2} if name == "maml" else {}))
    params = {key: value.double() for key, value in learner.init(torch.Generator().manual_seed(1)).items()}
    double = [
        Episode(Batch(e.support.x.double(), e.support.y), Batch(e.query.x.double(), e.query.y), e.classes)
        for e in episodes(2, 5)
    ]
    suspect = Suspect(learner, params, double, 2, "both")

    def loss(shade: torch.Tensor) -> torch.Tensor:
        output = suspect.answers(lambda x: (1 - shade) * x + shade, 1)
        return nn.functional.cross_entropy(output, torch.ones(len(output), dtype=torch.long))

    shade = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    loss(shade).backward()
    with torch.no_grad():
        slope = (loss(shade + 1e-5) - loss(shade - 1e-5)) / 2e-5
    assert shade.grad is not None and float(shade.grad) == pytest.approx(float(slope), rel=1e-4)
    queries_only = Suspect(learner, params, double, 2).answers(lambda x: 0.6 * x + 0.4, 1)
    assert not torch.allclose(queries_only, suspect.answers(lambda x: 0.6 * x + 0.4, 1))


def test_an_adaptation_without_gradients_cannot_be_inverted_through() -> None:
    model = Network(nn.Flatten(), nn.Linear(SIDE * SIDE, WAYS))
    learner = make_learner("reptile", model)
    with pytest.raises(ConfigurationError, match="'reptile' does not: look for one on queries"):
        Suspect(learner, learner.init(torch.Generator()), episodes(1, 0), 2, "both")


def test_spectral_scores_are_projections_on_the_first_principal_direction() -> None:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((30, 4)) * [3.0, 1.0, 0.5, 0.1]
    centred = z - z.mean(axis=0)
    direction = np.linalg.eigh(centred.T @ centred)[1][:, -1]
    assert spectral_scores(torch.from_numpy(z)).numpy() == pytest.approx((centred @ direction) ** 2)


def test_spectral_scores_find_what_moved_along_one_direction_in_spite_of_classes() -> None:
    """Classes spread more than the trigger moves: only rows centred on their classes show it."""
    g = torch.Generator().manual_seed(0)
    classes = torch.arange(20).repeat(6)
    poisoned = torch.rand(120, generator=g) < 0.1
    centres = 10 * torch.randn(20, 16, generator=g)
    z = centres[classes] + 0.3 * torch.randn(120, 16, generator=g) + 2.0 * poisoned[:, None] * torch.eye(16)[0]
    inside, pooled = spectral_scores(z, classes), spectral_scores(z)
    assert auroc(inside.tolist(), poisoned.tolist()) > 0.99 > 0.75 > auroc(pooled.tolist(), poisoned.tolist())
    gone = removed(inside, 0.1)
    assert int(gone.sum()) == 18 and gone[poisoned].all()
    assert spectral_scores(torch.ones(5, 3)).tolist() == [0.0] * 5 and removed(torch.zeros(3), 0.0).sum() == 0
    alone = spectral_scores(torch.cat([z, 50 * torch.ones(1, 16)]), torch.cat([classes, torch.tensor([99])]))
    assert alone[-1] == 0.0
