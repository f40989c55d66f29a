"""The commands that start a deployment with what `fedmeta certs` wrote, ready to be pasted."""

import ipaddress
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography.x509 import load_pem_x509_certificate
from cryptography.x509.oid import NameOID

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
    layout, host = made.layout, hosts[0] if hosts else _host_from_before(made)
    address = _address(host, port)
    authority = _quoted(layout.authority)
    parts = [_made(made)]
    if not layout.authority.exists():
        parts.append(
            f"# '{layout.folder}' has no authority: where ca.crt stands below, name the one that was made with the "
            "SuperLink's\n# certificate (`fedmeta certs --host`), and the SuperLink's address for HOST"
        )
    if hosts:
        command = (
            f"flower-superlink --ssl-ca-certfile {authority} --ssl-certfile {_quoted(layout.server)} \\\n"
            f"    --ssl-keyfile {_quoted(layout.server_key)} --enable-supernode-auth \\\n"
            f"    --host {host} --port {port} --database superlink.db --disable-runtime-dependency-installation"
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
        parts.append(_node(made, name, address, index if one_machine else None))
    return "\n\n".join(parts)


def _node(made: Made, name: str, address: str, index: int | None) -> str:
    """How a SuperNode is checked and started; several on one machine, counted by `index`, need a port and home each."""
    authority = _quoted(made.layout.authority) if made.layout.authority.exists() else "ca.crt"
    connection = (
        f"--superlink {shlex.quote(address)} --root-certificates {authority} \\\n"
        f"    --auth-supernode-private-key {_quoted(made.layout.node(name))} \\\n"
        f'    --node-config \'data-path="/data/{name}" name="{name}"\''
    )
    home, port = ("", "") if index is None else (f"FLWR_HOME=$PWD/flwr-{name} ", f" --port {NODE_PORT + index}")
    return (
        f"# On the machine of {name}, with ca.crt and nodes/{name}:\n"
        f"fedmeta deploy check experiment.toml {connection}\n{home}flower-supernode {connection}{port}"
    )


def _host_from_before(made: Made) -> str:
    """The first host of the folder's server certificate; a word to be replaced where there is none."""
    if not made.layout.server.exists():
        return "HOST"
    subject = load_pem_x509_certificate(made.layout.server.read_bytes()).subject
    return str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


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
