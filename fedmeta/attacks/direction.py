"""Malicious directions and the benign distances that bound a step along them (Shejwalkar & Houmansadr, NDSS 2021)."""

import warnings
from typing import Literal

import torch
from torch import Tensor

Direction = Literal["unit", "sign", "std"]


def perturbation(rows: Tensor, direction: Direction) -> Tensor:
    """The direction p `[D]` along which malicious updates leave the mean mu of rows `[k, D]` (section IV-B).

    `unit` is -mu / ||mu||, `sign` is -sign(mu), `std` is minus the standard deviation (ddof = 1; zero for one row).
    """
    mean = rows.mean(dim=0)
    if direction == "sign":
        return -mean.sign()
    if direction == "unit":
        norm = mean.norm()
        return -mean / norm if norm > 0 else torch.zeros_like(mean)
    return -rows.std(dim=0, correction=1) if rows.shape[0] > 1 else torch.zeros_like(mean)


def squared_distances(rows: Tensor) -> Tensor:
    """Squared distances `[k, k]` between rows `[k, D]`, which are centred first so that little cancels."""
    centred = rows - rows.mean(dim=0)
    norms = (centred * centred).sum(dim=1)
    found = (norms[:, None] + norms[None, :] - 2 * centred @ centred.T).clamp(min=0)
    return found.fill_diagonal_(0)


def warn_of_no_room(attack: str, gamma: Tensor, squared_length: Tensor) -> None:
    """Warn where the malicious rows are the mean itself, since the direction or the step along it is zero."""
    if squared_length == 0 or gamma == 0:
        why = "its direction is zero" if squared_length == 0 else "the benign updates are one or all alike"
        warnings.warn(f"{attack} sends the mean of the known updates, which is no attack: {why}", stacklevel=4)
