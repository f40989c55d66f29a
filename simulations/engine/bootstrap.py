"""The first code that runs in an actor, pickled by value: nothing here may import this project at module level.

A worker finds its driver's folder first on its path, where a user may keep a `server.py` or a `simulations/` of
their own, and may not find a checkout at all. So the actor takes over the driver's path before it imports us.
"""

import os
import sys
from typing import Any


class Bootstrap:
    """An actor that becomes a `simulations.engine.worker.Worker`.

    Args:
        path: the driver's `sys.path`.
        packages: top-level names to import afresh from it.
        settings: arguments of the Worker.
    """

    def __init__(self, path: list[str], packages: tuple[str, ...], settings: dict[str, Any]) -> None:
        # Before torch is imported, so that its pools are made with one thread.
        os.environ["OMP_NUM_THREADS"] = "1"
        os.environ["MKL_NUM_THREADS"] = "1"
        # The worker's own places stay behind: another machine may keep its packages elsewhere.
        sys.path[:] = path + [place for place in sys.path if place not in path]
        for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
            del sys.modules[name]
        import signal

        # Ctrl-C is the driver's to handle: it ends the actors.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        from simulations.engine.allocator import keep_freed_memory
        from simulations.engine.worker import Worker

        keep_freed_memory()
        self._worker = Worker(**settings)

    def ready(self) -> int:
        """The process id, once the app is loaded."""
        return self._worker.ready()

    def run(self, broadcast: Any, sent: Any) -> Any:
        """See `Worker.run`."""
        return self._worker.run(broadcast, sent)
