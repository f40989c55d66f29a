"""A long short-term memory cell as plain products, so that it runs under `vmap`, which has no rule for torch's own."""

import math

import torch
from torch import Tensor

from fedmeta.params import Params


def initial_cell(inputs: int, hidden: int, outputs: int, generator: torch.Generator) -> Params:
    """Weights of one cell: uniform in 1 / sqrt(outputs), as torch's; the forget gate's bias is 1.

    Args:
        inputs, hidden: sizes of what enters as input and as hidden state.
        outputs: size of the cell, and of the hidden state that it gives.
        generator: of the draws.

    Returns:
        `input [4 outputs, inputs]`, `hidden [4 outputs, hidden]`, `bias [4 outputs]`; gates in torch's order
        (input, forget, cell, output).
    """
    bound = 1 / math.sqrt(outputs)

    def draw(*shape: int) -> Tensor:
        return (2 * torch.rand(shape, generator=generator) - 1) * bound

    bias = torch.zeros(4 * outputs)
    bias[outputs : 2 * outputs] = 1.0
    return {"input": draw(4 * outputs, inputs), "hidden": draw(4 * outputs, hidden), "bias": bias}


def lstm_step(weights: Params, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """One step (Hochreiter and Schmidhuber 1997, with forget gates).

    Args:
        weights: as `initial_cell` gives them.
        x: inputs `[n, inputs]`.
        hidden: `[n, hidden]`.
        cell: `[n, outputs]`.

    Returns:
        The next hidden state and cell, `[n, outputs]` each.
    """
    gates = x @ weights["input"].transpose(-1, -2) + hidden @ weights["hidden"].transpose(-1, -2) + weights["bias"]
    entering, kept, candidate, shown = gates.chunk(4, dim=-1)
    cell = kept.sigmoid() * cell + entering.sigmoid() * candidate.tanh()
    return shown.sigmoid() * cell.tanh(), cell
