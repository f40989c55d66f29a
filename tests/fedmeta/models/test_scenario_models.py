"""Models of codes: second-order gradients by loop and vmap alike, and inputs that do not fit are refused."""

import pytest
import torch

from fedmeta.errors import ConfigurationError
from fedmeta.execution import over_tasks
from fedmeta.learners import make_learner
from fedmeta.models import make_model
from fedmeta.tasks import Batch, Episode


def episodes(kind: str) -> list[Episode]:
    g = torch.Generator().manual_seed(0)

    def batch(n: int) -> Batch:
        if kind == "text":
            return Batch(torch.randint(0, 65536, (n, 12), generator=g), torch.arange(3).repeat(n // 3))
        return Batch(torch.randint(0, 9, (n, 1), generator=g), torch.randn(n, 1, generator=g, dtype=torch.float64))

    classes = torch.arange(3) if kind == "text" else torch.zeros(0, dtype=torch.int64)
    return [Episode(batch(3), batch(6), classes) for _ in range(2)]


@pytest.mark.parametrize(
    ("kind", "learner", "parameters"),
    [
        ("text", "maml", {"input_shape": (12,), "ways": 3, "embedding": 4, "channels": 8}),
        ("text", "protonet", {"input_shape": (12,), "embedding": 4, "channels": 8}),
        ("items", "anil", {"codes": 9, "embedding": 3, "hidden": (4,)}),
    ],
)
def test_loop_and_vmap_agree(kind: str, learner: str, parameters: dict) -> None:
    task = "classification" if kind == "text" else "regression"
    made = make_learner(learner, make_model(kind, **parameters).double(), task=task)
    params = made.init(torch.Generator().manual_seed(0))
    found = [over_tasks(made.meta_gradient, params, episodes(kind), way)[0] for way in ("loop", "vmap")]
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-9, atol=1e-12)
    assert any(value.abs().max() > 0 for value in found[0].values())


def test_only_characters_and_items_that_occur_are_moved() -> None:
    learner = make_learner("anil", make_model("items", codes=9, embedding=3, hidden=(4,)), task="regression")
    batch = Batch(torch.tensor([[2], [5]]), torch.ones(2, 1))
    grads, _ = learner.meta_gradient(
        learner.init(torch.Generator().manual_seed(0)), Episode(batch, batch, torch.zeros(0, dtype=torch.int64))
    )
    assert grads["body.items.weight"].abs().sum(dim=1).nonzero().flatten().tolist() == [2, 5]


def test_inputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"takes snippets \[characters\] of model.kernel = 3 or more"):
        make_model("text", input_shape=(2,))
    with pytest.raises(ConfigurationError, match=r"takes snippets"):
        make_model("text", input_shape=(1, 28, 28))
    with pytest.raises(ConfigurationError, match=r"takes an item's number"):
        make_model("items", input_shape=(3, 2))


def test_two_items_that_nobody_rated_differ_by_what_is_known_of_them() -> None:
    model = make_model("items", input_shape=(3,), codes=9, embedding=3, hidden=(4,))
    with torch.no_grad():
        model.body.items.weight.zero_()
        alike, other = model(torch.tensor([[2, 1, 0], [5, 1, 0]])), model(torch.tensor([[5, 0, 1]]))
    assert torch.equal(alike[0], alike[1]) and not torch.equal(alike[1], other[0])
    bare = make_model("items", input_shape=(3,), codes=9, embedding=3, hidden=())
    x = torch.tensor([[2, 1, 0]])
    assert bare.body(x)[0, -2:].tolist() == [1.0, 0.0] and bare(x).shape == (1, 1)
