"""Secure aggregation: a server learns the sum of a group's vectors, and nothing else about any of them.

SecAgg+ (Bell et al., "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead", CCS 2020) over X25519,
HKDF-SHA256, ChaCha20-Poly1305, Shamir's scheme and AES-256-CTR. A `ServerSession` drives one group through four
exchanges, a `ClientSession` answers them; both are state machines over the typed messages of `messages`, and know
nothing of how those travel. Needs numpy and `cryptography` only.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedmeta.privacy.secagg.client import ClientSession, Policy
    from fedmeta.privacy.secagg.context import GroupContext
    from fedmeta.privacy.secagg.encoding import Encoder, FixedPoint
    from fedmeta.privacy.secagg.failures import Aborted, Refused
    from fedmeta.privacy.secagg.messages import parse
    from fedmeta.privacy.secagg.plan import Plan, choose_plan
    from fedmeta.privacy.secagg.server import GroupSum, ServerSession

_HOME = {
    "Aborted": "failures",
    "ClientSession": "client",
    "Encoder": "encoding",
    "FixedPoint": "encoding",
    "GroupContext": "context",
    "GroupSum": "server",
    "Plan": "plan",
    "Policy": "client",
    "Refused": "failures",
    "ServerSession": "server",
    "choose_plan": "plan",
    "parse": "messages",
}

__all__ = [
    "Aborted",
    "ClientSession",
    "Encoder",
    "FixedPoint",
    "GroupContext",
    "GroupSum",
    "Plan",
    "Policy",
    "Refused",
    "ServerSession",
    "choose_plan",
    "parse",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"fedmeta.privacy.secagg.{_HOME[name]}"), name)
    raise AttributeError(f"module 'fedmeta.privacy.secagg' has no attribute '{name}'")
