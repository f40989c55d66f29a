"""Shares sealed for one neighbour with ChaCha20-Poly1305 (RFC 8439)."""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fedmeta.privacy.secagg.failures import Refused


def seal(key: bytes, sender: int, recipient: int, plaintext: bytes) -> bytes:
    """Encrypt and authenticate; 16 bytes longer than `plaintext`.

    A key serves one pair of nodes in one context and each of the two seals one message under it, so that the direction
    is nonce enough and need not travel.
    """
    return ChaCha20Poly1305(key).encrypt(_nonce(sender, recipient), plaintext, _names(sender, recipient))


def unseal(key: bytes, sender: int, recipient: int, sealed: bytes) -> bytes:
    """The plaintext.

    Raises:
        Refused: sealed by another node, for another, in another context, or altered since.
    """
    try:
        return ChaCha20Poly1305(key).decrypt(_nonce(sender, recipient), sealed, _names(sender, recipient))
    except InvalidTag as error:
        raise Refused(
            f"what came as node {sender}'s shares was not sealed by it for node {recipient} in this round and group, "
            "or was altered"
        ) from error


def _nonce(sender: int, recipient: int) -> bytes:
    return bytes(11) + (b"\x00" if sender < recipient else b"\x01")


def _names(sender: int, recipient: int) -> bytes:
    return sender.to_bytes(8, "little") + recipient.to_bytes(8, "little")
