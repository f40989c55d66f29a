"""The log of a deployed run."""

import json
import logging
from collections.abc import Iterator

import pytest

from fedmeta.errors import ConfigurationError
from server.structured_logs import FACTS, log_as_asked


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    log = logging.getLogger("fedmeta")
    before = (log.handlers[:], log.propagate, log.level)
    log.handlers = []
    yield
    log.handlers, log.propagate = before[0], before[1]
    log.setLevel(before[2])


def test_json_lines_hold_text_fields_and_exceptions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEDMETA_LOG", "json")
    log = log_as_asked()
    log_as_asked().info("round %d:\nloss %.1f", 3, 0.5, extra={FACTS: {"round": 3, "train": {"loss": 0.5}}})
    try:
        raise ValueError("no column age")
    except ValueError:
        log.exception("lost")
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first["message"] == "round 3:\nloss 0.5" and first["round"] == 3 and first["train"] == {"loss": 0.5}
    assert first["level"] == "info" and first["time"].endswith("+00:00") and first["logger"] == "fedmeta.server"
    assert "ValueError: no column age" in second["exception"]


def test_text_is_the_default_and_anything_else_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FEDMETA_LOG", raising=False)
    log_as_asked().warning("round 1, failed: 1 client (3): gone")
    assert capsys.readouterr().out == "WARNING: round 1, failed: 1 client (3): gone\n"
    monkeypatch.setenv("FEDMETA_LOG", "xml")
    with pytest.raises(ConfigurationError, match="FEDMETA_LOG = 'xml'"):
        log_as_asked()
