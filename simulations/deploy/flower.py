"""Flower's command line as functions: runs are submitted and looked at through `flwr ... --format json`."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedmeta.errors import FedmetaError
from server.polling_grid import LINK_LOST

LOST = ("No heartbeat received", "Task failed with unknown error", f"ServerApp failed with exception: {LINK_LOST}")
"""How the details of a run begin whose server process died with its machine or its SuperLink: without a word, killed
and still able to say so, or cut off."""


class Unreachable(FedmetaError):
    """The SuperLink does not answer."""


class UnknownRun(FedmetaError):
    """The SuperLink answers and knows no such run: it was started anew without its database."""


@dataclass(frozen=True)
class FlowerRun:
    """A run as its SuperLink tells it.

    Attributes:
        run_id: Flower's number of it.
        status: `pending`, `starting`, `running`, `finished:completed`, `finished:failed` or `finished:stopped`.
        details: why, where it did not end well.
        seconds: since it began.
        bytes: that its messages and objects took, both ways.
    """

    run_id: str
    status: str
    details: str = ""
    seconds: float = 0.0
    bytes: int = 0

    @property
    def finished(self) -> bool:
        """Whether it is over, well or not."""
        return self.status.startswith("finished")

    @property
    def lost(self) -> bool:
        """Whether it ended since its process went away, and not for a reason of its own."""
        return self.status == "finished:failed" and self.details.startswith(LOST)


@dataclass(frozen=True)
class FlowerNode:
    """A SuperNode as its SuperLink tells it."""

    node_id: str
    status: str
    name: str


@dataclass(frozen=True)
class Flower:
    """A SuperLink, as Flower's configuration (`$FLWR_HOME/config.toml`) names it.

    Attributes:
        superlink: the name; None takes the configuration's default.
        timeout: longest wait for one command [seconds].
        environment: variables beside, or in place of, those of this process.
        command: how `flwr` is called.
    """

    superlink: str | None = None
    timeout: float = 120.0
    environment: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ("flwr",)

    @property
    def insecure(self) -> bool:
        """Whether Flower's configuration says to speak without TLS; False where it says nothing that can be read."""
        home = {**os.environ, **self.environment}.get("FLWR_HOME")
        place = Path(home) if home else Path.home() / ".flwr"
        try:
            known = tomllib.loads((place / "config.toml").read_text(encoding="utf-8")).get("superlink", {})
        except (OSError, ValueError):  # Flower itself says what is wrong with it
            return False
        link = known.get(known.get("default") if self.superlink is None else self.superlink)
        return isinstance(link, dict) and link.get("insecure") is True

    def submit(self, app: Path, run_config: Path) -> str:
        """Submit the app with a file of run configuration, and return the run's id.

        Raises:
            Unreachable: the SuperLink does not answer.
            FedmetaError: Flower refuses the app or its configuration.
        """
        found = self._call("run", str(app), *self._name(), "--run-config", str(run_config))
        return str(found["run-id"])

    def run(self, run_id: str) -> FlowerRun:
        """One run as it stands.

        Raises:
            Unreachable: the SuperLink does not answer.
            UnknownRun: it knows no such run.
        """
        return _run(self._call("list", *self._name(), "--run-id", run_id)["runs"][0])

    def runs(self) -> list[FlowerRun]:
        """All runs that the SuperLink knows, the newest first."""
        return [_run(found) for found in self._call("list", *self._name())["runs"]]

    def nodes(self) -> list[FlowerNode]:
        """All SuperNodes that the SuperLink knows, also those that are away."""
        found = self._call("supernode", "list", *self._name())["nodes"]
        return [FlowerNode(str(node["node-id"]), str(node["status"]), _name_of(node)) for node in found]

    def _name(self) -> tuple[str, ...]:
        return () if self.superlink is None else (self.superlink,)

    def _call(self, *words: str) -> dict[str, Any]:
        done = _flwr([*self.command, *words, "--format", "json"], self.timeout, self.environment)
        try:
            found: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            found = {"success": False, "error-message": (done.stdout + done.stderr).strip()}
        if found.get("success"):
            return found
        said = " ".join(str(found.get("error-message") or found.get("error") or done.stderr).split())
        kinds = {"is unavailable": Unreachable, "Server error": Unreachable, "Run ID not found": UnknownRun}
        kind = next((kind for mark, kind in kinds.items() if mark in said), FedmetaError)
        raise kind(f"`flwr {words[0]}` says: {said or 'nothing'}")


def _flwr(words: Sequence[str], timeout: float, given: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    # The one beside this Python first: an operator's shell may have another environment's.
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    quiet = {"FLWR_DISABLE_UPDATE_CHECK": "1", "FLWR_TELEMETRY_ENABLED": "0"}
    environment = {**quiet, **os.environ, "PATH": folders, **given}
    try:
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise Unreachable(f"`{' '.join(words[:2])}` did not answer within {timeout:g} s") from error
    except OSError as error:
        raise FedmetaError(f"cannot start `flwr`: {error.strerror or error}. Install flwr beside fedmeta") from error


def _run(found: dict[str, Any]) -> FlowerRun:
    return FlowerRun(
        run_id=str(found["run-id"]),
        status=str(found["status"]),
        details=str(found.get("status-details") or "").removeprefix("N/A"),
        seconds=float(found.get("elapsed") or 0),
        bytes=int((found.get("network-traffic") or {}).get("total-bytes") or 0),
    )


def _name_of(node: dict[str, Any]) -> str:
    """A node's name, or its owner's; empty where Flower knows neither, which it calls `none`."""
    names = [str(node[key]) for key in ("name", "owner-name") if node.get(key)]
    return next((name for name in names if name.lower() != "none"), "")
