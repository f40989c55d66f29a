"""What has no end in sight is ended, and told from what fails."""

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest


class Hangs(BaseException):
    """No end in sight; no `except Exception` of ours may swallow it."""


@dataclass
class Wait:
    """Whether what was waited for had to be ended."""

    over: bool = False


@contextmanager
def _patience(seconds: int) -> Iterator[Wait]:
    def late(*_: Any) -> None:
        raise Hangs

    wait, before = Wait(), signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield wait
    except Hangs:
        wait.over = True
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def patience() -> Callable[[int], AbstractContextManager[Wait]]:
    """`with patience(20) as wait:` ends its body after 20 seconds; `wait.over` then is true."""
    return _patience
