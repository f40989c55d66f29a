"""Attacks that average over a defence's draws: the gradient of the mean loss, and what each attacker knows."""

from dataclasses import replace

import torch
import torch.nn.functional as F

from fedmeta.deployment.random_finetune import RandomFineTune
from fedmeta.evasion.ball import Ball
from fedmeta.evasion.eot import judge_chance, over_draws
from fedmeta.evasion.pgd import PGD, input_gradient
from fedmeta.learners import make_learner
from fedmeta.models import make_model
from fedmeta.tasks import Batch, Episode


def episode(seed: int) -> Episode:
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.rand(3, 6, generator=generator)

    def batch(each: int) -> Batch:
        y = torch.arange(3).repeat(each)
        return Batch((patterns[y] + 0.05 * torch.randn(len(y), 6, generator=generator)).clamp(0, 1), y)

    return Episode(batch(2), batch(3), torch.arange(3))


def defended() -> tuple[RandomFineTune, dict[str, torch.Tensor]]:
    model = make_model("mlp", input_shape=(6,), hidden=(12,), ways=3, normalisation="none")
    learner = make_learner("maml", model, inner_lr=0.5, inner_steps=5)
    return RandomFineTune(learner, steps=30, lr=0.5), learner.init(torch.Generator().manual_seed(0))


def test_the_gradient_is_the_mean_over_draws() -> None:
    defence, params = defended()
    task = episode(0)
    models = [replace(defence, seed=seed) for seed in range(4)]
    x, y = task.query
    found = input_gradient(over_draws(models, params, task.support, 3), x, y.unsqueeze(1).expand(-1, 4))
    expected = torch.zeros_like(x)
    for model in models:
        adapted, leaf = model.adapt(params, task.support, 3), x.clone().requires_grad_()
        loss = F.cross_entropy(model.predict(adapted, leaf), y, reduction="sum")
        expected += torch.autograd.grad(loss, leaf)[0] / 4
    assert torch.allclose(found, expected, atol=1e-6)


def test_who_averages_does_not_do_worse_than_who_knows_nothing_of_the_defence() -> None:
    defence, params = defended()
    episodes = [episode(seed) for seed in range(4)]
    found = judge_chance(defence, params, episodes, PGD(steps=8), Ball("linf", 0.25), draws=8, judged=2)
    assert found.draws == 8 and found.clean.mean > 0.8 and found.clean.count == 4
    assert found.averaged.mean <= found.one_draw.mean + 0.05 and found.averaged.mean < found.clean.mean
    assert found.undefended.mean <= found.undefended_clean.mean
