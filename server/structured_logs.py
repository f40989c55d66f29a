"""The log of a deployed run: lines for people, or JSON lines for machines, on the ServerApp's standard output."""

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any

from fedmeta.errors import ConfigurationError

VARIABLE = "FEDMETA_LOG"
"""Environment variable of the SuperLink: `text`, which is the default, or `json`."""

FACTS = "facts"
"""Name of a record's own fields: `log.info("...", extra={FACTS: {"round": 3}})`."""


class JsonLines(logging.Formatter):
    """One JSON object a line: `time` (UTC), `level`, `logger`, `message`, the record's own fields, and `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """A line without its end."""
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FACTS, {}),
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str)


def log_as_asked() -> logging.Logger:
    """Let the library's log speak as `$FEDMETA_LOG` says, and return it. A second call changes nothing.

    Raises:
        ConfigurationError: the variable says something else.
    """
    kind = os.environ.get(VARIABLE, "text")
    if kind not in ("text", "json"):
        raise ConfigurationError(f"{VARIABLE} = '{kind}' in the SuperLink's environment: use text or json")
    log = logging.getLogger("fedmeta")
    log.setLevel(logging.INFO)
    if not any(isinstance(handler.formatter, JsonLines | _Lines) for handler in log.handlers):
        # Standard output as it is now: Flower has put a copy for `flwr log` in its place.
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(JsonLines() if kind == "json" else _Lines("%(levelname)s: %(message)s"))
        log.addHandler(handler)
        log.propagate = False
    return logging.getLogger("fedmeta.server")


class _Lines(logging.Formatter):
    """For people."""
