"""A client session as bytes. An ended one holds its context's run and round and no secret."""

from typing import TYPE_CHECKING, Any

from fedmeta.privacy.secagg.context import GroupContext
from fedmeta.privacy.secagg.failures import Refused
from fedmeta.privacy.secagg.messages import SHARE_BYTES, Stage
from fedmeta.privacy.secagg.packing import Packer, Unpacker

if TYPE_CHECKING:
    from fedmeta.privacy.secagg.client import ClientSession

VERSION = 1
_KEYS = 64  # a peer's sealing key and mask key
_SHARES = 2 * SHARE_BYTES


def pack(session: "ClientSession") -> bytes:
    """A session's fields, end to end."""
    packer = Packer().number(VERSION, 1).number(session.node, 8).number(session.stage, 1).number(session.released, 1)
    session.context.pack(packer).number(session.degree, 4).number(session.threshold, 4)
    packer.number(session.bits, 1).number(session.length, 8).text(session.private_keys).text(session.seed)
    for table in (session.peer_keys, session.shares):
        packer.identifiers(sorted(table))
        packer.fixed(b"".join(value for _, value in sorted(table.items())))
    return packer.data()


def unpack(data: bytes) -> dict[str, Any]:
    """The fields that `pack` wrote, by name.

    Raises:
        Refused: bytes of another version, or cut short.
    """
    reader = Unpacker(data)
    version = reader.number(1)
    if version != VERSION:
        raise Refused(f"a client's state of version {version}; this is version {VERSION}")
    node, stage, released = reader.number(8), reader.number(1), bool(reader.number(1))
    if stage > Stage.ENDED:
        raise Refused(f"a client's state names stage {stage}")
    found: dict[str, Any] = {"node": node, "stage": Stage(stage), "released": released}
    found["context"] = GroupContext.unpack(reader)
    found["degree"], found["threshold"] = reader.number(4), reader.number(4)
    found["bits"], found["length"] = reader.number(1), reader.number(8)
    found["private_keys"], found["seed"] = reader.text(), reader.text()
    for name, width in (("peer_keys", _KEYS), ("shares", _SHARES)):
        found[name] = {node: reader.fixed(width) for node in reader.identifiers()}
    reader.finish()
    return found
