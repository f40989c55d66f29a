"""Processes that a benchmark or a test starts and ends by their own ids; on Linux they end with it in any case."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def wait_until(holds: Callable[[], Any], what: str, timeout: float, pause: float = 0.2) -> Any:
    """What `holds` returns as soon as it is true.

    Raises:
        TimeoutError: it was not within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        found = holds()
        if found:
            return found
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{what}: not within {timeout:g} s")
        time.sleep(pause)


def _end_with_parent() -> None:
    """In a child that is about to be the command: Linux ends it where its parent dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


@dataclass
class Process:
    """A command in a session of its own, with its output in a file.

    Attributes:
        command: with its arguments.
        log: where its output goes; a later start adds to it.
        environment: whole.
        folder: its working directory.
    """

    command: list[str]
    log: Path
    environment: Mapping[str, str]
    folder: Path
    _running: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """Start it, or start it again."""
        with self.log.open("ab") as out:
            self._running = subprocess.Popen(
                self.command,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=dict(self.environment),
                cwd=self.folder,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._running is not None and self._running.poll() is None

    def send(self, number: int) -> None:
        """Send a signal to it and to all that it started."""
        if self._running is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._running.pid, number)

    def kill(self) -> None:
        """End it at once, with all that it started, as a power cut would."""
        self.send(signal.SIGKILL)
        if self._running is not None:
            self._running.wait()

    def end(self, patience: float = 15.0) -> None:
        """Ask it to end, and insist where it does not."""
        if self._running is None:
            return
        if self.alive:
            self._running.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._running.wait(patience)
        self.kill()

    def said(self) -> str:
        """Its output so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""
