"""How far adaptation moves each layer, and whether what the layer says changes: ANIL's question (Raghu et al. 2020)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedmeta.explain.layers import by_layer, layer_names
from fedmeta.params import Params

SHUFFLES = 20
"""So many random pairings make the chance level of a CKA."""


@dataclass(frozen=True)
class LayerChange:
    """One layer before and after adaptation.

    Attributes:
        layer: its readable name.
        distance: Euclidean, between its parameters before and after.
        relative: `distance` over the norm before; None where that norm is zero.
        cka: linear CKA in [0, 1] of its outputs on the same inputs; None where these do not vary.
        chance: the mean CKA when the inputs are paired at random: what so few inputs give for nothing.
    """

    layer: str
    distance: float
    relative: float | None
    cka: float | None
    chance: float | None


def movement(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> tuple[float, float | None]:
    """||after - before|| over all entries, and the same over ||before||; None where that is zero.

    >>> movement({"w": torch.tensor([3.0, 4.0])}, {"w": torch.tensor([3.0, 5.0])})
    (1.0, 0.2)
    """
    moved = sum(float((after[name].double() - value.double()).square().sum()) for name, value in before.items()) ** 0.5
    length = sum(float(value.double().square().sum()) for value in before.values()) ** 0.5
    return moved, moved / length if length else None


def linear_cka(a: Tensor, b: Tensor) -> float | None:
    """Linear centred kernel alignment of two representations of the same inputs (Kornblith et al. 2019, section 3).

    ||B^T A||_F^2 / (||A^T A||_F ||B^T B||_F) with centred columns: 1 where they agree up to rotation and scale, and
    near 1 whatever they are where inputs are few against features.

    Args:
        a, b: `[n, p]` and `[n, q]`.

    Returns:
        In [0, 1]; None where one of them does not vary.

    >>> linear_cka(torch.tensor([[1.0], [-1.0], [0.0]]), torch.tensor([[1.0], [1.0], [-2.0]]))
    0.0
    """
    grams = []
    for z in (a, b):
        centred = z.double() - z.double().mean(dim=0)
        grams.append(centred @ centred.T)
    scale = float(grams[0].norm() * grams[1].norm())
    # Rounding may leave the range by a hair.
    return min(1.0, max(0.0, float((grams[0] * grams[1]).sum()) / scale)) if scale > 0 else None


def chance_cka(a: Tensor, b: Tensor, generator: torch.Generator, shuffles: int = SHUFFLES) -> float | None:
    """The mean `linear_cka` of `a` with rows of `b` in random orders."""
    found = [linear_cka(a, b[torch.randperm(len(b), generator=generator)]) for _ in range(shuffles)]
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if known else None


def activations(model: nn.Module, params: Params, x: Tensor) -> dict[str, Tensor]:
    """Readable layer -> its outputs `[n, features]` on inputs `[n, *input_shape]`, of layers that hold parameters."""
    found: dict[str, Tensor] = {}
    handles = []
    for path, name in layer_names(model).items():

        def keep(module: nn.Module, given: object, output: Tensor, name: str = name) -> None:
            found[name] = output.detach().flatten(start_dim=1)

        handles.append(model.get_submodule(path).register_forward_hook(keep))
    try:
        with torch.no_grad():
            functional_call(model, dict(params), (x,))
    finally:
        for handle in handles:
            handle.remove()
    return found


def layer_changes(
    model: nn.Module, before: Params, after: Params, x: Tensor, generator: torch.Generator
) -> list[LayerChange]:
    """Every layer of a network before and after adaptation, in order.

    Args:
        model: the network.
        before, after: its parameters; of a layer whose shape adaptation changes only what is alike is compared.
        x: `[n, *input_shape]`, the inputs on which outputs are compared.
        generator: of the random pairings.
    """
    alike = [name for name, value in before.items() if name in after and after[name].shape == value.shape]
    layers = by_layer(alike, layer_names(model))
    one, two = activations(model, before, x), activations(model, after, x)
    changes = []
    for layer, names in layers.items():
        if layer not in one:  # no layer of the network, such as a learnt step size
            continue
        distance, relative = movement({name: before[name] for name in names}, {name: after[name] for name in names})
        cka = linear_cka(one[layer], two[layer])
        changes.append(LayerChange(layer, distance, relative, cka, chance_cka(one[layer], two[layer], generator)))
    return changes


def mean_changes(found: list[list[LayerChange]]) -> list[LayerChange]:
    """The mean of each figure over episodes, of those that have it."""

    def mean(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    return [
        LayerChange(
            column[0].layer,
            sum(one.distance for one in column) / len(column),
            mean([one.relative for one in column]),
            mean([one.cka for one in column]),
            mean([one.chance for one in column]),
        )
        for column in zip(*found, strict=True)
    ]
