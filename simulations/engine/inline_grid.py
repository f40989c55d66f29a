"""InlineGrid: clients in this process, one after the other; for debugging and tests."""

from collections.abc import Sequence
from functools import cached_property

from flwr.clientapp import ClientApp

from simulations.engine.executor import Outcome, Turn, generators_kept, load_app, run_turns
from simulations.engine.local_grid import LocalGrid


class InlineGrid(LocalGrid):
    """A grid that runs clients in the calling process: breakpoints work, and results are those of any other engine.

    A time limit cannot interrupt a client here: it is not kept.
    """

    @cached_property
    def _loaded(self) -> ClientApp:
        return load_app(self._app)

    def _execute(self, turns: Sequence[Turn], timeout: float | None) -> list[Outcome]:
        with generators_kept():
            return run_turns(self._loaded, turns, check=self._check)
