"""A folder held by one process, as long as that lives."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedmeta.errors import FedmetaError


@contextmanager
def held(place: Path, what: str) -> Iterator[None]:
    """Hold a directory, made where it is not there; the operating system lets go when this process ends.

    Args:
        place: the directory.
        what: what works in it, such as `bench`, for the error.

    Raises:
        FedmetaError: another process holds it, or it cannot be written.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
        file = (place / ".lock").open("w")
    except OSError as error:
        # Nothing has begun, so that there is nothing to go on with.
        raise FedmetaError(
            f"cannot write the folder '{place}' of the {what}: {error.strerror or error}. Choose another with --out"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FedmetaError(
                f"another {what} works in '{place}': wait for it, or choose another folder with --out"
            ) from None
        yield
