"""`fedmeta certs`: what it writes holds in a real handshake, is private, and is never written over."""

import os
import socket
import ssl
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key
from typer.testing import CliRunner

from fedmeta.errors import ConfigurationError, FedmetaError
from simulations.command import app
from simulations.deploy.certificates import make_certificates
from simulations.deploy.connection import Address
from simulations.deploy.key_folder import Layout


def shake_hands(address: Address, layout: Layout, name: str) -> str | None:
    """A handshake that trusts the folder's authority alone and asks the server for a name, by the strict rules."""
    context = ssl.create_default_context(cafile=str(layout.authority))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with (
        socket.create_connection((address.host, address.port), 5) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        return secure.version()


def test_a_handshake_by_every_name_and_by_no_other(folder: Path, serve: Callable[[Layout | None], Address]) -> None:
    layout = make_certificates(folder, ["superlink.example.org", "10.0.0.7"]).layout
    address = serve(layout)
    for name in ("superlink.example.org", "10.0.0.7", "localhost", "127.0.0.1", "::1"):
        assert shake_hands(address, layout, name) == "TLSv1.3"
    for name in ("example.org", "10.0.0.8", "x.superlink.example.org"):
        with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
            shake_hands(address, layout, name)


def test_another_authority_is_not_trusted(folder: Path, serve: Callable[[Layout | None], Address]) -> None:
    """Of the same name, and so told apart by its key alone."""
    address = serve(make_certificates(folder / "a", ["localhost"]).layout)
    other = make_certificates(folder / "b", ["localhost"]).layout
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(address, other, "localhost")


def test_expiry_is_as_chosen_and_said(folder: Path) -> None:
    words = ["certs", "--host", "10.0.0.1", "--days", "90", "--ca-days", "400", "-o", str(folder)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    server, authority = (x509.load_pem_x509_certificate((folder / n).read_bytes()) for n in ("server.pem", "ca.crt"))
    for certificate, days in ((server, 90), (authority, 400)):
        left = certificate.not_valid_after_utc - datetime.now(UTC)
        assert timedelta(days=days, minutes=-5) < left <= timedelta(days=days)
        assert f"{certificate.not_valid_after_utc:%Y-%m-%d} ({days} days)" in done.output
    assert "--host 10.0.0.1 --port 8000" in done.output and "0.0.0.0" not in done.output


def test_the_commands_for_one_more_node_know_the_superlink(folder: Path) -> None:
    words = ["certs", "-o", str(folder), "--port", "8443"]
    first = CliRunner().invoke(app, [*words, "--host", "fd00::7", "--node", "north"])
    assert "--host fd00::7 --port 8443" in first.output and "--superlink '[fd00::7]:8443'" in first.output
    later = CliRunner().invoke(app, [*words, "--node", "south"])
    assert "--superlink '[fd00::7]:8443'" in later.output and "flower-superlink" not in later.output
    assert f"flwr supernode register {folder}/nodes/south.pub mine --name south" in later.output


def test_a_folder_without_an_authority_promises_no_certificate_of_it(folder: Path) -> None:
    done = CliRunner().invoke(app, ["certs", "-o", str(folder), "--node", "north"])
    assert done.exit_code == 0 and f"{folder}/ca.crt" not in done.output and not (folder / "ca.crt").exists()
    assert "has no authority: where ca.crt stands below" in done.output
    assert "--root-certificates ca.crt" in done.output and "--superlink HOST:8000" in done.output


def test_keys_are_private_whatever_the_umask(folder: Path) -> None:
    before = os.umask(0)
    try:
        make_certificates(folder, ["localhost"], ["north", "south"])
    finally:
        os.umask(before)
    modes = {path.relative_to(folder).as_posix(): path.stat().st_mode & 0o777 for path in folder.rglob("*")}
    assert folder.stat().st_mode & 0o777 == modes.pop("nodes") == 0o700
    private = {"ca.key", "server.key", "nodes/north", "nodes/south"}
    assert {name for name, mode in modes.items() if mode == 0o600} == private
    assert {name for name, mode in modes.items() if mode == 0o644} == modes.keys() - private


def test_node_keys_are_what_flower_loads(folder: Path) -> None:
    layout = make_certificates(folder, nodes=["north"]).layout
    key = load_ssh_private_key(layout.node("north").read_bytes(), None)
    assert isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP384R1)
    assert load_ssh_public_key(layout.node_public("north").read_bytes()) == key.public_key()
    assert not layout.authority.exists(), "node keys need no authority"


def test_a_second_call_adds_and_never_overwrites(folder: Path, serve: Callable[[Layout | None], Address]) -> None:
    made = make_certificates(folder, ["localhost"], ["north"])
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert make_certificates(folder, nodes=["south"]).nodes == ("south",)
    with pytest.raises(FedmetaError, match=r"nodes/north.* there already, and keys are never overwritten"):
        make_certificates(folder, nodes=["west", "north"])
    with pytest.raises(FedmetaError, match=r"server\.pem.*Move the old files away"):
        make_certificates(folder, ["10.0.0.1"])
    assert not made.layout.node("west").exists(), "refused as a whole"
    assert {path: path.read_bytes() for path in before} == before
    for path in (made.layout.server, made.layout.server_key):
        path.rename(path.with_suffix(".old"))
    renewed = make_certificates(folder, ["10.0.0.1"])
    assert not renewed.new_authority and made.layout.authority.read_bytes() == before[made.layout.authority]
    assert shake_hands(serve(renewed.layout), renewed.layout, "10.0.0.1") == "TLSv1.3"


@pytest.mark.parametrize(
    ("hosts", "nodes", "days", "words"),
    [
        ([], [], 1, "nothing to make"),
        (["https://a.example"], [], 1, "without scheme and port"),
        (["a.example:8000"], [], 1, "without scheme and port"),
        (["10.0.0.256"], [], 1, "neither an IP address nor a DNS name"),
        (["a b"], [], 1, "neither an IP address nor a DNS name"),
        ([], ["../up"], 1, "it names a file"),
        ([], ["a.pub"], 1, "not end in .pub"),
        (["localhost"], [], 0, "--days = 0"),
        (["localhost"], [], 4000, "--days = 4000 ends after the authority"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    folder: Path, hosts: list[str], nodes: list[str], days: int, words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        make_certificates(folder, hosts, nodes, days=days)
    assert not folder.exists()


def test_a_folder_that_others_may_write_and_half_an_authority_are_refused(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(FedmetaError, match="others may replace keys in it: chmod 700"):
        make_certificates(folder, ["localhost"])
    folder.chmod(0o700)
    layout = make_certificates(folder, ["localhost"], authority_days=400).layout
    layout.authority_key.rename(folder / "elsewhere")
    for path in (layout.server, layout.server_key):
        path.unlink()
    with pytest.raises(FedmetaError, match=r"ca\.crt' is there without '.*ca\.key'"):
        make_certificates(folder, ["localhost"])
    (folder / "elsewhere").rename(layout.authority_key)
    with pytest.raises(ConfigurationError, match="--days = 500 ends after the authority does, on"):
        make_certificates(folder, ["localhost"], days=500)


def test_openssl_and_openssh_agree(folder: Path) -> None:
    """Programs that nobody here wrote read the files alike."""
    layout = make_certificates(folder, ["10.0.0.1"], ["north"]).layout
    for words in (
        ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", layout.authority, layout.server],
        ["ssh-keygen", "-y", "-f", layout.node("north")],
    ):
        try:
            done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=True)
        except FileNotFoundError:
            pytest.skip(f"{words[0]} is not here")
    assert done.stdout.split()[1] == layout.node_public("north").read_text().split()[1]


def test_the_printed_commands_can_be_used(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    words = ["certs", "--host", "10.0.0.1", "-o", str(folder)]
    assert CliRunner().invoke(app, [*words, "--port", "0"]).exit_code == 2
    assert CliRunner().invoke(app, [*words, "--port", "65536"]).exit_code == 2
    for name in ("", "a b", "a.b"):
        refused = CliRunner().invoke(app, [*words, "--federation", name])
        assert refused.exit_code == 1 and "--federation" in str(refused.exception)
    assert not folder.exists()
