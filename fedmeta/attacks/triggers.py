"""Triggers: what is put on an input so that a backdoored model gives the attacker's answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fedmeta.errors import ConfigurationError

Trigger = Callable[[Tensor], Tensor]
"""Inputs `[n, *input_shape]`, images in [0, 1] mostly, to triggered ones; its argument is never changed."""

TriggerName = Literal["patch", "blended", "bars", "turn", "own"]

PATCH, MARGIN = 4, 1
"""Side of the patch, and its distance from the lower right corner [pixels]."""

BAR, GAP = 6, 3
"""Length of a bar one pixel high, and the gap between bars in both directions [pixels] (Xie et al. 2020)."""


@dataclass(frozen=True, eq=False)
class Overlay:
    """x -> (1 - opacity) x + opacity * pattern.

    Attributes:
        pattern: `[channels, height, width]`.
        opacity: `[channels, height, width]` in [0, 1]: 0 where the input shows, 1 where only the pattern does.
    """

    pattern: Tensor
    opacity: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """`[n, *shape]` to the same shape."""
        opacity, pattern = self.opacity.to(x), self.pattern.to(x)
        return (1 - opacity) * x + opacity * pattern


def make_trigger(
    name: TriggerName,
    input_shape: Sequence[int],
    *,
    alpha: float = 0.2,
    parts: int = 4,
    own: Trigger | None = None,
) -> Trigger:
    """A trigger by name.

    Args:
        name: `patch`, a white square in the lower right corner (Gu et al. 2017); `blended`, a fixed random picture over
            everything (Chen et al. 2017); `bars`, short white bars in the upper left corner, each a part of its own
            (Xie et al. 2020); `turn`, a quarter turn, which adds nothing and makes an input from the tail of the data;
            `own`, that of the data set, such as a word.
        input_shape: channels, height, width.
        alpha: opacity of `blended`.
        parts: number of `bars`.
        own: the data set's own trigger, where it has one.

    Raises:
        ConfigurationError: inputs that are no images, or too small for the pattern; data without an own trigger.
    """
    shape = tuple(input_shape)
    if name == "own":
        if own is None:
            raise ConfigurationError("attack.method.trigger = 'own': the data set has no trigger of its own. Use patch")
        return own
    if len(shape) != 3:
        raise ConfigurationError(
            f"trigger '{name}' is put on images [channels, height, width], and inputs here have shape {list(shape)}"
            + (": use own" if own is not None else "")
        )
    if name == "turn":
        if shape[1] != shape[2]:
            raise ConfigurationError(f"trigger 'turn' needs square images, not {list(shape)}: use patch")
        return quarter_turn
    if name == "blended":
        pattern = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        return Overlay(pattern, torch.full(shape, alpha))
    if name == "bars":
        return union(bars(shape, parts))
    return _white(shape, [(slice(-PATCH - MARGIN, -MARGIN), slice(-PATCH - MARGIN, -MARGIN))], PATCH + MARGIN)


def unchanged(x: Tensor) -> Tensor:
    """The trigger that is none."""
    return x


def quarter_turn(x: Tensor) -> Tensor:
    """`[n, channels, side, side]` turned by 90 degrees against the clock."""
    return x.rot90(dims=(-2, -1))


def bars(input_shape: Sequence[int], parts: int) -> list[Overlay]:
    """`parts` bars, two in a row; the first is in the upper left corner.

    Raises:
        ConfigurationError: an image too small for them.
    """
    shape, places = tuple(input_shape), []
    for part in range(parts):
        row, column = (part // 2) * (1 + GAP), (part % 2) * (BAR + GAP)
        places.append((slice(row, row + 1), slice(column, column + BAR)))
    height, width = places[-1][0].stop, places[min(1, parts - 1)][1].stop
    if shape[1] < height or shape[2] < width:
        raise ConfigurationError(f"{parts} bars need images of {height} x {width} pixels, not {shape[1]} x {shape[2]}")
    return [_white(shape, [place], 1) for place in places]


def union(overlays: Sequence[Overlay]) -> Overlay:
    """All of some overlays at once; where they overlap, the last is on top."""
    pattern, opacity = torch.zeros_like(overlays[0].pattern), torch.zeros_like(overlays[0].opacity)
    for overlay in overlays:
        covered = overlay.opacity > 0
        pattern = torch.where(covered, overlay.pattern, pattern)
        opacity = torch.where(covered, overlay.opacity, opacity)
    return Overlay(pattern, opacity)


def _white(shape: tuple[int, ...], places: Sequence[tuple[slice, slice]], least: int) -> Overlay:
    if min(shape[1:]) < least:
        raise ConfigurationError(f"the patch needs images of {least} x {least} pixels, not {shape[1]} x {shape[2]}")
    opacity = torch.zeros(shape)
    for rows, columns in places:
        opacity[:, rows, columns] = 1.0
    return Overlay(opacity.clone(), opacity)
