"""Memory that one process fills and others on the same machine read where it lies.

Ray's object store takes 3 ms to hand over 2 MB and 17 ms for 20 MB, most of it for pages that are touched for the first
time; a segment that both processes have mapped before takes 0.4 ms and 1.7. Segments have no name (memfd), so that
nothing is left behind, however the processes end. A reader says which ones it no longer reads, and they are filled
again.
"""

import mmap
import os
import secrets
import stat
import weakref
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

ALIGNMENT = 64
"""Where each buffer begins: a multiple of this, as arrays in memory of their own would [bytes]."""


def _eighth_of_open_files() -> int:
    try:
        from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit
    except ImportError:
        return 128
    limit = getrlimit(RLIMIT_NOFILE)[0]
    return 1 << 16 if limit == RLIM_INFINITY else limit // 8


MOST = _eighth_of_open_files()
"""Segments of a process that are read at once, and that it reads: what is kept beyond travels through Ray's store. Each
takes two open files of its writer and one of each reader."""

ROOMY = 2
"""A segment is at most so many times as large as what is placed in it: little that is kept must not hold much."""


@dataclass(frozen=True)
class Probe:
    """How a process finds out whether it can read another's segments: a file, and what it must find there."""

    path: str
    secret: bytes

    def succeeds(self) -> bool:
        """Whether the other process is on this machine and lets this one read."""
        try:
            # On another machine a pipe or a device may lie there, which reading would take from, or wait for.
            found = os.stat(self.path)
            if not stat.S_ISREG(found.st_mode) or found.st_size != len(self.secret):
                return False
            with open(self.path, "rb") as file:
                return file.read() == self.secret
        except OSError:
            return False


@dataclass(frozen=True)
class Placed:
    """Where buffers lie.

    Attributes:
        segment: its number, unique for its writer.
        path: where a reader can open it for as long as the writer lives.
        sizes: of the buffers, in their order [bytes].
        living: all segments of the writer; others are no more.
    """

    segment: int
    path: str
    sizes: tuple[int, ...]
    living: tuple[int, ...]


class Gone(OSError):
    """A segment cannot be read: mostly because the process that filled it has died."""


@dataclass
class _Segment:
    number: int
    file: int
    memory: mmap.mmap


class WrittenSegments:
    """The segments of a process.

    A segment is filled again once the reader has released it, unless it is more than `ROOMY` times too large; a new one
    takes the place of free ones that are too small.
    """

    def __init__(self) -> None:
        self._free: list[_Segment] = []
        self._read: dict[int, _Segment] = {}
        self._made = 0
        self._probe: int | None = None

    def probe(self) -> Probe | None:
        """For the reader to try; None where this system has no files without names."""
        if not hasattr(os, "memfd_create"):
            return None
        secret = secrets.token_bytes(16)
        self._probe = os.memfd_create("fedmeta-probe")
        os.write(self._probe, secret)
        return Probe(_path(self._probe), secret)

    def release(self, numbers: Iterable[int]) -> None:
        """Take back segments that the reader no longer reads."""
        self._free += [self._read.pop(number) for number in numbers]

    def place(self, buffers: Sequence[Any]) -> Placed | None:
        """Copy buffers into one segment; None where the system has no memory for it, or `MOST` are being read."""
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        size = sum(_aligned(view.nbytes) for view in views)
        if len(self._read) >= MOST:
            return None
        fitting = [segment for segment in self._free if size <= len(segment.memory) <= ROOMY * size]
        if fitting:
            segment = min(fitting, key=lambda each: len(each.memory))
        else:
            self._give_up([segment for segment in self._free if len(segment.memory) < size])
            try:
                segment = self._make(size)
            except OSError:
                return None
            self._free.append(segment)
        start = 0  # an interrupt of the copies leaves the segment free
        for view in views:
            segment.memory[start : start + view.nbytes] = view
            start += _aligned(view.nbytes)
        self._free.remove(segment)
        self._read[segment.number] = segment
        living = (*self._read, *(each.number for each in self._free))
        return Placed(segment.number, _path(segment.file), tuple(view.nbytes for view in views), living)

    def _make(self, size: int) -> _Segment:
        file = os.memfd_create("fedmeta-segment")
        try:
            os.posix_fallocate(file, 0, size)  # else a lack of memory would end the process at its first write
            memory = mmap.mmap(file, size, mmap.MAP_SHARED | mmap.MAP_POPULATE)
        except BaseException:
            os.close(file)
            raise
        self._made += 1
        return _Segment(self._made, file, memory)

    def _give_up(self, segments: Sequence[_Segment]) -> None:
        for segment in segments:
            self._free.remove(segment)
            segment.memory.close()
            os.close(segment.file)

    def close(self) -> None:
        """Give up all segments; what readers have mapped stays theirs."""
        self.release(list(self._read))
        self._give_up(list(self._free))
        if self._probe is not None:
            os.close(self._probe)
            self._probe = None


