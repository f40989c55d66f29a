"""What an actor places is read as it was placed, for as long as somebody reads it, and takes no more than that."""

import gc
import os
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from simulations import RayGrid
from simulations.engine import segments, worker
from simulations.engine.segments import ALIGNMENT, Gone, Placed, Probe, ReadSegments, SharedSegments, WrittenSegments
from simulations.engine.transport import pack

APP = "foreign_app:app"
FLOATS = 30_000


def contents(placed: Placed | None, reader: ReadSegments) -> list[bytes]:
    assert placed is not None
    return [bytes(view) for view in reader.read(placed)]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.binary(max_size=300), min_size=1, max_size=5), min_size=1, max_size=6))
def test_buffers_are_read_as_they_were_placed(rounds: list[list[bytes]]) -> None:
    writer, reader = WrittenSegments(), ReadSegments()
    for buffers in rounds:
        writer.release(reader.released())
        if any(buffers):
            assert contents(writer.place(buffers), reader) == buffers


def test_a_segment_is_filled_again_when_its_last_view_is_gone() -> None:
    writer, reader = WrittenSegments(), ReadSegments()
    first = writer.place([b"a" * 1000, np.arange(5.0)])
    assert first is not None
    text, numbers = reader.read(first)
    kept = np.frombuffer(numbers, dtype=np.float64)[1:]
    assert kept.ctypes.data % ALIGNMENT == 8 and not kept.flags.writeable
    del text, numbers
    writer.release(reader.released())
    second = writer.place([b"b" * 1000])
    assert second is not None and second.segment != first.segment, "the first is still being read"
    assert kept.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert reader.released() == ()
    del kept
    assert reader.released() == (first.segment,) and reader.released() == ()
    writer.release([first.segment])
    third = writer.place([b"c" * 1000])
    assert third is not None and third.segment == first.segment
    assert contents(third, reader) == [b"c" * 1000]


def test_what_several_read_is_filled_again_when_all_are_done() -> None:
    shared, readers = SharedSegments(), [ReadSegments(), ReadSegments()]
    placed = shared.place([b"a" * 1000])
    assert placed is not None
    held = [readers[0].read(shared.give(placed, 0)), readers[1].read(shared.give(placed, 1))]
    held.append(readers[0].read(shared.give(placed, 0)))  # its second call of the same exchange
    shared.settle(placed)
    for place, reading in ((0, 0), (0, 2)):
        assert first_free(shared) != placed.segment
        held[reading] = []
        shared.release(place, readers[place].released())
    assert first_free(shared) != placed.segment, "reader 1 still reads"
    shared.forget(1)
    again = [shared.place([b"b" * 1000]) for _ in range(2)]
    assert placed.segment in {each.segment for each in again if each is not None}


def first_free(shared: SharedSegments) -> int:
    """The segment that is filled next; it is not kept."""
    placed = shared.place([b"b" * 1000])
    assert placed is not None
    shared.settle(placed)
    return placed.segment


def sizes_held() -> set[int]:
    """Of the segments that this process has open or mapped [bytes]."""
    files = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    held = [path for path in files if os.path.lexists(path) and "fedmeta-segment" in os.readlink(path)]
    return {os.stat(path).st_size for path in held}


def test_segments_that_are_too_small_give_way() -> None:
    writer, reader = WrittenSegments(), ReadSegments()
    others = sizes_held()
    for size in range(2000, 100_000, 1000):
        assert contents(writer.place([b"x" * size]), reader) == [b"x" * size]
        writer.release(reader.released())
    assert sizes_held() - others == {99_008}
    assert contents(writer.place([b"y" * 60_000]), reader) == [b"y" * 60_000]
    assert sizes_held() - others == {99_008}


def test_little_that_is_kept_holds_no_large_segment() -> None:
    """As large train replies and small answers to queries alternate, and a strategy keeps the answers."""
    writer, reader = WrittenSegments(), ReadSegments()
    others, kept = sizes_held(), []
    for _ in range(5):
        assert contents(writer.place([b"x" * 100_000]), reader) == [b"x" * 100_000]
        writer.release(reader.released())
        small = writer.place([b"y" * 3000])
        assert small is not None
        kept.append(reader.read(small))
    assert sizes_held() - others == {100_032, 3008}
    assert [segment.number for segment in writer._free] == [1], "the large one is filled again and again"


def test_more_than_may_be_read_at_once_is_not_placed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "MOST", 2)
    writer = WrittenSegments()
    placed = [writer.place([b"x" * 1000]) for _ in range(3)]
    assert placed[0] is not None and placed[1] is not None and placed[2] is None
    writer.release([placed[0].segment])
    assert writer.place([b"x" * 1000]) is not None


def test_an_actor_is_told_once_what_is_read_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> None:
        raise OverflowError("larger than a pickle")

    actor = worker.Worker("simulations.benchmarks.trivial:app", {}, check=False)
    placed, nothing = actor._written.place([b"x" * 1000]), pack([])
    assert placed is not None
    monkeypatch.setattr(worker, "pack", fails)
    with pytest.raises(OverflowError):
        actor.run(nothing, nothing, (placed.segment,))
    assert [segment.number for segment in actor._written._free] == [placed.segment]


