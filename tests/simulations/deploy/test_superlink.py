"""`fedmeta deploy check` against a real SuperLink with TLS and authentication, started by the unit of docs/deploy."""

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from simulations.benchmarks.flower_runtime import flower_environment
from simulations.deploy.certificates import make_certificates
from simulations.deploy.check import Options, check
from simulations.deploy.connection import knock, parse_address
from simulations.deploy.findings import Finding, all_well
from simulations.deploy.key_folder import Layout

pytestmark = pytest.mark.slow

TEMPLATES = Path(__file__).resolve().parents[3] / "docs" / "deploy"
BIN = Path(sys.executable).parent


def exec_start(unit: str, **values: str) -> list[str]:
    """The command of a systemd unit with its specifiers and variables filled in."""
    text = (TEMPLATES / unit).read_text().replace("\\\n", " ")
    line = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)
    assert line is not None
    words = shlex.split(line[1].replace("/opt/fedmeta/.venv/bin", str(BIN)))
    for key, value in values.items():
        words = [word.replace(f"${{{key}}}", value).replace(f"%{key}", value) for word in words]
    return words


@dataclass(frozen=True)
class Running:
    """A SuperLink."""

    address: str
    layout: Layout
    environment: dict[str, str]
    folder: Path

    def check(self, **options: object) -> dict[str, Finding]:
        """Findings by subject."""
        given = {"authority": self.layout.authority, **options}
        return {found.subject: found for found in check(Options(superlink=self.address, **given))}  # type: ignore[arg-type]

    def flwr(self, *words: str) -> str:
        """An operator's command."""
        done = subprocess.run(
            ["flwr", *words], env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def superlink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("superlink")
    layout = make_certificates(folder / "keys", ["127.0.0.1"], ["north", "stranger"]).layout
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = flower_environment(folder / "flwr")
    (folder / "flwr").mkdir()
    (folder / "flwr" / "config.toml").write_text(
        f'[superlink.mine]\naddress = "127.0.0.1:{port}"\nroot-certificates = "{layout.authority}"\n'
    )
    command = exec_start(
        "fedmeta-superlink.service",
        d=str(layout.folder),
        S=str(folder),
        HOST="127.0.0.1",
        PORT=str(port),
    )
    (folder / "fedmeta-superlink").mkdir()
    with (folder / "superlink.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    running = Running(f"127.0.0.1:{port}", layout, environment, folder)
    try:
        deadline = time.monotonic() + 60
        while running.check()["superlink"].status != "ok":
            assert process.poll() is None and time.monotonic() < deadline, (folder / "superlink.log").read_text()
            time.sleep(0.2)
        yield running
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children, if they still run."""
    for number, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)


def test_registration_is_found_out_without_joining(superlink: Running) -> None:
    north, stranger = (superlink.layout.node(name) for name in ("north", "stranger"))
    before = superlink.check(key=north)
    assert before["registration"].status == "failed" and "does not know this key" in before["registration"].text
    assert "flwr supernode register" in before["registration"].remedy
    superlink.flwr("supernode", "register", str(superlink.layout.node_public("north")), "mine", "--name", "north")
    after = superlink.check(key=north)
    assert after["registration"] == Finding("registration", "ok", "the SuperLink knows this key")
    assert all_well(after.values()), after
    assert superlink.check(key=stranger)["registration"].status == "failed"
    listed = superlink.flwr("supernode", "list", "mine", "--format", "json")
    assert '"registered"' in listed and '"online"' not in listed, "a check does not join"


def test_the_clock_is_read_off_the_superlink(superlink: Running) -> None:
    for _ in range(3):
        told = knock(parse_address(superlink.address), superlink.layout.authority)
        assert abs(told.ahead) <= told.within < 2, "it is the same clock"
        time.sleep(0.4)


def test_it_listens_on_loopback_alone(superlink: Running) -> None:
    """Nothing of what the unit starts can be reached from elsewhere, whatever the machine's addresses."""
    port = int(superlink.address.rsplit(":", 1)[1])
    listed = subprocess.run(["ss", "-ltnH"], capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("ss is not here")
    places = [line.split()[3] for line in listed.stdout.splitlines() if line.split()[3].endswith(f":{port}")]
    assert places == [f"127.0.0.1:{port}"]
