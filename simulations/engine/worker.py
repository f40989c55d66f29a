"""What an actor does: run the turns it is given with its own copy of the app."""

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.app.metadata import Metadata
from flwr.clientapp import ClientApp

from fedmeta.errors import FedmetaError
from simulations.engine.executor import Outcome, Turn, load_app, run_turns
from simulations.engine.flower_internals import adopt_identity, message_from
from simulations.engine.segments import Placed, Probe, ReadSegments, WrittenSegments
from simulations.engine.transport import IN_LINE, Packed, pack, settled, unpack
from strategies.checking import Outline


@dataclass(frozen=True)
class Job:
    """A turn on its way to an actor: the message without its content, which is broadcast once.

    Attributes:
        metadata: of the message.
        content: index into the broadcast contents.
        node_config: of the client's node.
        state: the client's committed state; None for an empty one.
        seed: see `Turn`.
    """

    metadata: Metadata
    content: int
    node_config: dict[str, Any]
    state: RecordDict | None
    seed: int


@dataclass(frozen=True)
class Delivery:
    """An outcome on its way back: the reply, and what it changed in the client's state.

    Attributes:
        reply: of the client.
        changed: records of the state that are new or differ.
        removed: names of records that are gone.
        outline: of the reply; None where nobody asked.
    """

    reply: Message
    changed: dict[str, Any]
    removed: tuple[str, ...]
    outline: Outline | None


def delivered(outcome: Outcome, before: RecordDict) -> Delivery:
    """What must travel: records that a client only read stay where they are."""
    changed = {name: record for name, record in outcome.state.items() if before.get(name) != record}
    removed = tuple(name for name in before if name not in outcome.state)
    return Delivery(outcome.reply, changed, removed, outcome.outline)


def received(delivery: Delivery, before: RecordDict) -> Outcome:
    """The outcome again, from what travelled and the state that the driver holds."""
    if not delivery.changed and not delivery.removed:
        return Outcome(delivery.reply, before, delivery.outline)
    kept = {name: record for name, record in before.items() if name not in delivery.removed}
    return Outcome(delivery.reply, RecordDict({**kept, **settled(RecordDict(delivery.changed))}), delivery.outline)


@dataclass(frozen=True)
class Answer:
    """What an actor gives for a call.

    Attributes:
        deliveries: `list[Delivery]`, packed; large ones lie in a segment, where the driver can read it.
        released: segments of the driver that this actor no longer reads.
    """

    deliveries: Packed | Placed
    released: tuple[int, ...]


class Worker:
    """Runs turns.

    Args:
        app: `"package.module:attribute"`, or a ClientApp pickled by cloudpickle.
        run_config: what clients find in their context.
        check: look at replies on the way.
    """

    def __init__(self, app: str | bytes, run_config: Mapping[str, Any], *, check: bool) -> None:
        adopt_identity()
        self._check = check
        self._run_config = dict(run_config)
        self._reference = app
        self._app: ClientApp | None = None
        self._warm = False
        self._written, self._read = WrittenSegments(), ReadSegments()

    def ready(self, probe: Probe | None) -> Probe | None:
        """Load the app, and find out whether this process and the driver can read each other's segments.

        Args:
            probe: of the driver.

        Returns:
            The probe of this process; None where it cannot read the driver's segments.

        Raises:
            FedmetaError: the app cannot be loaded.
        """
        self._load_once()
        return self._written.probe() if probe is not None and probe.succeeds() else None

    def _load_once(self) -> ClientApp:
        if self._app is None:
            self._app = self._load()
        return self._app

    def _load(self) -> ClientApp:
        if isinstance(self._reference, str):
            return load_app(self._reference)
        import ray.cloudpickle as cloudpickle

        app = cloudpickle.loads(self._reference)
        if not isinstance(app, ClientApp):
            raise FedmetaError(f"a {type(app).__name__} was given where a flwr.clientapp.ClientApp belongs")
        return app

    def run(self, broadcast: Packed | Placed, sent: Packed, released: tuple[int, ...] | None) -> Answer:
        """Run jobs to deliveries in the same order; no exception of a client leaves this.

        Args:
            broadcast: the contents (`list[RecordDict]`) that the jobs point to.
            sent: the jobs (`list[Job]`).
            released: segments of this actor that the driver no longer reads; None where it cannot read any, or
                has enough of them.
        """
        self._written.release(released or ())  # first: it is told once, whatever becomes of the jobs
        app = self._load_once()
        contents, jobs = unpack(self._here(broadcast)), unpack(sent)
        turns = self._turns(contents, jobs)
        outcomes = run_turns(app, turns, check=self._check)
        if not self._warm:
            # What the first turns loaded stays: to walk through it again and again took a tenth of a client's time.
            gc.collect()
            gc.freeze()
            self._warm = True
        packed = pack([delivered(outcome, turn.context.state) for outcome, turn in zip(outcomes, turns, strict=True)])
        large = released is not None and packed.nbytes >= IN_LINE
        placed = self._written.place(packed.parts) if large else None
        return Answer(placed or packed, self._read.released())

    def _here(self, broadcast: Packed | Placed) -> Packed:
        return broadcast if isinstance(broadcast, Packed) else Packed.of(self._read.read(broadcast))

    def _turns(self, contents: Sequence[RecordDict], jobs: Sequence[Job]) -> list[Turn]:
        return [
            Turn(
                message_from(job.metadata, contents[job.content]),
                Context(
                    run_id=job.metadata.run_id,
                    node_id=job.metadata.dst_node_id,
                    node_config=job.node_config,
                    state=job.state if job.state is not None else RecordDict(),
                    run_config=self._run_config,
                ),
                job.seed,
            )
            for job in jobs
        ]
