"""The eight messages of the protocol and their bytes. Lists of nodes ascend; nothing is ever unpickled.

server -> client                               client -> server
KeysRequest    context, plan                   KeysReply      two public keys, perhaps signed
SharesRequest  the neighbours' public keys     SharesReply    a pair of sealed shares for each neighbour
MaskRequest    the shares that arrived         MaskedInput    the masked vector
UnmaskRequest  who survived, who dropped       UnmaskReply    one share for each of them
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from fedmeta.privacy.secagg.context import TAG_BYTES, GroupContext
from fedmeta.privacy.secagg.failures import Refused
from fedmeta.privacy.secagg.packing import Packer, Unpacker

KEY_BYTES = 32
SHARE_BYTES = 33
SEALED_BYTES = 2 * SHARE_BYTES + 16  # both shares and Poly1305's tag
MAX_LENGTH = 2**40


class Stage(IntEnum):
    """Where a session stands: the exchange that it takes part in next."""

    KEYS = 0
    SHARES = 1
    MASK = 2
    UNMASK = 3
    ENDED = 4


@dataclass(frozen=True)
class PublicKeys:
    """What a node makes known: two X25519 keys, and its identity's signature over them where it has one.

    Args:
        mask: 32 bytes; pairwise masks come from it.
        seal: 32 bytes; shares are sealed under it.
        identity: the identity's public key as SubjectPublicKeyInfo (DER), or empty.
        signature: over `identities.statement(context, node, keys)`, or empty.
    """

    mask: bytes
    seal: bytes
    identity: bytes = b""
    signature: bytes = b""

    def pack(self, packer: Packer) -> Packer:
        """Append the keys to a message."""
        return packer.fixed(self.mask).fixed(self.seal).text(self.identity).text(self.signature)

    @classmethod
    def unpack(cls, unpacker: Unpacker) -> Self:
        """Read what `pack` wrote."""
        return cls(unpacker.fixed(KEY_BYTES), unpacker.fixed(KEY_BYTES), unpacker.text(), unpacker.text())


class _OnWire:
    """What all messages can do."""

    KIND: ClassVar[int]

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> Self:
        """Read a message of this kind.

        Raises:
            Refused: another kind, or what `parse` refuses.
        """
        found = parse(data)
        if not isinstance(found, cls):
            raise Refused(f"a {type(found).__name__} came where a {cls.__name__} is due")
        return found


@dataclass(frozen=True)
class KeysRequest(_OnWire):
    """Invitation to a group: who is in it and what will be summed.

    Args:
        context: run, round, group, members.
        degree: neighbours of a node, at most.
        threshold: shares that rebuild a secret.
        bits: 32 or 64; vectors are summed modulo 2^bits.
        length: coordinates of an encoded vector.
    """

    KIND = 1
    context: GroupContext
    degree: int
    threshold: int
    bits: int
    length: int

    def to_bytes(self) -> bytes:
        """The message's bytes."""
        packer = self.context.pack(_start(self.KIND))
        return (
            packer.number(self.degree, 4).number(self.threshold, 4).number(self.bits, 1).number(self.length, 8).data()
        )

    @classmethod
    def unpack(cls, unpacker: Unpacker) -> Self:
        """Read the fields after the kind."""
        context = GroupContext.unpack(unpacker)
        return cls(context, unpacker.number(4), unpacker.number(4), unpacker.number(1), unpacker.number(8))


@dataclass(frozen=True)
class KeysReply(_OnWire):
    """A node's public keys for this context."""

    KIND = 2
    tag: bytes
    keys: PublicKeys

    def to_bytes(self) -> bytes:
        """The message's bytes."""
        return self.keys.pack(_start(self.KIND).fixed(self.tag)).data()

    @classmethod
    def unpack(cls, unpacker: Unpacker) -> Self:
        """Read the fields after the kind."""
        return cls(unpacker.fixed(TAG_BYTES), PublicKeys.unpack(unpacker))


@dataclass(frozen=True)
class SharesRequest(_OnWire):
    """The public keys of a node's neighbours: node -> keys, without the node itself."""

    KIND = 3
    tag: bytes
    peers: Mapping[int, PublicKeys]

    def to_bytes(self) -> bytes:
        """The message's bytes."""
        packer = _start(self.KIND).fixed(self.tag).identifiers(sorted(self.peers))
        for _, keys in sorted(self.peers.items()):
            keys.pack(packer)
        return packer.data()

    @classmethod
    def unpack(cls, unpacker: Unpacker) -> Self:
        """Read the fields after the kind."""
        tag, peers = unpacker.fixed(TAG_BYTES), unpacker.identifiers()
        return cls(tag, {peer: PublicKeys.unpack(unpacker) for peer in peers})


