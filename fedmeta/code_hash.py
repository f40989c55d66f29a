"""A fingerprint of the code, so that a server notices clients of another version, and a benchmark its own change."""

import functools
import hashlib
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent


def code_hash() -> str:
    """SHA-256 over the names and contents of every `*.py` of the packages `fedmeta` and `clients`, in hexadecimal."""
    return source_hash(("fedmeta/**/*.py", "clients/**/*.py"))


@functools.cache
def source_hash(patterns: tuple[str, ...]) -> str:
    """SHA-256 over the names and contents of the files that glob patterns find beside the packages, in hexadecimal."""
    digest = hashlib.sha256()
    for pattern in patterns:
        for path in sorted(_ROOT.glob(pattern)):
            digest.update(path.relative_to(_ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def code_path() -> str:
    """The folder that holds the packages."""
    return str(_ROOT)
