"""Networks that learners use as functions of their parameters. A new one is one file here and one line below."""

from typing import TYPE_CHECKING, Any

from fedmeta.errors import ConfigurationError
from fedmeta.registry import Entry, Registry

if TYPE_CHECKING:
    from torch import nn

__all__ = ["MODELS", "make_model"]

MODELS = Registry(
    "models",
    {
        "conv4": Entry(
            "fedmeta.models.conv4:Conv4",
            "four 3x3 convolutions of stride 2, no pooling",
            "Finn et al. 2017, section 5.2",
        ),
        "cells": Entry(
            "fedmeta.models.cells:Cells",
            "cells that choose among skip, 3x3, 5x5 and pooling by weights that are learnt",
            "Liu et al. 2019, equation 2",
        ),
        "mlp": Entry(
            "fedmeta.models.mlp:MLP",
            "fully connected, ReLU; 256-128-64-64 in the paper",
            "Finn et al. 2017, section 5.2",
        ),
        "items": Entry(
            "fedmeta.models.items:Items", "item embedding, small perceptron, linear head", "in the manner of MeLU, 2019"
        ),
        "text": Entry("fedmeta.models.text:TextConv", "characters embedded by their bytes, 1-d convolutions, pooled"),
        "policy": Entry("fedmeta.models.policy:Policy", "two hidden layers of 64, tanh, for environments"),
        "two_encoders": Entry(
            "fedmeta.models.two_encoders:TwoEncodersModel", "pictures and their names into one space, for `glyph_names`"
        ),
        "sinusoid": Entry("fedmeta.models.mlp:SinusoidNet", "two hidden layers of 40", "Finn et al. 2017, section 5.1"),
    },
)


def make_model(name: str, **parameters: Any) -> "nn.Module":
    """Construct a network: `make_model("conv4", filters=32, ways=5)`.

    Args:
        name: a registered name; `fedmeta list models` prints them.
        parameters: the model's own, and for every model `input_shape` (without the batch axis) and `ways`, the
            number of outputs of its last layer, called `head`; None leaves the head away, giving an embedding. A model
            with a parameter `codes` embeds whole numbers below that.

    Raises:
        ConfigurationError: unknown name or parameter, a value out of bounds, or sizes that memory does not hold.
    """
    made = MODELS.make(name, **parameters)
    try:
        return made.build()
    except (RuntimeError, MemoryError, OverflowError, TypeError) as error:
        # Sizes that are whole numbers above 0 may still be more than memory, or than torch can count.
        raise ConfigurationError(
            f"model {name} cannot be built with {made}: {str(error).splitlines()[0]:.200}"
        ) from error
