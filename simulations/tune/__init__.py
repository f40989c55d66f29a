"""`fedmeta tune`: a search over keys of an experiment, judged on validation clients, and accounted where private."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulations.tune.run import tune

__all__ = ["tune"]


def __getattr__(name: str) -> Any:
    if name == "tune":
        from simulations.tune.run import tune

        return tune
    raise AttributeError(f"module 'simulations.tune' has no attribute '{name}'")
