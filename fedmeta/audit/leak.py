"""The leak check: private inputs read off an update by the linear-layer ratio attack, at several noise levels.

The gradient of a linear layer's row i is (sum over examples j of g_ij x_j, sum of g_ij): its ratio to the bias'
gradient is a weighted mean of the inputs, and the input itself where one example alone moved that row (Phong et al.
2018, section 3).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedmeta.errors import ConfigurationError
from fedmeta.params import Params, ParamSpec
from fedmeta.privacy.noise import seeded_noise
from fedmeta.seeding import SERVER

LEVELS = (0.0, 0.001, 0.01, 0.1, 1.0)
"""Standard deviations of the noise on every entry of an update, in units of the update's norm."""


@dataclass(frozen=True)
class Leak:
    """What an update shows of the inputs behind it.

    Attributes:
        inputs: `[n, features]`, the private inputs.
        levels: of noise, as multiples of the update's norm.
        found: `[levels, n, features]`, for each input the reconstruction that is most like it.
        cosines: `[levels, n]`, how like: 1 is the input itself, up to its scale.
    """

    inputs: Tensor
    levels: tuple[float, ...]
    found: Tensor
    cosines: Tensor


def first_linear(params: Params, features: int) -> tuple[str, str]:
    """The weight and the bias of the layer that takes the inputs themselves.

    Raises:
        ConfigurationError: the first layer is not linear with a bias, as in a convolutional network.
    """
    names = list(params)
    for name in names:
        value, bias = params[name], name.removesuffix("weight") + "bias"
        if value.dim() == 2 and value.shape[1] == features and name.endswith("weight") and bias in params:
            return name, bias
    raise ConfigurationError(
        f"the leak check needs a model whose first layer is linear with a bias, on {features} features: its parameters "
        f"are {', '.join(names[:4])}. Train a run for it, "
        "with fedmeta simulate ... --set model.name=mlp --set model.normalisation=none"
    )


def ratio_attack(update: Params, weight: str, bias: str) -> Tensor:
    """Candidates `[rows, features]`: each row of the weight's update over the bias' entry, of rows that moved."""
    slope, offset = update[weight], update[bias]
    moved = offset.abs() > offset.abs().max() * 1e-6
    return slope[moved] / offset[moved].unsqueeze(1)


def leak_check(
    update: Tensor, spec: ParamSpec, params: Params, inputs: Tensor, levels: Sequence[float] = LEVELS
) -> Leak:
    """Attack one client's update `[D]` at several noise levels.

    Args:
        update: as it leaves the client.
        spec: of the model.
        params: any values of its parameters, for their shapes.
        inputs: `[n, *input_shape]`, the examples that it came from.
        levels: >= 0, noise per entry in units of the update's norm.

    Raises:
        ConfigurationError: no linear first layer, or one that is not shared.
    """
    flat = inputs.flatten(start_dim=1).double()
    weight, bias = first_linear(params, flat.shape[1])
    shared = {entry.name for entry in spec.select("shared")}
    if not {weight, bias} <= shared:
        raise ConfigurationError(f"'{weight}' does not leave the client (sharing): there is nothing to attack")
    found, cosines = [], []
    for index, level in enumerate(levels):
        noise = seeded_noise(0, index, SERVER, "leak check")(len(update))
        noised = update.double() + level * float(update.double().norm()) * noise
        candidates = ratio_attack(spec.unflatten(noised), weight, bias)
        likeness = torch.nn.functional.normalize(flat, dim=1) @ torch.nn.functional.normalize(candidates, dim=1).T
        best, which = likeness.max(dim=1)
        found.append(candidates[which])
        cosines.append(best)
    return Leak(flat, tuple(levels), torch.stack(found), torch.stack(cosines))
