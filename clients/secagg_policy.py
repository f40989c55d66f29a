"""What a node demands of secure aggregation by its own configuration, which no server can set.

--node-config "secagg='required' secagg-smallest-group=10 secagg-corrupt=0.2 secagg-active=true
               secagg-identity='/etc/fedmeta/node.key' secagg-trusted='/etc/fedmeta/nodes.pub'"
"""

from pathlib import Path
from typing import TYPE_CHECKING

from flwr.app import Context

from fedmeta.errors import ConfigurationError
from fedmeta.privacy.secagg import Policy

if TYPE_CHECKING:
    from fedmeta.privacy.secagg.identities import PrivateIdentity


def is_required(context: Context) -> bool:
    """Whether this node gives updates under masks only.

    Raises:
        ConfigurationError: another word than `required` or `allowed`.
    """
    said = context.node_config.get("secagg", "allowed")
    if said not in ("required", "allowed"):
        raise ConfigurationError(f"the node's secagg = {said!r} must be 'required' or 'allowed'")
    return said == "required"


def node_policy(context: Context) -> Policy:
    """The conditions under which this node joins a group.

    Raises:
        ConfigurationError: values out of bounds, or a file of trusted keys that cannot be read.
    """
    from fedmeta.privacy.secagg.identities import read_trusted

    config, least = context.node_config, Policy()
    trusted = config.get("secagg-trusted")
    return Policy(
        smallest_group=int(config.get("secagg-smallest-group", least.smallest_group)),
        corrupt=float(config.get("secagg-corrupt", least.corrupt)),
        active=_truth(config.get("secagg-active", least.active)),
        trusted=None if trusted is None else read_trusted(Path(str(trusted)), "the node's secagg-trusted"),
    )


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationError(f"the node's secagg-active = {value!r} must be true or false")
    return value


def node_identity(context: Context) -> "PrivateIdentity | None":
    """The key that signs this node's keys: the file `secagg-identity`, as OpenSSH or PEM; None where none is named.

    Raises:
        ConfigurationError: a file that holds no such key.
    """
    given = context.node_config.get("secagg-identity")
    return None if given is None else read_identity(Path(str(given)))


def read_identity(path: Path) -> "PrivateIdentity":
    """A private key, Ed25519 or ECDSA P-384, without a passphrase: a SuperNode's own will do.

    Raises:
        ConfigurationError: a file that cannot be read or holds no such key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

    try:
        data = path.read_bytes()
        load = load_ssh_private_key if b"OPENSSH" in data else load_pem_private_key
        return load(data, password=None)  # type: ignore[return-value]
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"the node's secagg-identity = '{path}' is no private key: {error}") from error