class SharedSegments:
    """Segments of a process that several read: each is filled again once all have released it as often as they got it.

    A reader is any number; one that has died has released what it read.
    """

    def __init__(self) -> None:
        self._written = WrittenSegments()
        self._readers: dict[int, Counter[int | None]] = {}
        self.probe = self._written.probe()

    def place(self, buffers: Sequence[Any]) -> Placed | None:
        """See `WrittenSegments.place`; the segment is kept until `settle`, and then as long as a reader has it."""
        placed = self._written.place(buffers)
        if placed is not None:
            self._readers[placed.segment] = Counter([None])
        return placed

    def give(self, placed: Placed, reader: int) -> Placed:
        """Note that a reader gets it."""
        self._readers[placed.segment][reader] += 1
        return placed

    def settle(self, placed: Placed) -> None:
        """No other reader will get it."""
        self.release(None, [placed.segment])

    def release(self, reader: int | None, numbers: Iterable[int]) -> None:
        """Note what a reader no longer reads."""
        for number in numbers:
            self._readers[number][reader] -= 1
            self._free_unread(number)

    def forget(self, reader: int) -> None:
        """Note that a reader has died."""
        for number in list(self._readers):
            self._readers[number][reader] = 0
            self._free_unread(number)

    def _free_unread(self, number: int) -> None:
        if not self._readers[number].total():
            del self._readers[number]
            self._written.release([number])

    def close(self) -> None:
        """Give up all segments."""
        self._written.close()
        self._readers.clear()


class ReadSegments:
    """What a process has mapped of another's segments."""

    def __init__(self) -> None:
        self._mapped: dict[int, mmap.mmap] = {}
        self._readings: dict[int, weakref.ref[npt.NDArray[np.uint8]]] = {}
        self._begun = 0
        self._released: deque[int] = deque()

    def read(self, placed: Placed) -> list[memoryview]:
        """The buffers where they lie, read-only; when the last view of them is gone, the segment is released once.

        Raises:
            Gone: the other process has died, or this one has no memory or no open file left for it.
        """
        for number in self._mapped.keys() - set(placed.living):
            del self._mapped[number]
        if placed.segment not in self._mapped:
            self._mapped[placed.segment] = _map(placed.path)
        whole = np.frombuffer(self._mapped[placed.segment], dtype=np.uint8)
        # Views of views refer to `whole` itself.
        self._begun += 1
        self._readings[self._begun] = weakref.ref(whole, partial(self._done, self._begun, placed.segment))
        views, start = [], 0
        for size in placed.sizes:
            views.append(whole[start : start + size].data)
            start += _aligned(size)
        return views

    def _done(self, reading: int, segment: int, _: object) -> None:
        """Only a note, since this may run in the midst of anything."""
        self._released.append(segment)
        del self._readings[reading]

    @property
    def reading(self) -> int:
        """How many readings have not ended."""
        return len(self._readings)

    def released(self) -> tuple[int, ...]:
        """Segments as often as a reading of them has ended since this was asked last."""
        return tuple(self._released.popleft() for _ in range(len(self._released)))


def _path(file: int) -> str:
    return f"/proc/{os.getpid()}/fd/{file}"


def _map(path: str) -> mmap.mmap:
    try:
        file = os.open(path, os.O_RDONLY)
        try:
            return mmap.mmap(file, 0, mmap.MAP_SHARED | mmap.MAP_POPULATE, mmap.PROT_READ)
        finally:
            os.close(file)
    except OSError as error:
        raise Gone(error.errno, f"another process's memory cannot be read: {error.strerror}", path) from error


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
