"""Certificates and node keys for deployments on this machine, good for a day."""

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Certificates:
    """A CA, a server certificate for the loopback address, and SuperNode keys on demand, under one folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.ca = folder, folder / "ca.crt"
        self.server, self.server_key = folder / "server.pem", folder / "server.key"
        authority = ec.generate_private_key(ec.SECP384R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedmeta test CA")])
        root = _certificate(name, name, authority.public_key(), authority, is_ca=True)
        self.ca.write_bytes(root.public_bytes(serialization.Encoding.PEM))
        key = ec.generate_private_key(ec.SECP384R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
        server = _certificate(subject, name, key.public_key(), authority, is_ca=False)
        self.server.write_bytes(server.public_bytes(serialization.Encoding.PEM))
        _write_private(self.server_key, key, serialization.PrivateFormat.PKCS8)

    def node_key(self, name: str) -> tuple[Path, Path]:
        """The private and the public key of a SuperNode, made when first asked for."""
        private, public = self.folder / name, self.folder / f"{name}.pub"
        if not private.exists():
            key = ec.generate_private_key(ec.SECP384R1())
            _write_private(private, key, serialization.PrivateFormat.OpenSSH)
            public.write_bytes(
                key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
            )
        return private, public

    def trust(self) -> ssl.SSLContext:
        """A context that trusts the CA and nobody else."""
        return ssl.create_default_context(cafile=str(self.ca))


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    is_ca: bool,
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    )
    if not is_ca:
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signer, hashes.SHA256())


def _write_private(path: Path, key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> None:
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
