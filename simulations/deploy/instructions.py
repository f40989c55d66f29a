"""The commands that start a deployment with what `fedmeta certs` wrote, ready to be pasted."""

import ipaddress
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from simulations.deploy.certificates import Made

NODE_PORT = 9094
"""Where a SuperNode listens, on loopback, for its own processes; each on one machine needs another."""


def instructions(made: Made, hosts: Sequence[str], port: int, federation: str) -> str:
    """What was made, until when it is valid, and the commands for the SuperLink, the operator and each SuperNode.

    Args:
        made: by `make_certificates`.
        hosts: of the SuperLink, as they were given; none: it has a certificate already.
        port: of the SuperLink.
        federation: what the operator calls the SuperLink.
    """
    layout, host = made.layout, hosts[0] if hosts else "HOST"
    address = _address(host, port)
    authority = _quoted(layout.authority)
    parts = [_made(made)]
    if hosts:
        command = (
            f"flower-superlink --ssl-ca-certfile {authority} --ssl-certfile {_quoted(layout.server)} \\\n"
            f"    --ssl-keyfile {_quoted(layout.server_key)} --enable-supernode-auth \\\n"
            f"    --host {host} --port {port} --database superlink.db"
        )
        parts.append(f"# On the SuperLink's machine, with ca.crt, server.pem and server.key:\n{command}")
        parts.append(
            "# On the operator's machine, with ca.crt and nodes/*.pub, in ~/.flwr/config.toml:\n"
            f'[superlink.{federation}]\naddress = "{address}"\nroot-certificates = "{layout.authority.resolve()}"'
        )
    if made.nodes:
        register = [
            f"flwr supernode register {_quoted(layout.node_public(name))} {federation} --name {name}"
            for name in made.nodes
        ]
        parts.append("# On the operator's machine, before the nodes may join:\n" + "\n".join(register))
    one_machine = bool(hosts) and all(_is_loopback(name) for name in hosts)
    for index, name in enumerate(made.nodes):
        node_port = NODE_PORT + (index if one_machine else 0)
        parts.append(
            f"# On the machine of {name}, with ca.crt and nodes/{name}:\n"
            f"flower-supernode --root-certificates {authority} --superlink {address} --port {node_port} \\\n"
            f"    --auth-supernode-private-key {_quoted(layout.node(name))} \\\n"
            f'    --node-config \'data-path="/data/{name}" name="{name}"\''
        )
    return "\n\n".join(parts)


def _made(made: Made) -> str:
    lines = []
    if made.server_expires is not None:
        assert made.authority_expires is not None
        whose = "a new authority" if made.new_authority else "the folder's authority"
        lines.append(f"# {whose}, until {_until(made.authority_expires)}; ca.key signs: keep it off the other machines")
        lines.append(f"# a server certificate until {_until(made.server_expires)}, for {', '.join(made.hosts)}")
    if made.nodes:
        lines.append(
            f"# SuperNode keys for {', '.join(made.nodes)}: they do not expire; `flwr supernode unregister` takes one "
            "back"
        )
    return "\n".join(lines)


def _until(moment: datetime) -> str:
    days = (moment - datetime.now(UTC)).total_seconds() / 86400
    return f"{moment:%Y-%m-%d} ({days:.0f} days)"


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
