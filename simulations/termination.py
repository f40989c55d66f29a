"""SIGTERM ends a command as Ctrl-C does, and is told from it by the exit code."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

TERMINATED = 128 + signal.SIGTERM
"""Exit code of what a SIGTERM ended."""


class Terminated(KeyboardInterrupt):
    """A SIGTERM: what cleans up after Ctrl-C does so after this."""


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Within it a SIGTERM raises `Terminated` in the main thread, and the process then exits with `TERMINATED`.

    Further ones are ignored: what cleans up is not to be cut short. In another thread nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        if came:
            sys.exit(TERMINATED)
