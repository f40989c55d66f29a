"""The layers of a network by readable names, and which entries of a vector are whose."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from fedmeta.params import ParamSpec

KINDS: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.Conv1d, "conv"),
    (nn.Conv2d, "conv"),
    (nn.Linear, "linear"),
    (nn.Embedding, "embedding"),
    (nn.GroupNorm, "norm"),
    (nn.LayerNorm, "norm"),
)
"""What layers of a type are called, numbered in their order; others that hold parameters are called by their type."""


def layer_of(name: str) -> str:
    """The module that a parameter belongs to.

    >>> layer_of("body.0.weight"), layer_of("alpha")
    ('body.0', 'alpha')
    """
    return name.rpartition(".")[0] or name


def layer_names(model: nn.Module) -> dict[str, str]:
    """Module -> readable name, of the modules that hold parameters of their own, in order.

    >>> from fedmeta.models import make_model
    >>> list(layer_names(make_model("mlp", hidden=(8, 4), ways=5, normalisation="none")).values())
    ['linear 1', 'linear 2', 'head']
    """
    counts: dict[str, int] = {}
    found = {}
    for path, module in model.named_modules():
        if not any(True for _ in module.parameters(recurse=False)):
            continue
        if path == "head":
            found[path] = "head"
            continue
        kind = next((words for known, words in KINDS if isinstance(module, known)), type(module).__name__.lower())
        kind = "norm" if kind == "batchstatistics" else kind
        counts[kind] = counts.get(kind, 0) + 1
        found[path] = f"{kind} {counts[kind]}"
    return found


def layer_columns(spec: ParamSpec, names: dict[str, str]) -> dict[str, Tensor]:
    """Readable layer -> the columns of the flat vector `[D]` that are its shared entries', in order.

    Entries that are no module's (step sizes, temperatures) are called by what stands before their last dot.
    """
    found: dict[str, list[Tensor]] = {}
    start = 0
    for entry in spec.select("shared"):
        path = layer_of(entry.name)
        found.setdefault(names.get(path, path), []).append(torch.arange(start, start + entry.size))
        start += entry.size
    return {layer: torch.cat(pieces) for layer, pieces in found.items()}


def by_layer(names: Iterable[str], readable: dict[str, str]) -> dict[str, list[str]]:
    """Readable layer -> the parameters in it, in order."""
    found: dict[str, list[str]] = {}
    for name in names:
        path = layer_of(name)
        found.setdefault(readable.get(path, path), []).append(name)
    return found
