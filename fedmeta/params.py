"""Parameters and the flat vector: which tensors a model shares, and how they become one row of an update matrix."""

import fnmatch
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fedmeta.errors import ConfigurationError

Params = dict[str, Tensor]
"""Trainable parameters by name. Our models keep no running statistics, so there is nothing else to a model."""

Role = Literal["shared", "personal", "frozen"]


@dataclass(frozen=True)
class Entry:
    """One named tensor: its shape and its role."""

    name: str
    shape: tuple[int, ...]
    role: Role

    @property
    def size(self) -> int:
        """Number of elements."""
        size = 1
        for length in self.shape:
            size *= length
        return size


@dataclass(frozen=True)
class ParamSpec:
    """The order, shapes and roles of a model's parameters; both sides of the wire derive the same one.

    *shared* entries travel and are aggregated, *personal* ones are trained but never leave the client, *frozen* ones
    never move. Only shared entries are in the flat vector.
    """

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, params: Mapping[str, Tensor], personal: Iterable[str] = (), frozen: Iterable[str] = ()) -> "ParamSpec":
        """Describe parameters; `personal` and `frozen` are glob patterns over names, such as `head.*`.

        Raises:
            ConfigurationError: a pattern that matches nothing, a name that is both, or nothing left to share.
        """
        names = list(params)
        chosen: dict[str, Role] = {}
        for role, patterns in (("personal", personal), ("frozen", frozen)):
            for pattern in patterns:
                matched = fnmatch.filter(names, pattern)
                if not matched:
                    raise ConfigurationError(
                        f"sharing.{role} pattern '{pattern}' matches no parameter of {', '.join(names)}"
                    )
                for name in matched:
                    if chosen.get(name, role) != role:
                        raise ConfigurationError(f"parameter '{name}' cannot be both {chosen[name]} and {role}")
                    chosen[name] = role  # type: ignore[assignment]
        entries = tuple(Entry(name, tuple(value.shape), chosen.get(name, "shared")) for name, value in params.items())
        if all(entry.role != "shared" for entry in entries):
            raise ConfigurationError(
                "no parameter is shared: nothing could be aggregated. Free some of sharing.personal or sharing.frozen"
            )
        return cls(entries)

    def select(self, role: Role) -> tuple[Entry, ...]:
        """The entries of one role, in order."""
        return tuple(entry for entry in self.entries if entry.role == role)

    def size(self, role: Role = "shared") -> int:
        """Elements of one role: D for `shared`."""
        return sum(entry.size for entry in self.select(role))

    @property
    def hash(self) -> str:
        """SHA-256 over names, shapes and roles, in hexadecimal; both sides must have the same."""
        described = [[entry.name, list(entry.shape), entry.role] for entry in self.entries]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()

    def holds(self, lacks: Iterable[str]) -> Tensor:
        """`[D]` bool: the elements of the flat vector that do not belong to entries of the given glob patterns.

        Raises:
            ConfigurationError: a pattern that matches nothing shared, or nothing that would be left.
        """
        entries = self.select("shared")
        names = [entry.name for entry in entries]
        for pattern in lacks:
            if not fnmatch.filter(names, pattern):
                raise ConfigurationError(
                    f"the data set has clients that lack '{pattern}', and this model shares {', '.join(names)}: "
                    "choose the model that the data set is made for"
                )
        held = [not any(fnmatch.fnmatch(name, pattern) for pattern in lacks) for name in names]
        if not any(held):
            raise ConfigurationError(f"a client that lacks {', '.join(lacks)} has nothing of the model to train")
        return torch.cat([torch.full((entry.size,), kept) for entry, kept in zip(entries, held, strict=True)])

    def flatten(self, params: Mapping[str, Tensor], role: Role = "shared") -> Tensor:
        """Concatenate the entries of one role: tensors `[*batch, *shape]` to `[*batch, D]`."""
        entries = self.select(role)
        if not entries:
            return torch.zeros(0)
        leading = params[entries[0].name].dim() - len(entries[0].shape)
        return torch.cat(
            [
                params[entry.name].flatten(start_dim=leading) if entry.shape else params[entry.name].unsqueeze(-1)
                for entry in entries
            ],
            dim=-1,
        )

    def unflatten(self, vector: Tensor, role: Role = "shared") -> Params:
        """The inverse of `flatten`: `[*batch, D]` to views `[*batch, *shape]` by name.

        Raises:
            ValueError: the last axis is not D.
        """
        entries = self.select(role)
        if vector.shape[-1] != self.size(role):
            raise ValueError(f"a vector of {vector.shape[-1]} {role} parameters where the model has {self.size(role)}")
        pieces = vector.split([entry.size for entry in entries], dim=-1)
        return {
            entry.name: piece.reshape((*vector.shape[:-1], *entry.shape))
            for entry, piece in zip(entries, pieces, strict=True)
        }


def trainable_parameters(model: torch.nn.Module) -> Params:
    """A model's parameters, a tied one once, detached.

    Raises:
        ConfigurationError: the model has buffers (running statistics), which are neither trained nor aggregated here.
    """
    buffers = [name for name, _ in model.named_buffers()]
    if buffers:
        raise ConfigurationError(
            f"the model keeps buffers ({', '.join(buffers[:3])}): they are not trained and have no place in an update. "
            "Use track_running_stats=False or group normalisation"
        )
    return {name: value.detach() for name, value in model.named_parameters()}
