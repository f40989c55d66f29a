"""What an attack on updates is: a pure function of the updates that the attackers know."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedmeta.attacks import ATTACKS
from fedmeta.errors import FedmetaError
from fedmeta.parameters import require_number


class AttackImpossible(FedmetaError):
    """An attack that cannot act on what it was given: too few updates, no generator, a majority of attackers."""


class Verdict(NamedTuple):
    """What a defence makes of a round.

    Attributes:
        vector: `[D]`, the aggregated update.
        flagged: `[n]` bool, the rows that it leaves out as malicious; None where it flags none.
    """

    vector: Tensor
    flagged: Tensor | None = None


Pipeline = Callable[[Tensor], Verdict]
"""A defence as an attacker sees it: updates `[n, D]`, benign rows first, to its verdict. It must not change them."""


@dataclass(frozen=True)
class AttackContext:
    """What an attacker may know beside updates.

    Attributes:
        round: counted from 1; 0 outside a run.
        participants: clients of the round, attackers included; None: known rows and attackers.
        pipeline: the server's defence, for an attacker that knows it.
        objective: what the attacker wants of the aggregated update `[D]`, to be maximised; None: that it is far from
            the mean of the known updates.
        memory: what the attack's `remember` kept of the rounds before.
    """

    round: int = 0
    participants: int | None = None
    pipeline: Pipeline | None = None
    objective: Callable[[Tensor], float] | None = None
    memory: Mapping[str, Tensor] = field(default_factory=dict)


class UpdateAttack(ABC):
    """Malicious updates from the updates that the attackers know; subclasses are frozen dataclasses.

    Updates are deltas of shared parameters, theta_local - theta_global. Known rows are those of the benign clients for
    an omniscient attacker, the attackers' own honest ones for colluders, and the attacker's own for a lone one.

    Attributes:
        kind: `update`: it rewrites updates and touches no data.
        known_rows: fewest known rows that it can act on.
        random: whether it draws, and so needs a generator.
    """

    kind: ClassVar[str] = "update"
    known_rows: ClassVar[int] = 1
    random: ClassVar[bool] = False

    @property
    def needs_benign(self) -> bool:
        """Whether as many known rows as attackers are too few: all that colluders have."""
        return False

    def __call__(
        self,
        benign_updates: Any,
        *,
        n_malicious: int,
        generator: torch.Generator | None = None,
        context: AttackContext = AttackContext(),
    ) -> Tensor:
        """The malicious rows.

        Args:
            benign_updates: known updates, a float tensor or array `[k, D]`, finite; never modified.
            n_malicious: m >= 0, rows to make.
            generator: a CPU generator, needed where `random`.
            context: what else is known.

        Returns:
            `[m, D]` in the dtype of `benign_updates`, computed in float64; shares no memory with it.

        Raises:
            AttackImpossible: fewer known rows than `known_rows`, values that are not finite, or no generator.
            ValueError: not a matrix, or m < 0.
        """
        require_number("n_malicious", n_malicious, whole=True)
        if not isinstance(benign_updates, torch.Tensor | np.ndarray | Sequence) or isinstance(benign_updates, str):
            raise ValueError(f"updates must be a matrix [k, D], not {type(benign_updates).__name__}")
        rows = torch.as_tensor(benign_updates).detach()
        if rows.dim() != 2 or rows.shape[1] == 0:
            raise ValueError(f"updates must be a matrix [k, D] with D >= 1, not of shape {list(rows.shape)}")
        if n_malicious < 0:
            raise ValueError(f"n_malicious = {n_malicious} must be at least 0")
        dtype = rows.dtype if rows.is_floating_point() else torch.float32
        self._check(rows, generator)
        if n_malicious == 0:
            return torch.empty((0, rows.shape[1]), dtype=dtype)
        crafted = self.craft(rows.to(torch.float64), n_malicious, generator, context)
        # `repeat` owns its memory, where `expand` would let one attacker write into all.
        return (crafted.repeat(n_malicious, 1) if crafted.dim() == 1 else crafted).to(dtype)

    @abstractmethod
    def craft(
        self, rows: Tensor, n_malicious: int, generator: torch.Generator | None, context: AttackContext
    ) -> Tensor:
        """Float64 rows `[k, D]`, at least `known_rows`, to `[D]` for all attackers or `[m, D]`."""

    def remember(self, memory: Mapping[str, Tensor], known: Tensor) -> dict[str, Tensor]:
        """What to know in the next round after seeing this round's rows `[k, D]`; nothing for most attacks."""
        return dict(memory)

    def _check(self, rows: Tensor, generator: torch.Generator | None) -> None:
        name = ATTACKS.name_of(self)
        if rows.shape[0] < self.known_rows:
            raise AttackImpossible(
                f"{name} needs at least {self.known_rows} known updates and has {rows.shape[0]}: "
                "give it more clients, or more knowledge (attack.knowledge)"
            )
        if not torch.isfinite(rows).all():
            raise AttackImpossible(f"{name} was given updates that are NaN or infinite: leave such rows out")
        if self.random and generator is None:
            raise AttackImpossible(f"{name} draws at random: pass generator=torch.Generator().manual_seed(...)")


@dataclass(frozen=True)
class NoAttack:
    """Nobody attacks."""

    kind: ClassVar[str] = "none"
