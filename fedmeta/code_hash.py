"""A fingerprint of the code that clients run, so that a server notices clients of another version."""

import functools
import hashlib
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent


@functools.cache
def code_hash() -> str:
    """SHA-256 over the names and contents of every `*.py` of the packages `fedmeta` and `clients`, in hexadecimal."""
    digest = hashlib.sha256()
    for package in ("fedmeta", "clients"):
        for path in sorted((_ROOT / package).rglob("*.py")):
            digest.update(path.relative_to(_ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def code_path() -> str:
    """The folder that holds the packages."""
    return str(_ROOT)