def test_where_memory_is_short_nothing_is_placed(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*_: object) -> None:
        raise OSError(28, "No space left on device")

    writer, before = WrittenSegments(), len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "posix_fallocate", short)
    assert writer.place([b"x" * 1000]) is None
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_process_out_of_reach_is_found_out(tmp_path: Path) -> None:
    probe = WrittenSegments().probe()
    assert probe is not None and probe.succeeds()
    assert not Probe(probe.path, b"another machine's secret").succeeds()
    assert not Probe(str(tmp_path / "nothing"), probe.secret).succeeds()
    ours, theirs = os.pipe()
    os.write(theirs, probe.secret)
    os.close(theirs)
    assert not Probe(f"/proc/self/fd/{ours}", probe.secret).succeeds()
    assert os.read(ours, 100) == probe.secret, "nothing is taken from a pipe that lies there on another machine"
    os.close(ours)
    with pytest.raises(Gone, match="cannot be read: No such file"):
        ReadSegments().read(Placed(1, str(tmp_path / "nothing"), (3,), (1,)))


def ask(grid: RayGrid, value: float, kind: str = "train") -> list[Message]:
    """Of every client its own array of `FLOATS` times the value; its app doubles what it gets."""
    content = RecordDict({"arrays": ArrayRecord({"w": Array(np.full(FLOATS, value / 2))})})
    return grid.send_and_receive([Message(content, node, kind) for node in grid.get_node_ids()])


def hold(replies: list[Message], value: float) -> bool:
    return all((reply.content["arrays"]["w"].numpy() == value).all() for reply in replies)


@pytest.mark.usefixtures("apps", "ray_session")
def test_replies_that_are_kept_stay_as_they_were_and_the_rest_takes_no_room() -> None:
    with RayGrid(APP, 4, actors=2) as grid:
        kept = ask(grid, 0.0)
        pids = {int(reply.content["me"]["pid"]) for reply in ask(grid, 0.0, "query")}
        assert pids and all(hasattr(reply.content["arrays"]["w"], "buffer") for reply in kept)
        for value in range(1, 4):
            ask(grid, float(value))
        open_files = [len(os.listdir(f"/proc/{pid}/fd")) for pid in sorted(pids)]
        for value in range(4, 20):
            assert hold(ask(grid, float(value)), value)
            gc.collect()
        assert [len(os.listdir(f"/proc/{pid}/fd")) for pid in sorted(pids)] == open_files
        assert hold(kept, 0)
    assert hold(kept, 0), "and after their actor's end"


@pytest.mark.usefixtures("apps", "ray_session")
def test_a_strategy_that_keeps_every_reply_runs_out_of_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "MOST", 4)
    with RayGrid(APP, 4, actors=2) as grid:
        kept = {value: ask(grid, float(value)) for value in range(4)}
        held = len(os.listdir("/proc/self/fd"))
        kept.update({value: ask(grid, float(value)) for value in range(4, 12)})
        assert len(os.listdir("/proc/self/fd")) <= held + 2
        assert all(hold(replies, value) for value, replies in kept.items())
        kept.clear()
        gc.collect()
        pool = grid._pool
        assert pool is not None and not any(read.reading for read in pool._read if read is not None)
        replies = ask(grid, 1.0)
        assert hold(replies, 1.0) and sum(read.reading for read in pool._read if read is not None) == 2


@pytest.mark.usefixtures("apps", "ray_session")
def test_what_an_interrupt_leaves_unread_ends_with_its_actor(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with RayGrid(APP, 1, actors=1) as grid:
        ask(grid, 1.0)
        pid = ask(grid, 1.0, "query")[0].content["me"]["pid"]
        with monkeypatch.context() as patched:
            patched.setattr(ReadSegments, "read", interrupted)
            with pytest.raises(KeyboardInterrupt):
                ask(grid, 2.0)
        assert hold(ask(grid, 3.0), 3) and ask(grid, 1.0, "query")[0].content["me"]["pid"] != pid


@pytest.mark.usefixtures("apps", "ray_session")
def test_an_actor_that_dies_before_it_is_read_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with RayGrid(APP, 4, actors=2) as grid:
        opened, real = [], segments._map

        def map_once_gone(path: str) -> object:
            opened.append(path)
            if len(opened) == 1:
                raise Gone(2, "as if it had been killed", path)
            return real(path)

        monkeypatch.setattr(segments, "_map", map_once_gone)
        assert hold(ask(grid, 5.0), 5) and len(opened) == 3


@pytest.mark.usefixtures("apps", "ray_session")
def test_an_actor_out_of_reach_answers_through_rays_object_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Probe, "succeeds", lambda _: False)
    with RayGrid(APP, 4, actors=2) as grid:
        for value in (1.0, 2.0):
            assert hold(ask(grid, value), value)
