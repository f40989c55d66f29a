"""The experiment files that come with the package, by the data that they are for."""

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedmeta.errors import FedmetaError
from fedmeta.experiment import Experiment
from fedmeta.experiment_file import read_toml

CONFIGS = Path(__file__).parent / "configs"
SPECIAL = frozenset({"attack", "privacy", "secagg"})
"""Sections of files that show more than training."""


def shipped_for(data: str) -> list[Path]:
    """Shipped experiment files on some data, plain training first; below the working directory as seen from there."""
    found = []
    for path in sorted(CONFIGS.glob("*.toml")):
        told = tomllib.loads(path.read_text(encoding="utf-8"))
        if "seeds" not in told and told.get("data", {}).get("name") == data:
            found.append((not SPECIAL.isdisjoint(told), path.stem, path))
    return [path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path for *_, path in sorted(found)]


def where_to_start(source: str | Path | Mapping[str, Any] | Experiment, overrides: Mapping[str, Any]) -> str:
    """What to do where an override gives an experiment other data than it was written for; else empty.

    Nearly every other key follows from the data: partition, task, model and learner.
    """
    wanted = overrides.get("data.name")
    if not isinstance(wanted, str) or wanted == _data_of(source):
        return ""
    files = shipped_for(wanted)
    if not files:
        return ""
    others = f" (or {', '.join(path.name for path in files[1:])})" if files[1:] else ""
    return (
        f"the other keys of this experiment were written for other data: for '{wanted}' start from {files[0]}{others}"
    )


@contextmanager
def advising(source: str | Path | Mapping[str, Any] | Experiment, overrides: Mapping[str, Any]) -> Iterator[None]:
    """Within it a refusal begins with where to start, in place of remedies that are met by the next refusal."""
    try:
        yield
    except FedmetaError as error:
        advise(error, where_to_start(source, overrides))
        raise


def advise(error: FedmetaError, advice: str) -> None:
    """Put advice, where there is some, before what an error says."""
    if advice:
        error.args = (f"{advice}. As it is: {error}",)


def _data_of(source: str | Path | Mapping[str, Any] | Experiment) -> str:
    if isinstance(source, Experiment):
        return source.data.name
    told = source if isinstance(source, Mapping) else read_toml(source, "experiment")
    section = told.get("data", {})
    return str(section.get("name", Experiment().data.name)) if isinstance(section, Mapping) else ""