@dataclass(frozen=True)
class SharesReply(_OnWire):
    """A node's secrets, shared out and sealed.

    Args:
        commitment: 32 bytes that bind the node to its self-mask seed, so that a rebuilt one can be checked.
        sealed: for each neighbour of the request, ascending: both shares under that neighbour's key, 82 bytes.
    """

    KIND = 4
    tag: bytes
    commitment: bytes
    sealed: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        """The message's bytes."""
        packer = _start(self.KIND).fixed(self.tag).fixed(self.commitment).number(len(self.sealed), 4)
        return packer.fixed(b"".join(self.sealed)).data()

    @classmethod
    def unpack(cls, unpacker: Unpacker) -> Self:
        """Read the fields after the kind."""
        tag, commitment = unpacker.fixed(TAG_BYTES), unpacker.fixed(KEY_BYTES)
        return cls(tag, commitment, _slices(unpacker, SEALED_BYTES))


@dataclass(frozen=True)
class MaskRequest(_OnWire):
    """The sealed shares that arrived for a node: sender -> 82 bytes. These senders are whom it masks with."""

    KIND = 5
    tag: bytes
    sealed: Mapping[int, bytes]

    def to_bytes(self) -> bytes:
        """The message's bytes."""
        packer = _start(self.KIND).fixed(self.tag).identifiers(sorted(self.sealed))
        return packer.fixed(b"".join(sealed for _, sealed in sorted(self.sealed.items()))).data()

    @classmethod
    def unpack(cls, unpacker: Unpacker) -> Self:
        """Read the fields after the kind."""
        tag, senders = unpacker.fixed(TAG_BYTES), unpacker.identifiers()
        return cls(tag, {sender: unpacker.fixed(SEALED_BYTES) for sender in senders})


@dataclass(frozen=True, eq=False)
class MaskedInput(_OnWire):
    """A masked vector: `[length]`, uint32 or uint64. Read from bytes it is a read-only view of them."""

    KIND = 6
    tag: bytes
    vector: npt.NDArray[Any]

    def to_bytes(self) -> bytes:
        """The message's bytes."""
        values = np.ascontiguousarray(self.vector, dtype=self.vector.dtype.newbyteorder("<"))
        start = _start(self.KIND).fixed(self.tag).number(8 * values.itemsize, 1).number(values.size, 8).data()
        return b"".join((start, values.view(np.uint8).data))

    @classmethod
    def unpack(cls, unpacker: Unpacker) -> Self:
        """Read the fields after the kind."""
        tag, bits, length = unpacker.fixed(TAG_BYTES), unpacker.number(1), unpacker.number(8)
        if bits not in (32, 64) or length > MAX_LENGTH:
            raise Refused(f"a masked vector of {length} words of {bits} bits: words have 32 or 64")
        return cls(tag, np.frombuffer(unpacker.view(length * bits // 8), dtype=f"<u{bits // 8}"))


@dataclass(frozen=True)
class UnmaskRequest(_OnWire):
    """Which of a node's neighbours, itself included, sent a masked vector, and which shared but did not."""

    KIND = 7
    tag: bytes
    survivors: tuple[int, ...]
    dropped: tuple[int, ...]

    def to_bytes(self) -> bytes:
        """The message's bytes."""
        return _start(self.KIND).fixed(self.tag).identifiers(self.survivors).identifiers(self.dropped).data()

    @classmethod
    def unpack(cls, unpacker: Unpacker) -> Self:
        """Read the fields after the kind."""
        return cls(unpacker.fixed(TAG_BYTES), unpacker.identifiers(), unpacker.identifiers())


@dataclass(frozen=True)
class UnmaskReply(_OnWire):
    """Shares of the survivors' self-mask seeds, then of the dropped nodes' mask keys, 33 bytes each, as requested."""

    KIND = 8
    tag: bytes
    shares: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        """The message's bytes."""
        packer = _start(self.KIND).fixed(self.tag).number(len(self.shares), 4)
        return packer.fixed(b"".join(self.shares)).data()

    @classmethod
    def unpack(cls, unpacker: Unpacker) -> Self:
        """Read the fields after the kind."""
        return cls(unpacker.fixed(TAG_BYTES), _slices(unpacker, SHARE_BYTES))


Request = KeysRequest | SharesRequest | MaskRequest | UnmaskRequest
Reply = KeysReply | SharesReply | MaskedInput | UnmaskReply
Message = Request | Reply

_KINDS: tuple[type[Message], ...] = (
    *(KeysRequest, KeysReply, SharesRequest, SharesReply),
    *(MaskRequest, MaskedInput, UnmaskRequest, UnmaskReply),
)
_READERS: dict[int, Callable[[Unpacker], Message]] = {kind.KIND: kind.unpack for kind in _KINDS}


def parse(data: bytes | memoryview) -> Message:
    """Read a message of any kind.

    Raises:
        Refused: an unknown kind, a field cut short, bytes left over, an unordered list of nodes.
    """
    unpacker = Unpacker(data)
    kind = unpacker.number(1)
    if kind not in _READERS:
        raise Refused(f"a message of kind {kind}: kinds are 1 to {len(_READERS)}")
    message = _READERS[kind](unpacker)
    unpacker.finish()
    return message


def _start(kind: int) -> Packer:
    return Packer().number(kind, 1)


def _slices(unpacker: Unpacker, width: int) -> tuple[bytes, ...]:
    """Equally long byte strings, their count in front."""
    data = unpacker.fixed(width * unpacker.number(4))
    return tuple(data[start : start + width] for start in range(0, len(data), width))
