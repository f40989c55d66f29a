"""A folder of keys and certificates: where each file lies, and how it is written: privately, and never over another."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedmeta.errors import FedmetaError


@dataclass(frozen=True)
class Layout:
    """Where the files of a deployment lie in a folder."""

    folder: Path

    @property
    def authority(self) -> Path:
        """The CA's certificate: every machine needs it."""
        return self.folder / "ca.crt"

    @property
    def authority_key(self) -> Path:
        """The CA's key: no machine needs it but the one that signs."""
        return self.folder / "ca.key"

    @property
    def server(self) -> Path:
        """The SuperLink's certificate."""
        return self.folder / "server.pem"

    @property
    def server_key(self) -> Path:
        """The SuperLink's key."""
        return self.folder / "server.key"

    def node(self, name: str) -> Path:
        """A SuperNode's key."""
        return self.folder / "nodes" / name

    def node_public(self, name: str) -> Path:
        """The public half of a SuperNode's key, which the operator registers."""
        return self.folder / "nodes" / f"{name}.pub"


def refuse_existing(paths: Sequence[Path]) -> None:
    """Refuse to write over files.

    Raises:
        FedmetaError: one is there.
    """
    there = [str(path) for path in paths if path.exists()]
    if there:
        raise FedmetaError(
            f"{', '.join(there)}: there already, and keys are never overwritten. Move the old files away to renew "
            "them, or choose another folder with -o"
        )


def make_private_folder(folder: Path) -> None:
    """A folder of mode 0700; one that is there keeps its own mode, which must keep others from writing.

    Raises:
        FedmetaError: others may write into it.
    """
    if not folder.exists():
        folder.mkdir(mode=0o700, parents=True)
    mode = folder.stat().st_mode & 0o777
    if mode & 0o022:
        raise FedmetaError(
            f"'{folder}' has mode {mode:04o}, so that others may replace keys in it: chmod 700 '{folder}'"
        )


def write_new(path: Path, content: bytes, mode: int) -> None:
    """A new file, never one that is there, with its mode from its first byte on."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        os.fchmod(file.fileno(), mode)  # whatever the umask
        file.write(content)
