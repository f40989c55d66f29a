"""What later examinations of a run found, as JSON files beside it that its report reads."""

import json
from collections.abc import Mapping
from typing import Any, Literal

from server.files import finite, read_json, store
from server.rundir import RunDir

Examination = Literal["explain", "membership", "query-detection"]


def write_finding(rundir: RunDir, of: Examination, found: Mapping[str, Any]) -> None:
    """Write what an examination found, over what an earlier one did.

    Raises:
        FedmetaError: it cannot be written.
    """
    store(rundir.path / f"{of}.json", json.dumps(finite(dict(found))).encode())


def finding(rundir: RunDir, of: Examination) -> dict[str, Any] | None:
    """What the last examination found; None where there was none.

    Raises:
        CheckpointError: the file is damaged.
    """
    found: dict[str, Any] | None = read_json(rundir.path / f"{of}.json", "delete it, and examine the run again")
    return found
