"""Movement by layer and CKA: known answers."""

import pytest
import torch

from fedmeta.explain.layers import layer_columns, layer_names
from fedmeta.explain.movement import activations, chance_cka, layer_changes, linear_cka, mean_changes
from fedmeta.learners import make_learner
from fedmeta.models import make_model
from fedmeta.params import ParamSpec
from fedmeta.tasks import Batch


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_cka_knows_no_rotation_scale_or_shift_and_is_the_squared_correlation_of_two_columns() -> None:
    a = normal(30, 4)
    turn, _ = torch.linalg.qr(normal(4, 4, seed=1))
    assert linear_cka(a, 3 * a @ turn + 7) == pytest.approx(1)
    b = normal(30, 2, seed=2)
    centred, other = a - a.mean(dim=0), b - b.mean(dim=0)
    direct = (other.T @ centred).square().sum() / ((centred.T @ centred).norm() * (other.T @ other).norm())
    assert linear_cka(a, b) == pytest.approx(float(direct))
    correlation = torch.corrcoef(torch.stack([a[:, 0], b[:, 0]]))[0, 1]
    assert linear_cka(a[:, :1], b[:, :1]) == pytest.approx(float(correlation) ** 2)
    assert linear_cka(a, torch.ones(30, 2)) is None


def test_few_inputs_give_a_high_cka_for_nothing_and_chance_says_so() -> None:
    generator = torch.Generator().manual_seed(0)
    wide = normal(5, 500), normal(5, 500, seed=1)
    assert linear_cka(*wide) > 0.9 and chance_cka(*wide, generator) > 0.9
    tall = normal(500, 2), normal(500, 2, seed=1)
    assert chance_cka(*tall, generator) < 0.05


def test_anil_moves_the_head_alone_and_boil_the_body_alone() -> None:
    model = make_model("conv4", input_shape=(1, 12, 12), filters=3, ways=2, normalisation="none")
    x, y = normal(6, 1, 12, 12).float(), torch.arange(6) % 2
    for name, moving in (("anil", {"head"}), ("boil", {"conv 1", "conv 2", "conv 3", "conv 4"})):
        learner = make_learner(name, model, inner_lr=0.5, inner_steps=2)
        params = learner.init(torch.Generator().manual_seed(0))
        adapted = learner.adapt(params, Batch(x, y), 2)
        found = layer_changes(model, params, adapted, x, torch.Generator().manual_seed(0))
        assert [change.layer for change in found] == ["conv 1", "conv 2", "conv 3", "conv 4", "head"]
        assert {change.layer for change in found if change.distance > 0} == moving
        if name == "anil":
            assert all(change.cka == pytest.approx(1) for change in found[:-1]) and found[-1].cka < 1
        before = torch.cat([params["head.weight"].flatten(), params["head.bias"]])
        after = torch.cat([adapted["head.weight"].flatten(), adapted["head.bias"]])
        assert found[-1].distance == pytest.approx(float((after - before).norm()), rel=1e-5)
        assert found[-1].relative == pytest.approx(float((after - before).norm() / before.norm()), rel=1e-5)
        assert mean_changes([found, found]) == found


def test_layers_have_names_and_columns() -> None:
    model = make_model("conv4", input_shape=(1, 12, 12), filters=4, ways=2, normalisation="group", groups=2)
    names = list(layer_names(model).values())
    assert names == [f"{kind} {number}" for number in range(1, 5) for kind in ("conv", "norm")] + ["head"]
    params = dict(model.named_parameters())
    columns = layer_columns(ParamSpec.of(params), layer_names(model))
    assert list(columns) == names
    spec = ParamSpec.of(params)
    flat = spec.flatten(
        {name: torch.full_like(value, float(name.startswith("head."))) for name, value in params.items()}
    )
    assert torch.equal(torch.nonzero(flat).flatten(), columns["head"])
    assert sum(len(own) for own in columns.values()) == spec.size()
    shown = activations(model, {name: value.detach() for name, value in params.items()}, normal(3, 1, 12, 12).float())
    assert shown["conv 1"].shape == (3, 4 * 36) and shown["head"].shape == (3, 2)
