"""From a client's machine to the SuperLink: the address, the certificate, the service behind it, and the two clocks."""

import http.client
import socket
import ssl
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from simulations.deploy.findings import Failed

TIMEOUT = 5.0
"""Longest wait for an answer [seconds]."""

AHEAD, BEHIND = 5.0, 300.0
"""How much a node's clock may be ahead of the SuperLink's, or behind it, for Flower's authentication [seconds]."""

SOON = timedelta(days=14)
"""A certificate that ends within is worth a word."""

INSECURE = (
    "INSECURE: without TLS everybody on the way reads and changes models and updates, and anybody may join as a node. "
    "Use it on one machine, for a trial, and never with data that are somebody's"
)

EXPIRED, NOT_YET, WRONG_NAMES = 10, 9, (62, 64)
"""OpenSSL's reasons to refuse a certificate (X509_V_ERR_*); what else it refuses is not signed by the authority."""


@dataclass(frozen=True)
class Address:
    """Where the SuperLink listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """`host:port` or `[::1]:port`, as flower-supernode takes it.

    Raises:
        Failed: another form.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not host or "/" in host or not port.isdigit() or not 0 < int(port) < 65536:
        raise Failed(f"'{text}' is not host:port", "give host and port without https://, such as 10.0.0.1:8000")
    return Address(host, int(port))


def reach(address: Address) -> str:
    """Connect.

    Raises:
        Failed: a name that is unknown, nothing that listens, or no answer.
    """
    started = time.monotonic()
    try:
        socket.create_connection((address.host, address.port), TIMEOUT).close()
    except socket.gaierror as error:
        raise Failed(
            f"the name '{address.host}' is unknown here ({error.strerror})", "mend the name, or give the IP address"
        ) from error
    except ConnectionRefusedError as error:
        raise Failed(
            f"nothing listens at {address}",
            "start the SuperLink; it listens on 127.0.0.1 alone unless it is started with --host, and on port 8000 "
            "unless with --port",
        ) from error
    except TimeoutError as error:
        raise Failed(
            f"no answer from {address} within {TIMEOUT:g} s", "open this port in the firewall between the machines"
        ) from error
    except OSError as error:
        raise Failed(f"{address} cannot be reached ({error.strerror or error})", "mend the network") from error
    return f"{address} answers in {1000 * (time.monotonic() - started):.0f} ms"


def read_authority(path: Path) -> x509.Certificate:
    """The authority's certificate.

    Raises:
        Failed: a file that is missing, holds none, or holds one that is not valid now.
    """
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise Failed(
            f"the authority's certificate '{path}' cannot be read ({error.strerror})",
            "copy ca.crt from the folder of `fedmeta certs`, and name it with --root-certificates",
        ) from error
    except ValueError as error:
        raise Failed(f"'{path}' holds no certificate", "copy ca.crt from the folder of `fedmeta certs`") from error
    if certificate.not_valid_after_utc < datetime.now(UTC):
        raise Failed(
            f"the authority's certificate expired on {certificate.not_valid_after_utc:%Y-%m-%d}",
            "make new certificates with `fedmeta certs` in a fresh folder, and copy its ca.crt to every machine",
        )
    return certificate


def greet(address: Address, authority: Path) -> str:
    """A TLS handshake that trusts the authority alone, as a SuperNode's.

    Raises:
        Failed: no TLS, another authority, another name, or a certificate that is not valid now.
    """
    signer = read_authority(authority)
    context = ssl.create_default_context(cafile=str(authority))
    try:
        with (
            socket.create_connection((address.host, address.port), TIMEOUT) as plain,
            context.wrap_socket(plain, server_hostname=address.host) as secure,
        ):
            version, shown = secure.version(), secure.getpeercert(binary_form=True)
    except ssl.SSLCertVerificationError as error:
        raise _refusal(error, address, signer) from error
    except (ssl.SSLError, OSError) as error:
        raise Failed(
            f"no TLS at {address} ({getattr(error, 'reason', None) or error})",
            "start the SuperLink with --ssl-ca-certfile, --ssl-certfile and --ssl-keyfile, and never with --insecure; "
            "or another program has this port",
        ) from error
    assert shown is not None
    end = x509.load_der_x509_certificate(shown).not_valid_after_utc
    left = end - datetime.now(UTC)
    renew = "; renew it soon with `fedmeta certs --host`" if left < SOON else ""
    return f"{version}, certificate by '{_name(signer.subject)}' until {end:%Y-%m-%d}, {left.days} days left{renew}"


