"""Two-dimensional navigation (Finn et al. 2017, section 5.3): a client is a neighbourhood of goals."""

from dataclasses import dataclass

import numpy as np
from torch import nn

from fedmeta.data.control import ControlData, Tasks
from fedmeta.parameters import parameter
from fedmeta.rl.environment import Layout
from fedmeta.rl.navigation import Navigation
from fedmeta.rl.rollout import Rollout

SIDE = 1.0
"""Side of the square around the origin in which goals lie [units]."""


@dataclass(frozen=True)
class Nav2D(ControlData):
    """Walk from the origin to a goal in [-.5, .5]^2 that is not seen, in steps of at most .1 along each axis.

    The reward of a step is minus the distance to the goal. All clients' goals together are uniform in the square.
    """

    spread: float = parameter(
        0.4, gt=0, le=1, doc="side of the box from which a client draws goals, around its own centre", unit="units"
    )
    std: float = parameter(1.0, gt=0, doc="of a fresh policy's actions, in units of the largest step")

    @property
    def environment(self) -> Navigation:
        """The plane."""
        return Navigation(self.horizon)

    def network(self, model: nn.Module) -> Rollout:
        """The model as a policy, its first standard deviation as set."""
        return Rollout(model, self.environment, self.std)

    def family(self, rng: np.random.Generator) -> Tasks:
        """Goals around a centre, itself uniform in the square."""
        return self._goals(rng.uniform(-SIDE / 2, SIDE / 2, 2), self.spread)

    def everything(self) -> Tasks:
        """Goals uniform in the square."""
        return self._goals(np.zeros(2), SIDE)

    def _goals(self, centre: np.ndarray, side: float) -> Tasks:
        def goal(rng: np.random.Generator) -> np.ndarray:
            return reflected(centre + rng.uniform(-side / 2, side / 2, 2))

        def start(count: int, rng: np.random.Generator) -> np.ndarray:
            return np.zeros((count, 0))

        return Tasks(Layout.of(self.environment), goal, start, uniform=False)


def reflected(place: np.ndarray) -> np.ndarray:
    """Places beyond the square thrown back at its border, so that uniform centres give uniform goals.

    >>> reflected(np.array([0.6, -0.2])).round(3).tolist()
    [0.4, -0.2]
    """
    half = SIDE / 2
    return half - np.abs((place + half) % (2 * SIDE) - SIDE)
