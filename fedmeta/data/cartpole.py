"""Cart and pole (Barto, Sutton & Anderson 1983): a client is a machine with masses and a pole of its own."""

from dataclasses import dataclass

import numpy as np

from fedmeta.data.control import ControlData, Tasks
from fedmeta.parameters import parameter
from fedmeta.rl.cartpole import CartPole
from fedmeta.rl.environment import Layout

USUAL = np.array([1.0, 0.1, 0.5])
"""Masses of cart and pole [kg] and half the pole's length [m] in gymnasium's `CartPole-v1`."""

STARTS = 0.05
"""Every number of a first state is uniform within this of 0."""


@dataclass(frozen=True)
class CartPoles(ControlData):
    """Keep a pole upright; every step earns 1.

    A client's cart, pole and length are the usual ones times factors, log-uniform in [1 / range, range]; a task's
    differ from the client's by factors in [1 / jitter, jitter].
    """

    horizon: int = parameter(100, ge=1, doc="pushes of a rollout", unit="actions")
    range: float = parameter(4.0, ge=1, doc="largest factor between a client's masses and length and the usual ones")
    jitter: float = parameter(1.1, ge=1, doc="largest factor between a task's and its client's")

    @property
    def environment(self) -> CartPole:
        """The machine."""
        return CartPole(self.horizon)

    def family(self, rng: np.random.Generator) -> Tasks:
        """One machine, and little changes to it."""
        return self._machines(self._factors(self.range, rng), self.jitter)

    def everything(self) -> Tasks:
        """All machines."""
        return self._machines(np.ones(3), self.range * self.jitter)

    def _machines(self, client: np.ndarray, width: float) -> Tasks:
        def physics(rng: np.random.Generator) -> np.ndarray:
            return USUAL * client * self._factors(width, rng)

        def start(count: int, rng: np.random.Generator) -> np.ndarray:
            return rng.uniform(-STARTS, STARTS, (count, 4))

        return Tasks(Layout.of(self.environment), physics, start, uniform=True)

    @staticmethod
    def _factors(width: float, rng: np.random.Generator) -> np.ndarray:
        return np.exp(rng.uniform(-1, 1, 3) * np.log(width))
