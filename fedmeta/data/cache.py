"""Arrays prepared once and shared: a file per specification, mapped read-only by every process of the machine."""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedmeta.errors import DataError

log = logging.getLogger("fedmeta.data")


def cache_dir() -> Path:
    """`$FEDMETA_CACHE`, else `~/.cache/fedmeta`."""
    chosen = os.environ.get("FEDMETA_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "fedmeta"


def cache_key(specification: Mapping[str, Any]) -> str:
    """SHA-256 of everything that the content depends on, in hexadecimal.

    >>> cache_key({"a": 1}) == cache_key({"a": 1}), cache_key({"a": 1}) == cache_key({"a": 2})
    (True, False)
    """
    return hashlib.sha256(json.dumps(dict(specification), sort_keys=True).encode()).hexdigest()


def cached_array(name: str, specification: Mapping[str, Any], make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array of a specification, made on first use, as a read-only memory map.

    The file carries a checksum beside it; a damaged one is made again. Two processes at once are safe: each writes a
    temporary file and renames it, and both contents are equal.

    Args:
        name: of the data set, for the file's name.
        specification: JSON values that determine the content wholly, a format version among them.
        make: computes the array.

    Raises:
        DataError: the cache folder cannot be written.
    """
    folder = cache_dir()
    path = folder / f"{name}-{cache_key(specification)[:32]}.npy"
    found = _open(path)
    if found is not None:
        return found
    array = np.ascontiguousarray(make())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(path, array)
    except OSError as error:
        raise DataError(
            f"cannot write the data cache '{folder}': {error.strerror or error}. Set FEDMETA_CACHE to another folder"
        ) from error
    return _mapped(path)


def _mapped(path: Path) -> np.ndarray:
    # A plain array over the map: indexing numpy's memmap class costs far more.
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _checksum_path(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open(path: Path) -> np.ndarray | None:
    if not path.exists():
        return None
    try:
        if _digest(path) == _checksum_path(path).read_text():
            return _mapped(path)
    except (OSError, ValueError):
        pass
    log.warning("the cached file %s is damaged and is made again", path)
    return None


def _write(path: Path, array: np.ndarray) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    temporary, checksum = Path(name), Path(f"{name}.sha256")
    try:
        with os.fdopen(handle, "wb") as file:
            np.save(file, array, allow_pickle=False)
        checksum.write_text(_digest(temporary))
        # The checksum first: another process that finds the array finds its checksum too.
        os.replace(checksum, _checksum_path(path))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        checksum.unlink(missing_ok=True)
