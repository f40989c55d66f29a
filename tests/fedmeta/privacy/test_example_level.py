"""Example-level gradients: equal to Opacus' clipped sums, noised on its optimiser's scale, bounded in an example."""

import copy

import pytest
import torch
import torch.nn.functional as F
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import nn

from fedmeta.errors import ConfigurationError
from fedmeta.learners import make_learner
from fedmeta.models import make_model
from fedmeta.privacy.example_level import NoisyExamples, example_rows
from fedmeta.privacy.noise import seeded_noise
from fedmeta.privacy.offers import check_offer
from fedmeta.privacy.units import Unit
from fedmeta.tasks import Batch, Episode

CLIP = 0.3


def conv4():
    return make_model("conv4", input_shape=(1, 14, 14), filters=8, normalisation="group", groups=4, ways=3).double()


def batch(count=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 1, 14, 14, generator=generator, dtype=torch.float64)
    return Batch(x, torch.arange(count) % 3)


def loss_of(model):
    def loss(params, data):
        return F.cross_entropy(torch.func.functional_call(model, params, (data.x,)), data.y)

    return loss


def by_opacus(model, data, noise_multiplier=0.0):
    """The gradient in `p.grad` after Opacus' clipping, noise and scaling."""
    wrapped = GradSampleModule(copy.deepcopy(model), loss_reduction="mean")
    optimiser = DPOptimizer(
        torch.optim.SGD(wrapped.parameters(), lr=1.0),
        noise_multiplier=noise_multiplier,
        max_grad_norm=CLIP,
        expected_batch_size=len(data.y),
        generator=torch.Generator().manual_seed(5),
    )
    F.cross_entropy(wrapped(data.x), data.y).backward()
    optimiser.pre_step()
    return [p.grad for p in wrapped._module.parameters()]


def test_clipped_and_summed_as_opacus_does():
    model, data = conv4(), batch()
    params = {name: value.detach() for name, value in model.named_parameters()}
    assert (example_rows(loss_of(model), params, data).norm(dim=1) > CLIP).any(), "clipping does something"
    ours = NoisyExamples(CLIP, 0.0, seeded_noise(0, 0, 0, "test"))(loss_of(model), params, data)
    for (name, value), theirs in zip(ours.items(), by_opacus(model, data), strict=True):
        torch.testing.assert_close(value, theirs, rtol=1e-5, atol=1e-9, msg=name)


def test_noise_on_the_scale_of_opacus():
    """Both add z C to the sum and divide by the batch: deviations of the noise alone agree."""
    model, data, z = conv4(), batch(), 2.0
    params = {name: value.detach() for name, value in model.named_parameters()}
    quiet = torch.cat([g.flatten() for g in by_opacus(model, data)])
    theirs = torch.cat([g.flatten() for g in by_opacus(model, data, z)]) - quiet
    found = NoisyExamples(CLIP, z, seeded_noise(0, 0, 0, "test"))(loss_of(model), params, data)
    ours = torch.cat([value.flatten() for value in found.values()]) - quiet
    expected, tolerance = z * CLIP / len(data.y), 5 / (2 * len(ours)) ** 0.5
    assert ours.std().item() == pytest.approx(expected, rel=tolerance)
    assert theirs.std().item() == pytest.approx(expected, rel=tolerance)


def test_a_plain_gradient_where_nothing_is_clipped():
    model, data = conv4(), batch()
    params = {name: value.detach().requires_grad_() for name, value in model.named_parameters()}
    ours = NoisyExamples(1e9, 0.0, seeded_noise(0, 0, 0, "test"))(loss_of(model), params, data)
    plain = torch.autograd.grad(loss_of(model)(params, data), list(params.values()))
    for value, theirs in zip(ours.values(), plain, strict=True):
        torch.testing.assert_close(value, theirs, rtol=1e-7, atol=1e-10)


def episode(seed=0):
    data = batch(15, seed)
    return Episode(Batch(data.x[:6], data.y[:6]), Batch(data.x[6:], data.y[6:]), torch.arange(3))


LEARNERS = {
    "reptile": {"inner_lr": 0.1, "inner_steps": 3, "inner_optimiser": "sgd"},
    "fedavg": {},
    "fomaml": {"inner_lr": 0.1, "inner_steps": 2},
}


