"""What a SuperNode does with its options: the one place that knows these parts of Flower, which are not public.

Written for flwr 1.41; `tests/simulations/deploy` holds it against a real SuperLink.
"""

from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from flwr.common.config import parse_config_args
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.error import ApiErrorCode
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from simulations.deploy.connection import Address
from simulations.deploy.findings import Failed

PROGRAMS = ("flower-superexec", "flwr-clientapp")
"""What a SuperNode starts by name."""


def read_node_config(text: str) -> dict[str, Any]:
    """The value of `--node-config` as a SuperNode reads it.

    Raises:
        Failed: not a list of key=value pairs.
    """
    try:
        found: dict[str, Any] = parse_config_args([text] if text else None)
    except Exception as error:  # Flower raises those of its command line and of its TOML reader
        raise Failed(
            f"--node-config cannot be read: {error}",
            "write texts in double quotes and numbers without, all within single quotes: "
            '--node-config \'data-path="/data/north" name="north"\'',
        ) from error
    return found


def sign_in(address: Address, authority: Path, key: EllipticCurvePrivateKey) -> str:
    """Whether the SuperLink lets this key in, found out without joining.

    The request to join is signed as a SuperNode's and asks for a heartbeat of 0 s, which the SuperLink refuses of a key
    that it knows, after it has looked the key up; so a node that runs by the same key is not disturbed.

    Raises:
        Failed: a key that is not registered, or a signature that is refused.
    """
    public = key.public_key()
    client = FleetHttpClient.from_server_address(
        str(address), False, authority.read_bytes(), (NodeAuthHttpInterceptor(key, public),)
    )
    try:
        client.ActivateNode(ActivateNodeRequest(public_key=public_key_to_bytes(public), heartbeat_interval=0))
    except httpx.HTTPStatusError as error:
        return _verdict(error.response)
    except httpx.HTTPError as error:
        raise Failed(f"the SuperLink did not answer ({error})", "see the SuperLink's log") from error
    finally:
        client.close()
    raise Failed("the SuperLink took a heartbeat of 0 s", "use the version of flwr that fedmeta names")


def _verdict(response: httpx.Response) -> str:
    if response.status_code == httpx.codes.UNAUTHORIZED:
        raise Failed(
            "the SuperLink refuses the signature", "set the clocks by NTP; a proxy in between must pass all headers on"
        )
    try:
        code = int(response.json()["code"])
    except (ValueError, KeyError, TypeError):
        code = None
    if code == ApiErrorCode.FLEET_INVALID_HEARTBEAT_INTERVAL:
        return "the SuperLink knows this key"
    if code == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED:
        raise Failed(
            "the SuperLink does not know this key",
            "on the operator's machine: flwr supernode register KEY.pub NAME, with this key's public half, and the "
            "name that the SuperLink has in Flower's configuration (`fedmeta certs` calls it mine)",
        )
    raise Failed(
        f"the SuperLink answers {response.status_code} {response.text[:200]}", "use the flwr that fedmeta names on both"
    )
