"""The first code that runs in an actor, pickled by value: nothing here may import this project at module level.

A worker finds its driver's folder first on its path, where a user may keep a `server.py` or a `simulations/` of
their own, and may not find a checkout at all. So the actor takes over the driver's path before it imports us.
"""

import contextlib
import hashlib
import io
import os
import sys
import tempfile
import zipfile
from typing import Any


class Bootstrap:
    """An actor that becomes a `simulations.engine.worker.Worker`.

    Args:
        path: the driver's `sys.path`.
        packages: top-level names to import afresh from it.
        settings: arguments of the Worker.
        parcel: what an actor on another machine needs (`simulations.engine.parcel`), or data that lie in no file; None
            where there is no need.
    """

    def __init__(
        self,
        path: list[str],
        packages: tuple[str, ...],
        settings: dict[str, Any],
        parcel: dict[str, Any] | None = None,
    ) -> None:
        adopt_path(path)
        datasets = _open_parcel(parcel)
        import_afresh(packages)
        import signal

        # Ctrl-C is the driver's to handle: it ends the actors.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        from simulations.engine.allocator import keep_freed_memory
        from simulations.engine.worker import Worker

        keep_freed_memory()
        if datasets:
            import ray

            from fedmeta.data.delivered import deliver

            deliver(ray.get(datasets[0]))
        self._worker = Worker(**settings)

    def ready(self, probe: Any) -> Any:
        """See `Worker.ready`."""
        return self._worker.ready(probe)

    def run(self, broadcast: Any, sent: Any, released: Any) -> Any:
        """See `Worker.run`."""
        return self._worker.run(broadcast, sent, released)


def adopt_path(path: list[str]) -> None:
    """Look for modules where the driver does, and compute with one thread."""
    # Before torch is imported, so that its pools are made with one thread.
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["MKL_NUM_THREADS"] = "1"
    # The worker's own places stay behind: another machine may keep its packages elsewhere.
    sys.path[:] = path + [place for place in sys.path if place not in path]


def import_afresh(packages: tuple[str, ...]) -> None:
    """Forget modules of the packages that were imported from elsewhere."""
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]


def call(path: list[str], packages: tuple[str, ...], target: str, arguments: tuple[Any, ...]) -> Any:
    """A Ray task: what `"module:function"` of the driver's own path returns.

    Ray keeps a worker for the tasks that follow, which find the modules there.
    """
    import importlib
    import signal

    if sys.path[: len(path)] != path:
        adopt_path(path)
        import_afresh(packages)
        # Ctrl-C is the driver's to handle: it ends the workers.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    module, _, function = target.partition(":")
    return getattr(importlib.import_module(module), function)(*arguments)


def _open_parcel(parcel: dict[str, Any] | None) -> list[Any]:
    """On another machine than the driver's: take over its settings and code; returns where its data are."""
    import ray

    if parcel is None:
        return []
    if ray.get_runtime_context().get_node_id() == parcel["home"]:
        return list(parcel["datasets"]) if parcel["everywhere"] else []
    for key, value in parcel["environment"].items():
        os.environ.setdefault(key, value)  # what this machine was told itself is right here
    code = ray.get(parcel["code"][0])
    cache = os.environ.get("FEDMETA_CACHE") or os.path.join(os.path.expanduser("~"), ".cache", "fedmeta")
    folder = os.path.join(cache, "code", hashlib.sha256(code).hexdigest()[:32])
    if not os.path.isdir(folder):
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        with tempfile.TemporaryDirectory(dir=os.path.dirname(folder)) as fresh:
            zipfile.ZipFile(io.BytesIO(code)).extractall(os.path.join(fresh, "code"))
            with contextlib.suppress(OSError):  # another actor of this machine was first, with equal content
                os.rename(os.path.join(fresh, "code"), folder)
    sys.path.insert(0, folder)
    return list(parcel["datasets"])