@pytest.mark.parametrize("name", LEARNERS)
def test_without_clipping_and_noise_the_learner_is_itself(name):
    learner = make_learner(name, conv4(), **LEARNERS[name])
    params = {k: v.double() for k, v in learner.init(torch.Generator().manual_seed(0)).items()}
    plain, _ = learner.meta_gradient(params, episode())
    private, metrics = learner.private_meta_gradient(
        params, episode(), NoisyExamples(1e9, 0.0, seeded_noise(0, 0, 0, "x"))
    )
    assert metrics == {}, "metrics would leak"
    for key in plain:
        torch.testing.assert_close(private[key], plain[key], rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("name", LEARNERS)
def test_every_look_at_the_data_is_a_release_that_is_counted(name):
    """Recorded through the gradient: looks that hold one example are as many as accounted; each is bounded by C."""
    learner = make_learner(name, conv4(), **LEARNERS[name])
    params = {k: v.double() for k, v in learner.init(torch.Generator().manual_seed(0)).items()}
    base, looks = NoisyExamples(CLIP, 0.0, seeded_noise(0, 0, 0, "x")), []

    def recording(loss, p, data):
        looks.append((loss, p, data))
        return base(loss, p, data)

    tasks = episode()
    learner.private_meta_gradient(params, tasks, recording)
    for x in (tasks.support.x[0], tasks.query.x[0]):
        holding = [data for _, _, data in looks if any(torch.equal(x, row) for row in data.x)]
        assert len(holding) <= learner.example_releases
    for loss, p, data in looks:
        other = Batch(data.x.clone(), data.y.clone())
        other.x[0], other.y[0] = 50 * torch.randn_like(data.x[0]), (data.y[0] + 1) % 3
        one, two = base(loss, p, data), base(loss, p, other)
        moved = torch.cat([(one[key] - two[key]).flatten() for key in one]).double().norm() * len(data.y)
        assert 0 < moved <= 2 * CLIP * (1 + 1e-5)


@pytest.mark.parametrize(
    ("name", "words"), [("maml", "Hessian"), ("anil", "Hessian"), ("metasgd", "Hessian"), ("protonet", "prototype")]
)
def test_learners_that_cannot_are_refused_with_the_reason(name, words):
    with pytest.raises(ConfigurationError, match=words):
        check_offer(name, Unit.EXAMPLE)
    for unit in (Unit.TASK, Unit.CLIENT):
        check_offer(name, unit)


def test_row_clipping_does_not_bound_maml():
    """Why MAML is refused: replacing one support example moves its row-clipped query gradient beyond 2 C."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
    params = {name: value.detach() for name, value in model.named_parameters()}
    support, query = (Batch(torch.randn(3, 6), torch.arange(3)), Batch(torch.randn(12, 6), torch.arange(12) % 3))
    loss = loss_of(model)

    def query_rows(x):
        def of_query(p, qx, qy):
            grads = torch.func.grad(loss)(p, Batch(x, support.y))
            adapted = {name: p[name] - 2.0 * grads[name] for name in p}
            return loss(adapted, Batch(qx[None], qy[None]))

        grads = torch.vmap(torch.func.grad(of_query), in_dims=(None, 0, 0))(params, query.x, query.y)
        return torch.cat([value.flatten(1) for value in grads.values()], dim=1)

    def clipped(rows):
        return (rows * (CLIP / rows.norm(dim=1, keepdim=True)).clamp(max=1)).sum(0)

    replaced = support.x.clone()
    replaced[0] = 5 * torch.randn(6)
    assert (clipped(query_rows(support.x)) - clipped(query_rows(replaced))).norm() > 2 * CLIP


def test_a_subclass_with_a_gradient_of_its_own_does_not_inherit_the_private_one():
    from fedmeta.learners.maml import FOMAML
    from fedmeta.privacy.offers import _has_own

    class SignFOMAML(FOMAML):
        def meta_gradient(self, params, episode):
            return super().meta_gradient(params, episode)

    class Renamed(FOMAML):
        pass

    assert _has_own(FOMAML) and _has_own(Renamed) and not _has_own(SignFOMAML)
