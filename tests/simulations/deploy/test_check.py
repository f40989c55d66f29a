"""`fedmeta deploy check`: each fault gives its own words and what to mend."""

import json
import socket
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from server.configuration import load
from simulations.command import app
from simulations.deploy import certificates
from simulations.deploy.certificates import make_certificates
from simulations.deploy.check import Options, check
from simulations.deploy.connection import Address, Clock, judge_clock, knock, parse_address
from simulations.deploy.findings import Failed, Finding
from simulations.deploy.key_folder import Layout
from simulations.deploy.machine import check_data, check_secure_aggregation, check_versions, read_key
from simulations.deploy.supernode import read_node_config

Serve = Callable[[Layout | None], Address]


def found(address: Address | str, **options: Any) -> dict[str, Finding]:
    return {finding.subject: finding for finding in check(Options(superlink=str(address), **options))}


def made_at(moment: datetime, folder: Path, monkeypatch: pytest.MonkeyPatch, hosts: list[str]) -> Layout:
    """Certificates as a call at another moment would have made them."""

    class Then(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return moment

    with monkeypatch.context() as patch:
        patch.setattr(certificates, "datetime", Then)
        return make_certificates(folder, hosts, days=30).layout


def test_what_is_right_is_ok(folder: Path, serve: Serve) -> None:
    layout = make_certificates(folder, ["localhost"], ["north"]).layout
    told = found(serve(layout), authority=layout.authority, key=layout.node("north"))
    # The server of these tests lets no node in; a real SuperLink does in test_superlink.py.
    assert told.pop("registration").status == "failed"
    assert {subject: finding.status for subject, finding in told.items()} == {
        "address": "ok", "tls": "ok", "superlink": "ok", "clock": "ok", "key": "ok", "versions": "ok",
        "data": "not checked",
    }  # fmt: skip
    assert "TLSv1.3, certificate by 'fedmeta authority' until" in told["tls"].text


def test_each_fault_of_a_certificate_has_words_of_its_own(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    good = make_certificates(tmp_path / "good", ["localhost"]).layout
    late = made_at(now - timedelta(days=60), tmp_path / "late", monkeypatch, ["localhost"])
    early = made_at(now + timedelta(days=2), tmp_path / "early", monkeypatch, ["localhost"])
    monkeypatch.setattr(certificates, "LOOPBACK", ())
    elsewhere = make_certificates(tmp_path / "elsewhere", ["superlink.example.org", "10.0.0.7"]).layout
    cases = [
        (elsewhere, elsewhere, "not for '127.0.0.1' but for superlink.example.org, 10.0.0.7", "certs --host 127.0.0.1"),
        (late, late, f"expired on {now - timedelta(days=30):%Y-%m-%d}", "run `fedmeta certs --host` there again"),
        (early, early, "the certificate is valid from", "set this machine's clock"),
        (good, late, "is signed by another authority", "copy ca.crt from the folder whose server.pem"),
        (None, good, "no TLS at", "never with --insecure"),
    ]
    for server, trusted, text, remedy in cases:
        told = found(serve(server), authority=trusted.authority)
        assert told["tls"].status == "failed" and text in told["tls"].text and remedy in told["tls"].remedy, told["tls"]
        assert told["address"].status == "ok" and told["superlink"].text == told["clock"].text == "mend tls first"


def test_an_authority_that_has_expired_or_is_missing(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "_check_names", lambda *_: None)
    then = datetime.now(UTC) - timedelta(days=4000)
    old = made_at(then, tmp_path / "old", monkeypatch, ["localhost"])
    address = serve(make_certificates(tmp_path / "new", ["localhost"]).layout)
    assert "the authority's certificate expired on" in found(address, authority=old.authority)["tls"].text
    assert "cannot be read (No such file" in found(address, authority=tmp_path / "none")["tls"].text
    (tmp_path / "text").write_text("hello")
    assert "holds no certificate" in found(address, authority=tmp_path / "text")["tls"].text
    assert "no authority to trust" in found(address)["tls"].text


def test_an_address_that_is_not_there(folder: Path) -> None:
    authority = make_certificates(folder, ["localhost"]).layout.authority
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = found(f"127.0.0.1:{port}", authority=authority)
    assert "nothing listens at" in told["address"].text and "--host" in told["address"].remedy
    assert told["tls"].text == "mend address first"
    assert "the name 'superlink.invalid' is unknown" in found("superlink.invalid:8000")["address"].text
    for text in ("https://10.0.0.1:8000", "10.0.0.1", "10.0.0.1:0", ":8000", "10.0.0.1:x"):
        assert "is not host:port" in found(text)["address"].text, text
    assert parse_address("[::1]:8000") == Address("::1", 8000) and str(Address("::1", 8000)) == "[::1]:8000"


def test_without_tls_it_is_loud(serve: Serve) -> None:
    told = found(serve(None), insecure=True)
    assert told["tls"].status == "warning" and str(told["tls"]).startswith("WARNING") and "INSECURE" in str(told["tls"])
    assert told["superlink"].status == told["clock"].status == "ok"


def test_clocks(serve: Serve) -> None:
    here = knock(serve(None), None)
    assert abs(here.ahead) <= here.within < 3
    for clock, side in ((Clock(4.0, 0.6), "4.0 s ahead of"), (Clock(-290.0, 0.6), "290.0 s behind")):
        assert side in judge_clock(clock)
    for clock in (Clock(6.0, 0.6), Clock(-302.0, 0.6)):
        with pytest.raises(Failed, match="5 s ahead or 300 s behind is the most"):
            judge_clock(clock)


def test_keys(folder: Path) -> None:
    layout = make_certificates(folder, nodes=["north", "south"]).layout
    north = layout.node("north")
    assert read_key(north).curve.name == "secp384r1"
    with pytest.raises(Failed, match="public half of a key"):
        read_key(north.with_name("north.pub"))
    north.chmod(0o640)
    with pytest.raises(Failed, match="mode 0640: others may read it"):
        read_key(north)
    north.chmod(0o600)
    layout.node_public("north").write_bytes(layout.node_public("south").read_bytes())
    with pytest.raises(Failed, match="is not the public half of"):
        read_key(north)
    for name, words, text in (
        ("rsa", ["-t", "rsa", "-b", "2048", "-N", ""], "of another kind than ECDSA on P-384"),
        ("p256", ["-t", "ecdsa", "-b", "256", "-N", ""], "of another kind than ECDSA on P-384"),
        ("secret", ["-t", "ecdsa", "-b", "384", "-N", "password"], "without a password"),
    ):
        try:
            subprocess.run(["ssh-keygen", "-q", "-f", str(folder / name), *words], check=True)
        except FileNotFoundError:
            pytest.skip("ssh-keygen is not here")
        with pytest.raises(Failed, match=text):
            read_key(folder / name)
    with pytest.raises(Failed, match="cannot be read"):
        read_key(folder / "none")


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "flwr 1." in check_versions(())
    with pytest.raises(Failed, match="no-such-program not found on PATH"):
        check_versions(("no-such-program",))
    from simulations.deploy import machine

    monkeypatch.setattr(machine, "_version", lambda name: None if name == "torch" else "0.0.1")
    with pytest.raises(Failed, match=r"flwr 0.0.1 where .* is needed.*torch missing where >=2.9 is needed"):
        check_versions(())


def test_data() -> None:
    experiment = load({"data": {"name": "sinusoid"}, "partition": {"name": "iid"}, "task": {"ways": 1},
                       "learner": {"name": "maml"}, "model": {"name": "sinusoid"}})  # fmt: skip
    assert "client 3 (waves 3, train) on cpu" in check_data({"partition-id": 3}, experiment)
    for config, words in (
        ({"partition-id": 99}, "makes clients 0 to"),
        ({}, "neither data-path nor partition-id"),
        ({"data-path": "/x", "name": "north"}, "are of kind regression"),
    ):
        with pytest.raises(Failed, match=words):
            check_data(config, experiment)
    assert read_node_config("data-path=\"/a b\" name='c d' client-id=3") == {
        "data-path": "/a b", "name": "c d", "client-id": 3,
    }  # fmt: skip
    with pytest.raises(Failed, match="cannot be read"):
        read_node_config("name=north")


def test_conditions_of_secure_aggregation(folder: Path, tmp_path: Path) -> None:
    """Keys of `fedmeta certs` sign and are trusted; a list without the node's own key is not what its owner means."""
    layout = make_certificates(folder, nodes=["north", "south"]).layout
    publics = {name: layout.node_public(name).read_text() for name in ("north", "south")}
    (tmp_path / "all").write_text("".join(publics.values()))
    (tmp_path / "others").write_text(publics["south"])
    config = {"secagg": "required", "secagg-identity": str(layout.node("north"))}
    told = check_secure_aggregation({**config, "secagg-trusted": str(tmp_path / "all")})
    assert told == "masks are required; this node signs its keys and trusts 2 keys"
    for change, words in (
        ({"secagg-trusted": str(tmp_path / "others")}, "does not hold this node's own key"),
        ({"secagg-identity": str(tmp_path / "all")}, "is no private key"),
        ({"secagg": "perhaps"}, "must be 'required' or 'allowed'"),
        ({"secagg-smallest-group": "few"}, "few"),
    ):
        with pytest.raises(Failed, match=words):
            check_secure_aggregation({**config, **change})
    text = f"secagg='required' secagg-identity='{layout.node('north')}'"
    assert found("127.0.0.1:1", node_config=text)["secagg"].status == "ok"


def test_the_command_ends_with_1_where_something_is_to_be_mended(folder: Path, serve: Serve, tmp_path: Path) -> None:
    layout = make_certificates(folder, ["localhost"], ["north"]).layout
    address = serve(layout)
    (tmp_path / "e.toml").write_text('[data]\nname = "nodes"\nshape = [1, 4, 4]\n')
    words = ["deploy", "check", "--superlink", str(address), "--root-certificates", str(layout.authority)]
    assert CliRunner().invoke(app, words).exit_code == 0
    words += ["--node-config", f'data-path="{tmp_path / "none"}" name="north"', str(tmp_path / "e.toml")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1 and "FAILED      data" in done.output and "does not exist" in done.output
    told = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert [finding["subject"] for finding in told if finding["status"] == "failed"] == ["data"]
