"""The folder of a run: a fresh name, held by one process, and cleared where nothing was begun in it."""

import fcntl
import shutil
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from fedmeta.errors import FedmetaError

LOCK, CHECKPOINTS = ".lock", "checkpoints"


def fresh(name: str) -> Path:
    """`runs/<name>-<time>`, with a number behind it where that is there."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    place, number = Path("runs") / f"{name}-{stamp}", 1
    while place.exists():
        number += 1
        place = Path("runs") / f"{name}-{stamp}-{number}"
    return place


def clear_unstarted(place: Path, unstarted: Collection[str]) -> bool:
    """Clear the folder of a run that never finished a round, so that a mended command can use it; else False."""
    left = leftovers(place, unstarted)
    if left is None:
        return False
    lock = locked(place)
    remove(path for path in left if path.name != LOCK)
    lock.close()
    return True


def leftovers(place: Path, unstarted: Collection[str]) -> list[Path] | None:
    """What lies in the folder of a run that never finished a round; None where there is more than that.

    Args:
        place: the folder.
        unstarted: names of what such a run may leave, its configuration first.
    """
    found = list(place.iterdir())
    names = {path.name for path in found}
    begun = next(iter(unstarted)) not in names or not names <= {*unstarted, LOCK, CHECKPOINTS}
    return None if begun or list(place.glob(f"{CHECKPOINTS}/*")) else found


def remove(paths: Iterable[Path]) -> None:
    """Files, and folders with what is in them."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def locked(place: Path) -> IO[str]:
    """Hold the directory; the operating system lets go when this process ends, however it ends."""
    try:
        file = (place / LOCK).open("w")
    except OSError as error:
        raise FedmetaError(
            f"cannot write in '{place}': {error.strerror or error}. A run can only go on where it can write"
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise FedmetaError(f"another process is writing the run in '{place}': wait for it, or end it") from error
    return file
