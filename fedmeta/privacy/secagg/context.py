"""What one group's exchange is bound to: every key, signature and sealed share holds in this context only."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Self

from fedmeta.errors import ConfigurationError
from fedmeta.parameters import require_number
from fedmeta.privacy.secagg.failures import Refused
from fedmeta.privacy.secagg.packing import Packer, Unpacker

VERSION = b"fedmeta-secagg-1"
TAG_BYTES = 16
MAX_IDENTIFIER = 2**64 - 1


@dataclass(frozen=True)
class GroupContext:
    """Run, round, group and members of one execution of the protocol.

    Args:
        run: names the run; at most 255 bytes of UTF-8. A client joins each (run, round) with an unmasking once only.
        round: 0 <= round < 2^64.
        group: number of the group within the round, 0 <= group < 2^32.
        members: identifiers of all invited nodes, distinct, each 0 <= identifier < 2^64; kept in ascending order.

    Raises:
        ConfigurationError: a value out of these bounds.
    """

    run: str
    round: int
    group: int
    members: tuple[int, ...]

    def __post_init__(self) -> None:
        require_number("round", self.round, whole=True)
        require_number("group", self.group, whole=True)
        if not isinstance(self.run, str) or not isinstance(self.members, Iterable):
            raise ConfigurationError(f"secure aggregation: run = {self.run!r:.60} must be a text, members a list")
        for member in self.members:
            require_number("members: a node's identifier", member, whole=True)
        ordered = tuple(sorted(int(member) for member in self.members))
        object.__setattr__(self, "members", ordered)
        if len(set(ordered)) != len(ordered):
            twice = next(a for a, b in pairwise(ordered) if a == b)
            raise ConfigurationError(f"secure aggregation: node {twice} is in group {self.group} twice; name it once")
        if ordered and not 0 <= ordered[0] <= ordered[-1] <= MAX_IDENTIFIER:
            raise ConfigurationError("secure aggregation: members: node identifiers must be >= 0 and < 2^64")
        if len(self.run.encode()) > 255 or not 0 <= self.round < 2**64 or not 0 <= self.group < 2**32:
            raise ConfigurationError(
                f"secure aggregation: run {self.run!r} must be at most 255 bytes, round {self.round} within [0, 2^64) "
                f"and group {self.group} within [0, 2^32)"
            )

    @cached_property
    def binding(self) -> bytes:
        """version | run | round | group | SHA-256(sorted member identifiers), unambiguously framed."""
        members = hashlib.sha256(Packer().identifiers(self.members).data()).digest()
        packer = Packer().fixed(VERSION).text(self.run.encode()).number(self.round, 8).number(self.group, 4)
        return packer.fixed(members).data()

    @cached_property
    def tag(self) -> bytes:
        """A short name of the context, carried by every message: a message of another round or group is refused."""
        return hashlib.sha256(self.binding).digest()[:TAG_BYTES]

    def pack(self, packer: Packer) -> Packer:
        """Append the context to a message."""
        packer.text(self.run.encode()).number(self.round, 8).number(self.group, 4)
        return packer.identifiers(self.members)

    @classmethod
    def unpack(cls, unpacker: Unpacker) -> Self:
        """Read what `pack` wrote.

        Raises:
            Refused: values that no context can have.
        """
        try:
            return cls(unpacker.text().decode(), unpacker.number(8), unpacker.number(4), unpacker.identifiers())
        except (UnicodeDecodeError, ConfigurationError) as error:
            raise Refused(f"an invitation names no possible group: {error}") from error
