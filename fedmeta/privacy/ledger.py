"""The ledger: what was spent, as append-only JSON Lines that survive a crash at any instant.

An event is reserved, and on disk, before anything is released; so a crash between the two counts as spent.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fedmeta.errors import ConfigurationError, FedmetaError
from fedmeta.privacy.accounting import AUTO, tightest
from fedmeta.privacy.events import Event, merged
from fedmeta.privacy.units import Unit


class LedgerError(FedmetaError):
    """A ledger that is damaged or cannot be written: nothing may be released beside it."""


@dataclass(frozen=True)
class Entry:
    """One line: an event that was reserved.

    Attributes:
        round: of the run, counted from 1.
        unit: whose privacy was spent.
        event: what was to be released.
        client: whose data, where noise is local; None where all clients share one account.
    """

    round: int
    unit: Unit
    event: Event
    client: int | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `Entry.from_json` reads."""
        return {
            "round": self.round,
            "unit": self.unit.value,
            "client": self.client,
            "event": self.event.to_json(),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Entry":
        """The inverse of `to_json`."""
        return cls(int(data["round"]), Unit(data["unit"]), Event.from_json(data["event"]), data["client"])


class Ledger:
    """An append-only file of reserved events. Reading it never changes a byte.

    Args:
        path: the file; made with the first reservation. Its directory must exist.

    Raises:
        LedgerError: the file is there and cannot be read, or a line within it is damaged.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._entries: list[Entry] = []
        self._released: set[int] = set()
        self._accounts: dict[tuple[Unit, int | None], tuple[Event, ...]] = {}
        self._size = 0
        self._read()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All reservations, the first first; released or not, they are spent."""
        return tuple(self._entries)

    @property
    def unreleased(self) -> int:
        """Reservations whose release was never confirmed: crashes, counted as spent."""
        return len(self._entries) - len(self._released)

    def events(self, unit: Unit, client: int | None = None) -> tuple[Event, ...]:
        """What one account has spent, merged: of a client, or of all where noise is central."""
        return self._accounts.get((unit, client), ())

    def clients(self, unit: Unit) -> list[int]:
        """Clients that have an account of their own, ascending."""
        return sorted(client for kind, client in self._accounts if kind is unit and client is not None)

    def reserve(self, entries: Sequence[Entry]) -> list[int]:
        """Write reservations and wait until they are on disk.

        Returns:
            Their numbers, for `release`.

        Raises:
            LedgerError: they could not be written; nothing may be released then.
        """
        with self._appending() as file:
            return self._reserve(file, entries)

    def reserve_within(self, entry: Entry, budget: "Budget | None") -> list[int] | None:
        """Reserve one event of a file that is all one owner's, unless the budget forbids: asked and written at once.

        Everything in the file counts, whatever client id it was spent under; no other process comes in between.

        Args:
            entry: what is to be released.
            budget: the most that all of the file may spend; None for no bound.

        Returns:
            Numbers for `release`; None where the budget would be exceeded, and nothing was written.

        Raises:
            ConfigurationError: the file holds releases for another unit, or no accountant bounds them together.
            LedgerError: as for `reserve`.
        """
        with self._appending() as file:
            others = {held.unit.value for held in self._entries} - {entry.unit.value}
            if others:
                raise ConfigurationError(
                    f"privacy.unit = '{entry.unit.value}', but the privacy ledger '{self.path}' of these data holds "
                    f"releases for the unit '{min(others)}': they have no common epsilon. Keep to that unit"
                )
            spent = merged(held.event for held in self._entries)
            if budget is not None and budget.exceeded_by(spent, [entry.event]):
                return None
            return self._reserve(file, [entry])

    def _reserve(self, file: IO[bytes], entries: Sequence[Entry]) -> list[int]:
        first = len(self._entries)
        numbers = list(range(first, first + len(entries)))
        lines = [{"kind": "reserve", "id": n, **e.to_json()} for n, e in zip(numbers, entries, strict=True)]
        self._write(file, lines)
        self._add(entries)
        return numbers

    def release(self, numbers: Sequence[int]) -> None:
        """Note that reserved events were released."""
        with self._appending() as file:
            self._write(file, [{"kind": "release", "ids": list(numbers)}])
            self._released.update(numbers)

    @contextmanager
    def _appending(self) -> Iterator[IO[bytes]]:
        """The file, held against other processes, whole to its last line, and read to its end."""
        try:
            with self.path.open("a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                size = file.seek(0, os.SEEK_END)
                if size != self._size:
                    self._read()
                    file.truncate(self._size)  # a last line that a crash cut short: it was never relied on
                yield file
        except OSError as error:
            raise LedgerError(
                f"cannot write the privacy ledger '{self.path}': {error.strerror or error}. "
                "Nothing is released without it: mend that, then go on"
            ) from error

    def _write(self, file: IO[bytes], lines: Sequence[dict[str, Any]]) -> None:
        fresh = self._size == 0
        file.write("".join(json.dumps(line) + "\n" for line in lines).encode())
        file.flush()
        os.fsync(file.fileno())
        self._size = file.tell()
        if fresh:
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # the file's name, too, must survive a power cut
            finally:
                os.close(folder)

    def _read(self) -> None:
        try:
            content = self.path.read_bytes() if self.path.exists() else b""
        except OSError as error:
            raise LedgerError(f"cannot read the privacy ledger '{self.path}': {error.strerror or error}") from error
        whole = content[: content.rfind(b"\n") + 1]
        entries: list[Entry] = []
        released: set[int] = set()
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                data = json.loads(line)
                if data["kind"] == "reserve" and data["id"] == len(entries):
                    entries.append(Entry.from_json(data))
                elif data["kind"] == "release":
                    released.update(data["ids"])
                else:
                    raise ValueError(f"a line of kind '{data['kind']}' that does not fit here")
            except (ValueError, KeyError, TypeError, ConfigurationError) as error:
                raise LedgerError(
                    f"line {number} of the privacy ledger '{self.path}' is damaged ({error}): what was spent is no "
                    "longer known. Restore the file; do not train on the same data without it"
                ) from error
        self._entries, self._released, self._accounts, self._size = [], released, {}, len(whole)
        self._add(entries)

    def _add(self, entries: Sequence[Entry]) -> None:
        self._entries += entries
        for entry in entries:
            account = (entry.unit, entry.client)
            self._accounts[account] = merged([*self._accounts.get(account, ()), entry.event])


@dataclass(frozen=True)
class Budget:
    """The most that may be spent.

    Attributes:
        epsilon: > 0.
        delta: in (0, 1).
        accountant: whose bound counts; `auto` for the least.
    """

    epsilon: float
    delta: float
    accountant: str = AUTO

    def exceeded_by(self, spent: Sequence[Event], planned: Sequence[Event]) -> bool:
        """Whether the planned events, after those that were spent, would go beyond it. Asked before each round."""
        # Any valid bound within the budget settles it; the first is the quickest.
        names = ("rdp", AUTO) if self.accountant == AUTO else (self.accountant,)
        composed = [*spent, *planned]
        return all(not self._within(composed, name) for name in names)

    def _within(self, events: Sequence[Event], name: str) -> bool:
        try:
            return tightest(events, self.delta, name).epsilon <= self.epsilon
        except ConfigurationError:
            if name == AUTO or self.accountant != AUTO:
                raise
            return False
