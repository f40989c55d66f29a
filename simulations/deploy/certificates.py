"""Certificates and keys of a deployment: an authority, the SuperLink's certificate, a key for each SuperNode.

Private keys are born with mode 0600 in folders of 0700, and nothing is ever overwritten. TLS keys are ECDSA on P-384,
as are SuperNode keys, which Flower wants in OpenSSH's form.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedmeta.errors import ConfigurationError, FedmetaError
from simulations.deploy.key_folder import Layout, make_private_folder, refuse_existing, write_new

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Names that every server certificate holds: a SuperLink on all addresses speaks to its own processes by loopback."""

BACKDATED = timedelta(minutes=10)
"""How long before now certificates are valid, so that a machine whose clock is a little late accepts them."""


@dataclass(frozen=True)
class Made:
    """What `make_certificates` wrote.

    Attributes:
        layout: where.
        new_authority: whether the CA is new; else the folder's own signed.
        authority_expires: end of the CA's certificate.
        server_expires: end of the server's certificate; None where none was asked for.
        hosts: names and addresses that the server's certificate holds.
        nodes: names of the new SuperNode keys.
    """

    layout: Layout
    new_authority: bool
    authority_expires: datetime | None
    server_expires: datetime | None
    hosts: tuple[str, ...]
    nodes: tuple[str, ...]


def make_certificates(
    folder: Path,
    hosts: Sequence[str] = (),
    nodes: Sequence[str] = (),
    *,
    days: int = 365,
    authority_days: int = 3650,
) -> Made:
    """Write what is asked for into a folder: a server certificate for hosts, and a key for each node.

    The folder's authority signs; it is made where there is none. Node keys need no signature: the operator registers
    their public halves.

    Args:
        folder: made with mode 0700 where it does not exist.
        hosts: DNS names and IP addresses of the SuperLink; none: no server certificate.
        nodes: names of SuperNodes: letters, digits, `.`, `_`, `-`.
        days: life of the server certificate, >= 1.
        authority_days: life of a new authority, >= 1.

    Raises:
        ConfigurationError: nothing asked for, a host or name that cannot be, a life that ends after the authority's.
        FedmetaError: a file that is there already, an authority without its key, or a folder that cannot be written.
    """
    hosts, nodes = tuple(dict.fromkeys(hosts)), tuple(dict.fromkeys(nodes))
    if not hosts and not nodes:
        raise ConfigurationError("nothing to make: give --host of the SuperLink, --node of a SuperNode, or both")
    _check_names(hosts, nodes, days, authority_days)
    layout = Layout(folder)
    if hosts and not layout.authority.exists() and days > authority_days:
        raise ConfigurationError(
            f"--days = {days} ends after the authority does, in --ca-days = {authority_days} days: lower it"
        )
    wanted = [layout.server, layout.server_key] if hosts else []
    wanted += [path for name in nodes for path in (layout.node(name), layout.node_public(name))]
    refuse_existing(wanted)
    try:
        make_private_folder(folder)
        authority, new_authority = _authority(layout, authority_days) if hosts else (None, False)
        server_expires = None
        if hosts:
            assert authority is not None
            server_expires = _make_server(layout, authority, hosts, days)
        if nodes:
            make_private_folder(folder / "nodes")
        for name in nodes:
            _make_node(layout, name)
    except OSError as error:
        raise FedmetaError(
            f"cannot write into '{folder}': {error.strerror or error}. Choose another folder with -o"
        ) from error
    return Made(
        layout,
        new_authority,
        None if authority is None else authority.certificate.not_valid_after_utc,
        server_expires,
        tuple(dict.fromkeys((*hosts, *LOOPBACK))) if hosts else (),
        nodes,
    )


@dataclass(frozen=True)
class _Authority:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def _check_names(hosts: Sequence[str], nodes: Sequence[str], days: int, authority_days: int) -> None:
    for name, value in (("--days", days), ("--ca-days", authority_days)):
        if not 1 <= value <= 36500:
            raise ConfigurationError(f"{name} = {value}: a certificate lives from 1 to 36500 days")
    for host in hosts:
        _alternative_name(host)
    for node in nodes:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", node) or node.endswith(".pub"):
            raise ConfigurationError(
                f"--node = '{node}' must be at most 200 letters, digits, '.', '_' and '-', since it names a file, and "
                "not end in .pub"
            )


def _alternative_name(host: str) -> x509.GeneralName:
    """A host as it stands in a certificate.

    Raises:
        ConfigurationError: neither an address nor a DNS name.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    label = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
    if not re.fullmatch(rf"{label}(\.{label})*", host) or re.fullmatch(r"[0-9.]+", host):
        raise ConfigurationError(
            f"--host = '{host}' is neither an IP address nor a DNS name: give it without scheme and port, such as "
            "10.0.0.1 or superlink.example.org"
        )
    return x509.DNSName(host)


def _authority(layout: Layout, days: int) -> tuple[_Authority, bool]:
    """The folder's authority, or a new one."""
    if layout.authority.exists() != layout.authority_key.exists():
        there, absent = (
            (layout.authority, layout.authority_key)
            if layout.authority.exists()
            else (layout.authority_key, layout.authority)
        )
        raise FedmetaError(f"'{there}' is there without '{absent}': bring both back, or choose another folder with -o")
    if not layout.authority.exists():
        return _make_authority(layout, days), True
    try:
        certificate = x509.load_pem_x509_certificate(layout.authority.read_bytes())
        key = load_pem_private_key(layout.authority_key.read_bytes(), None)
    except (ValueError, TypeError) as error:
        raise FedmetaError(
            f"the authority in '{layout.folder}' cannot be read ({error}): choose another folder"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise FedmetaError(
            f"'{layout.authority_key}' is not the key of '{layout.authority}': bring the right one, or choose another "
            "folder with -o"
        )
    return _Authority(key, certificate), False


def _make_authority(layout: Layout, days: int) -> _Authority:
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedmeta authority")])
    certificate = (
        _unsigned(name, name, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA384())
    )
    write_new(layout.authority_key, _private(key), 0o600)
    write_new(layout.authority, certificate.public_bytes(Encoding.PEM), 0o644)
    return _Authority(key, certificate)


def _make_server(layout: Layout, authority: _Authority, hosts: Sequence[str], days: int) -> datetime:
    """Write the server's key and certificate; returns when it ends."""
    key = ec.generate_private_key(ec.SECP384R1())
    names = [_alternative_name(host) for host in dict.fromkeys((*hosts, *LOOPBACK))]
    # A common name holds at most 64 characters; hosts are checked by the alternative names alone.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    issuer = authority.certificate
    certificate = (
        _unsigned(subject, issuer.subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .sign(authority.key, hashes.SHA384())
    )
    expires, limit = certificate.not_valid_after_utc, issuer.not_valid_after_utc
    if expires > limit:
        raise ConfigurationError(
            f"--days = {days} ends after the authority does, on {limit:%Y-%m-%d}: lower it, or make a new authority in "
            "another folder with a larger --ca-days"
        )
    write_new(layout.server_key, _private(key), 0o600)
    write_new(layout.server, certificate.public_bytes(Encoding.PEM), 0o644)
    return expires


def _make_node(layout: Layout, name: str) -> None:
    """A SuperNode's key pair in OpenSSH's form."""
    key = ec.generate_private_key(ec.SECP384R1())
    write_new(layout.node(name), key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()), 0o600)
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    write_new(layout.node_public(name), public + f" {name}\n".encode(), 0o644)


def _unsigned(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
