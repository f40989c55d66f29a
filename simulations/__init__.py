"""Launching runs: engines, shipped experiments, and the `fedmeta` command. Exports load on first use."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulations.adversarial_grid import AdversarialGrid
    from simulations.engine.inline_grid import InlineGrid
    from simulations.engine.ray_grid import RayGrid
    from simulations.launch import simulate

__all__ = ["AdversarialGrid", "InlineGrid", "RayGrid", "simulate"]

_EXPORTS = {
    "AdversarialGrid": "simulations.adversarial_grid",
    "InlineGrid": "simulations.engine.inline_grid",
    "RayGrid": "simulations.engine.ray_grid",
    "simulate": "simulations.launch",
}


def __getattr__(name: str) -> Any:
    """Import an exported name when it is first asked for, so that `import simulations` loads neither ray nor torch."""
    if name in _EXPORTS:
        import importlib

        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'simulations' has no attribute '{name}'")
