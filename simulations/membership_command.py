"""`fedmeta audit --membership` on the command line."""

import json
from collections.abc import Sequence
from pathlib import Path

import typer

from fedmeta.errors import ConfigurationError
from server.report.membership import membership_in_words
from simulations.membership import audit_membership, exceeds

CLAIM_REFUTED = 1


def audit_members(
    target: Path,
    settings: Sequence[str] | None,
    shadows: int,
    tasks: int,
    engine: str,
    out: Path | None,
    as_json: bool,
) -> int:
    """Audit membership in a run's directory and print what was found; the exit code."""
    if settings or out is not None or not target.is_dir():
        raise ConfigurationError(
            f"--membership audits the run in a directory, as it is, not '{target}' with --set or --out: simulate the "
            "experiment first, then give its directory"
        )
    found = audit_membership(
        target, shadows=shadows, tasks=tasks, engine=engine, said=lambda line: None if as_json else typer.echo(line)
    )
    typer.echo(json.dumps(found, indent=2) if as_json else membership_in_words(found))
    if exceeds(found):
        typer.echo("membership shows more than the claim allows", err=True)
        return CLAIM_REFUTED
    return 0