def _refusal(error: ssl.SSLCertVerificationError, address: Address, signer: x509.Certificate) -> Failed:
    """Why the certificate was refused, in words."""
    try:
        shown = _certificate(address)
    except OSError:  # the server went away in between
        return Failed(f"the certificate was refused: {error.verify_message}", "check again")
    if error.verify_code in WRONG_NAMES:
        return Failed(
            f"the certificate is not for '{address.host}' but for {', '.join(_names(shown))}",
            f"connect to one of these, or make a certificate with `fedmeta certs --host {address.host}`",
        )
    if error.verify_code == EXPIRED:
        return Failed(
            f"the certificate expired on {shown.not_valid_after_utc:%Y-%m-%d}",
            "move server.pem and server.key away on the machine with ca.key, run `fedmeta certs --host` there again, "
            "and restart the SuperLink with the new ones",
        )
    if error.verify_code == NOT_YET:
        return Failed(
            f"the certificate is valid from {shown.not_valid_before_utc:%Y-%m-%d %H:%M} UTC, and here it is "
            f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
            "set this machine's clock",
        )
    return Failed(
        f"the certificate is signed by another authority, '{_name(shown.issuer)}', than {_fingerprint(signer)} "
        f"({error.verify_message})",
        "copy ca.crt from the folder whose server.pem the SuperLink uses",
    )


def _certificate(address: Address) -> x509.Certificate:
    """What is shown there, whoever signed it; looked at, and never trusted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((address.host, address.port), TIMEOUT) as plain,
        context.wrap_socket(plain, server_hostname=address.host) as secure,
    ):
        shown = secure.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown)


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ["no name at all"]
    return [str(name.value) for name in found]


def _name(subject: x509.Name) -> str:
    found = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else subject.rfc4514_string()


def _fingerprint(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives.hashes import SHA256

    return f"'{_name(certificate.subject)}' {certificate.fingerprint(SHA256()).hex()[:16]}"


@dataclass(frozen=True)
class Clock:
    """This machine's clock against the SuperLink's.

    Attributes:
        ahead: seconds that this clock is ahead; negative where it is behind.
        within: how exactly that is known [seconds].
    """

    ahead: float
    within: float


def knock(address: Address, authority: Path | None) -> Clock:
    """Ask the SuperLink whether it is healthy, and read its clock off the answer.

    Args:
        address: of the SuperLink.
        authority: file of its certificate; None without TLS.

    Raises:
        Failed: the answer is not a SuperLink's.
    """
    sent = time.time()
    try:
        with closing(_connection(address, authority)) as connection:
            connection.request("GET", "/health")
            answer = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        raise Failed(
            f"no SuperLink at {address} ({error})",
            "see whether the SuperLink runs, and whether another program has its port",
        ) from error
    received = time.time()
    if answer.status != 200:
        raise Failed(
            f"{address} answers /health with {answer.status}: no SuperLink", "give the address of the SuperLink itself"
        )
    date = answer.getheader("Date")
    if date is None:
        raise Failed(f"{address} tells no time", "ask the SuperLink itself, and no proxy")
    # The header is whole seconds, cut off, and the server renews it once a second, a busy one a little later.
    told = parsedate_to_datetime(date).timestamp() + 1.0
    return Clock(ahead=(sent + received) / 2 - told, within=1.25 + (received - sent) / 2)


def _connection(address: Address, authority: Path | None) -> http.client.HTTPConnection:
    if authority is None:
        return http.client.HTTPConnection(address.host, address.port, timeout=TIMEOUT)
    context = ssl.create_default_context(cafile=str(authority))
    return http.client.HTTPSConnection(address.host, address.port, timeout=TIMEOUT, context=context)


def judge_clock(clock: Clock) -> str:
    """Whether Flower's authentication takes requests signed by this clock.

    Raises:
        Failed: too far ahead or behind.
    """
    side = "ahead of" if clock.ahead >= 0 else "behind"
    text = f"this clock is {abs(clock.ahead):.1f} s {side} the SuperLink's (within {clock.within:.1f} s)"
    if clock.ahead - clock.within > AHEAD or clock.ahead + clock.within < -BEHIND:
        raise Failed(
            f"{text}, and {AHEAD:g} s ahead or {BEHIND:g} s behind is the most that authentication takes",
            "set the clocks of both machines by NTP: timedatectl set-ntp true",
        )
    return text
