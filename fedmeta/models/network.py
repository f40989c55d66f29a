"""The form that all our networks share: a body that makes features, a head that makes outputs."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedmeta.errors import ConfigurationError

Normalisation = Literal["batch", "group", "none"]


class Network(nn.Module):
    """`head(body(x))`; parameter names start with `body.` and `head.`.

    Learners that treat the two apart (ANIL, FedAvg) need this form; a user's own network has it by having the two
    submodules, or by being wrapped: `Network(my_features, nn.Linear(64, 5))`.

    Args:
        body: inputs `[n, *input_shape]` to features `[n, features]`.
        head: the last layer; None gives an embedding, whose outputs are the features.
        transductive: whether one example's output depends on the others in its batch (batch statistics), so that a
            query set is judged together. Evaluation names it beside its numbers.
        features: size of the features; None where it is not told.
    """

    def __init__(
        self, body: nn.Module, head: nn.Linear | None, *, transductive: bool = False, features: int | None = None
    ) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Identity() if head is None else head
        self.transductive = transductive
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        """Outputs `[n, ways]`, or features `[n, features]` without a head."""
        return self.head(self.body(x))


class BatchStatistics(nn.Module):
    """Batch normalisation by the statistics of the very batch, in training and in use; there are no running ones.

    Over the batch axis and all axes after the channel, as in MAML (Finn et al. 2017). A channel with a single value is
    normalised to zero, where PyTorch raises an error: a query set of one is ordinary here, but such a network
    can tell nothing from it.

    Args:
        channels: size of axis 1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def reset_parameters(self) -> None:
        """Scale 1, shift 0."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`[n, channels, ...]` to the same shape."""
        if x.shape[0] * math.prod(x.shape[2:]) == 1:
            return (x - x) * self.weight.view(1, -1, *[1] * (x.dim() - 2)) + self.bias.view(1, -1, *[1] * (x.dim() - 2))
        # In the format of its own parameters: vmap has no batch normalisation of another.
        return F.batch_norm(x.to(self.weight.dtype), None, None, self.weight, self.bias, training=True)


def normalise(kind: Normalisation, channels: int, groups: int) -> list[nn.Module]:
    """The normalisation layer after a layer of `channels`, as a list of one or none.

    Raises:
        ConfigurationError: group normalisation whose groups do not divide the channels.
    """
    if kind == "batch":
        return [BatchStatistics(channels)]
    if kind == "group":
        if channels % groups:
            raise ConfigurationError(
                f"model.groups = {groups} does not divide a layer of {channels} channels. "
                "Choose a divisor, or another normalisation"
            )
        return [nn.GroupNorm(groups, channels)]
    return []


def check_groups(values: Mapping[str, Any], where: str, sized_by: str = "filters") -> None:
    """Refuse, before anything is built, groups that do not divide the layers that a key gives the sizes of.

    Args:
        values: a model's parameters.
        where: as `check_parameters` has it.
        sized_by: the parameter that is the size of every layer, or the list of all sizes.

    Raises:
        ConfigurationError: names both keys.
    """
    groups, sizes = values["groups"], values[sized_by]
    if values.get("normalisation", "group") != "group":
        return
    for size in sizes if isinstance(sizes, tuple) else (sizes,):
        if size % groups:
            remedy = ", or another model.normalisation" if "normalisation" in values else ""
            raise ConfigurationError(
                f"{where}.groups = {groups} does not divide {where}.{sized_by} = {sizes}: choose a divisor of "
                f"{size}{remedy}"
            )


def head(features: int, ways: int | None) -> nn.Linear | None:
    """The last layer, or None for an embedding."""
    return None if ways is None else nn.Linear(features, ways)
