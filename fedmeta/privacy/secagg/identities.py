"""A node's long-lived identity vouches for its keys: Ed25519, or ECDSA on P-384, which a SuperNode's keys are."""

from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP384R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_ssh_public_key,
)

from fedmeta.errors import ConfigurationError
from fedmeta.privacy.secagg.context import GroupContext
from fedmeta.privacy.secagg.failures import Refused
from fedmeta.privacy.secagg.messages import PublicKeys

PrivateIdentity = Ed25519PrivateKey | EllipticCurvePrivateKey
PublicIdentity = Ed25519PublicKey | EllipticCurvePublicKey


def public_bytes(public: PublicIdentity) -> bytes:
    """A public identity as a node's trust list holds it and messages carry it: SubjectPublicKeyInfo, DER."""
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def read_trusted(path: Path, where: str) -> frozenset[bytes]:
    """A trust list: a file of public keys in OpenSSH's form, one a line; empty lines and comments (#) are passed over.

    Args:
        path: the file.
        where: the setting that names it, for messages.

    Raises:
        ConfigurationError: a file that cannot be read, or a line that is no public key.
    """
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
        keys = [load_ssh_public_key(line.encode()) for line in lines if line and not line.startswith("#")]
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{where} = '{path}' holds no list of public keys: {error}") from error
    return frozenset(public_bytes(key) for key in keys)  # type: ignore[arg-type]


def statement(context: GroupContext, node: int, mask: bytes, seal: bytes) -> bytes:
    """What an identity signs: this node has these two keys in this context."""
    return b"".join((b"fedmeta secagg keys", context.binding, node.to_bytes(8, "little"), mask, seal))


def sign(identity: PrivateIdentity, context: GroupContext, node: int, keys: PublicKeys) -> PublicKeys:
    """The keys with the identity's public key and signature.

    Raises:
        ConfigurationError: a key of another kind than Ed25519 and P-384.
    """
    message = statement(context, node, keys.mask, keys.seal)
    if isinstance(identity, Ed25519PrivateKey):
        signature = identity.sign(message)
    elif isinstance(identity, EllipticCurvePrivateKey) and isinstance(identity.curve, SECP384R1):
        signature = identity.sign(message, ECDSA(SHA384()))
    else:
        raise ConfigurationError(
            f"secure aggregation: an identity key must be Ed25519 or ECDSA P-384, not {type(identity).__name__}"
        )
    return PublicKeys(keys.mask, keys.seal, public_bytes(identity.public_key()), signature)


def verify(context: GroupContext, node: int, keys: PublicKeys, trusted: frozenset[bytes]) -> None:
    """Check that a trusted identity signed a node's keys for this context.

    Args:
        trusted: the identities' public keys, as `public_bytes` writes them, learnt from somebody else than the server.

    Raises:
        Refused: no signature, one of an identity that is not trusted, or a signature that does not hold.
    """
    if keys.identity not in trusted:
        known = "is not in the trust list" if keys.identity else "is not given"
        raise Refused(f"node {node}'s identity {known}; only keys of trusted identities are masked with")
    public = load_der_public_key(keys.identity)
    message = statement(context, node, keys.mask, keys.seal)
    try:
        if isinstance(public, Ed25519PublicKey):
            public.verify(keys.signature, message)
        elif isinstance(public, EllipticCurvePublicKey) and isinstance(public.curve, SECP384R1):
            public.verify(keys.signature, message, ECDSA(SHA384()))
        else:
            raise Refused(f"node {node}'s identity is neither Ed25519 nor ECDSA P-384")
    except InvalidSignature as error:
        raise Refused(f"the signature over node {node}'s keys does not hold for this node, round and group") from error
