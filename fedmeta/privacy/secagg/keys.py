"""X25519 key pairs (RFC 7748) and the keys derived from them by HKDF-SHA256 (RFC 5869), bound to one context."""

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedmeta.privacy.secagg.failures import Refused

KEY_BYTES = 32


def new_private_key() -> bytes:
    """A private key from the operating system's generator, 32 bytes."""
    return X25519PrivateKey.generate().private_bytes_raw()


def public_key(private: bytes) -> bytes:
    """The public key of a private one, 32 bytes."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


class Exchange:
    """Diffie-Hellman of one private key with many public ones: the private key is set up once."""

    def __init__(self, private: bytes) -> None:
        self._private = X25519PrivateKey.from_private_bytes(private)

    def shared(self, public: bytes) -> bytes:
        """The shared secret, 32 bytes.

        Raises:
            Refused: a public key of small order, for which the secret would be zero whatever the private key.
        """
        try:
            return self._private.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError as error:
            raise Refused("a public key is of small order: whoever made it knows the shared secret") from error


def check_public(public: bytes) -> None:
    """Refuse a public key of small order before anybody exchanges with it.

    Raises:
        Refused: such a key. Its owner's neighbours would all refuse it, and end.
    """
    Exchange(b"\x01" * KEY_BYTES).shared(public)


def derive(secret: bytes, binding: bytes, label: bytes, *nodes: int) -> bytes:
    """32 bytes for one purpose: HKDF-SHA256(secret, info = binding | label | node identifiers).

    Args:
        secret: a Diffie-Hellman result or a seed.
        binding: `GroupContext.binding`; the same secret gives unrelated keys in another context.
        label: the purpose, none a prefix of another.
        nodes: whom the key belongs to, in an order that both sides know.
    """
    info = b"".join((binding, label, *(node.to_bytes(8, "little") for node in nodes)))
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(secret)


def pairwise_mask_key(secret: bytes, binding: bytes, one: int, other: int) -> bytes:
    """The key of the mask that two neighbours share; the same from either side."""
    return derive(secret, binding, b"mask", min(one, other), max(one, other))


def sealing_key(secret: bytes, binding: bytes, one: int, other: int) -> bytes:
    """The key under which two neighbours seal shares for each other."""
    return derive(secret, binding, b"enc", min(one, other), max(one, other))


def self_mask_key(seed: bytes, binding: bytes, node: int) -> bytes:
    """The key of a node's own mask, from its seed b."""
    return derive(seed, binding, b"self", node)


def commitment(seed: bytes, binding: bytes, node: int) -> bytes:
    """What a node publishes of its seed b: one-way, as b is 32 random bytes, and independent of the mask's key."""
    return derive(seed, binding, b"commit", node)
