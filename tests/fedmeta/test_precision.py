"""Precision of local training: what it changes, what stays float32, and that nothing of it stays behind."""

import pytest
import torch

from fedmeta.cohort import LocalPlan
from fedmeta.learners import make_learner
from fedmeta.models import make_model
from fedmeta.optimisers import SGD
from fedmeta.params import ParamSpec
from fedmeta.precision import computing_in
from fedmeta.tasks import Batch, Episode
from fedmeta.training import train_cohort

torch.set_num_threads(1)
CPU = torch.device("cpu")


def settings() -> tuple[str, str]:
    return torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision


def test_products_are_as_asked_within_the_block_and_as_before_behind_it() -> None:
    before, ones = settings(), torch.ones(2, 2)
    for precision, expected, dtype in (
        ("float32", "ieee", torch.float32),
        ("tf32", "tf32", torch.float32),
        ("bf16", "ieee", torch.bfloat16),
    ):
        with computing_in(precision, CPU):
            assert settings() == (expected, expected) and (ones @ ones).dtype == dtype
        assert settings() == before and (ones @ ones).dtype == torch.float32


def episode(seed: int) -> Episode:
    """Five classes that a gradient can tell apart, so that its direction is more than rounding."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.rand(5, 1, 28, 28, generator=generator)

    def batch(each: int) -> Batch:
        noise = 0.2 * torch.rand(5 * each, 1, 28, 28, generator=generator)
        return Batch(classes.repeat(each, 1, 1, 1) + noise, torch.arange(5).repeat(each))

    return Episode(batch(2), batch(3), torch.arange(5))


@pytest.mark.parametrize("execution", ["loop", "vmap"])
@pytest.mark.parametrize("name", ["maml", "fomaml", "protonet", "reptile", "matchingnet"])
def test_bf16_goes_where_float32_goes_and_gives_float32(name: str, execution: str) -> None:
    learner = make_learner(name, make_model("conv4", input_shape=(1, 28, 28), ways=5, filters=8))
    params = learner.init(torch.Generator().manual_seed(0))
    spec = ParamSpec.of(params)

    def updates(precision: str) -> torch.Tensor:
        plan = LocalPlan(2, 2, SGD(lr=0.1), execution=execution, precision=precision)
        found = train_cohort(
            learner,
            spec,
            spec.flatten(params),
            3,
            lambda c, s, n: [episode(100 * c + 10 * s + i) for i in range(n)],
            plan,
        )
        assert not found.failures
        return found.updates

    full, half = updates("float32"), updates("bf16")
    assert half.dtype == torch.float32 and not torch.equal(full, half)
    assert torch.nn.functional.cosine_similarity(full, half, dim=1).min() > 0.8, "7 bits of mantissa"
    assert torch.equal(full, updates("tf32")), "there is no TF32 on a CPU"
