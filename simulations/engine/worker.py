"""What an actor does: run the turns it is given with its own copy of the app."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flwr.app import Context, RecordDict
from flwr.app.metadata import Metadata
from flwr.clientapp import ClientApp

from fedmeta.errors import FedmetaError
from simulations.engine.executor import Outcome, Turn, load_app, run_turns
from simulations.engine.flower_internals import adopt_identity, message_from


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


class Worker:
    """Runs turns.

    Args:
        app: `"package.module:attribute"`, or a ClientApp pickled by cloudpickle.
        run_config: what clients find in their context.
    """

    def __init__(self, app: str | bytes, run_config: Mapping[str, Any]) -> None:
        adopt_identity()
        self._run_config = dict(run_config)
        self._reference = app
        self._app: ClientApp | None = None

    def ready(self) -> int:
        """The process id, once the app is loaded.

        Raises:
            FedmetaError: the app cannot be loaded.
        """
        if self._app is None:
            self._app = self._load()
        return os.getpid()

    def _load(self) -> ClientApp:
        if isinstance(self._reference, str):
            return load_app(self._reference)
        import ray.cloudpickle as cloudpickle

        app = cloudpickle.loads(self._reference)
        if not isinstance(app, ClientApp):
            raise FedmetaError(f"a {type(app).__name__} was given where a flwr.clientapp.ClientApp belongs")
        return app

    def run(self, contents: Sequence[RecordDict], jobs: Sequence[Job]) -> list[Outcome]:
        """Run jobs to outcomes in the same order; no exception of a client leaves this."""
        self.ready()
        assert self._app is not None
        turns = [
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
        return run_turns(self._app, turns)
