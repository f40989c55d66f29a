"""`fedmeta bench`: grids of attacks, defences and seeds, from one file to a table, files and a page.

`from simulations.bench import bench; report = bench("grid.toml", "out")`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulations.bench.run import bench

__all__ = ["bench"]


def __getattr__(name: str) -> Any:
    """Import an exported name when it is first asked for: a worker needs one module of this package."""
    if name == "bench":
        from simulations.bench.run import bench

        return bench
    raise AttributeError(f"module 'simulations.bench' has no attribute '{name}'")
