"""Files of a run directory: whole or absent, whatever happens while they are written."""

import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from fedmeta.errors import CheckpointError, ConfigurationError, FedmetaError


class CannotWrite(FedmetaError):
    """The disk is full, or the folder is gone or closed: what was begun stays for when that is mended."""


def folder_of(given: object, name: str = "out") -> Path:
    """A folder as a caller names it; an empty name would be the working directory, which nobody meant.

    Raises:
        ConfigurationError: no text or path, an empty one, or one with a character that no file system has.
    """
    if not isinstance(given, str | Path) or str(given) == "" or "\0" in str(given):
        raise ConfigurationError(f"{name} = {given!r:.80} is no folder: give the path of one")
    return Path(given)


def read_json(path: Path, remedy: str) -> Any:
    """A JSON file; None where there is none.

    Raises:
        CheckpointError: it is damaged; the text ends with the remedy.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"'{path}' is damaged ({error}): {remedy}") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What cannot be written within names the file and the remedy.

    Raises:
        CannotWrite: an operating system's error.
    """
    try:
        yield
    except OSError as error:
        raise CannotWrite(
            f"cannot write '{path}': {error.strerror or error}. Mend that, then go on with --resume, or submit the "
            "deployed run again with its --out"
        ) from error


def store(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        FedmetaError: it cannot be written.
    """
    with writing(path):
        write_atomically(path, content)


def write_atomically(path: Path, content: bytes) -> None:
    """Readers see the old file or the new one, never a part; also after a power cut."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, 0o644)  # temporary files are private; a run directory is for the team
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name, too, must survive a power cut
        finally:
            os.close(folder)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def finite(value: Any) -> Any:
    """A nest of JSON values with null in place of NaN and infinities, which JSON does not have; tensors as lists."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, torch.Tensor):
        return finite(value.tolist())
    return value
