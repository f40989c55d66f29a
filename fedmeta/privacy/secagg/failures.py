"""How the protocol ends early: one party refuses a message, or the group cannot be summed."""

from fedmeta.errors import FedmetaError


class Refused(FedmetaError):
    """A message that the protocol does not allow: forged, altered, replayed, out of order, or asking for too much.

    A client that refuses has deleted its secrets and answers nothing more in this group. A server that refuses a reply
    counts its sender among the dropped.
    """


class Aborted(FedmetaError):
    """Too few clients are left to remove the masks: there is no sum, and no part of one."""
