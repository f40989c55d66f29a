"""What a run was run with: versions, machine, code."""

import logging
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fedmeta.code_hash import code_hash, code_path
from fedmeta.experiment import Experiment

log = logging.getLogger("fedmeta.server")

PACKAGES = ("fedmeta", "flwr", "torch", "ray", "opacus", "numpy", "pydantic", "safetensors")
OTHER = {
    "code_hash": "another version of the code",
    "packages": "other versions of packages",
    "python": "another version of Python",
}


def add_session(sessions: list[dict[str, Any]], experiment: Experiment) -> list[dict[str, Any]]:
    """The sessions of a run with this one after them; what differs from the first is a warning."""
    described = describe_environment(experiment)
    for key, other in OTHER.items():
        if sessions and sessions[0].get(key) != described[key]:
            log.warning("this run began with %s (see environment.json): its numbers may differ", other)
    return [*sessions, described]


def describe_environment(experiment: Experiment) -> dict[str, Any]:
    """Versions, platform, cores, seed, command line, and the commit of the code where it is a git checkout."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": _without_secrets(sys.argv),
        "seed": experiment.seed,
        "experiment_hash": experiment.hash,
        "code_hash": code_hash(),
        "git": _git(Path(code_path())),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _without_secrets(command: Sequence[str]) -> list[str]:
    """A command line with the tokens taken out that Flower hands its processes.

    >>> _without_secrets(["flwr-serverapp", "--token", "0113bb", "--insecure", "--token=0113bb"])
    ['flwr-serverapp', '--token', '...', '--insecure', '--token=...']
    """
    after = zip(["", *command], command, strict=False)
    return [
        "..." if before == "--token" else "--token=..." if word.startswith("--token=") else word
        for before, word in after
    ]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(root: Path) -> dict[str, Any] | None:
    """The commit and whether files differ from it; None outside a checkout or without git."""

    def ask(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "changed": bool(ask("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None
