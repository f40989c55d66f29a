"""Any gymnasium environment, through its vector API: stateful simulators, played one task after the other."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import nn

from fedmeta.data.control import ControlData, Tasks
from fedmeta.parameters import parameter
from fedmeta.rl.environment import Layout
from fedmeta.rl.rollout import Rollout
from fedmeta.rl.simulator import Simulator, SimulatorRollout


@dataclass(frozen=True)
class Gymnasium(ControlData):
    """Policies in environments of gymnasium, whose physics differ between clients by attributes that are set.

    A client's value of each attribute of `vary` is its usual one times a factor, log-uniform in [1 / range, range]; a
    task's differs from the client's by a factor in [1 / jitter, jitter]. A rollout is reset with a seed of its own.
    These simulators are no functions of tensors: `client.execution` is loop, and on a CPU.
    """

    horizon: int = parameter(100, ge=1, doc="actions of a rollout", unit="actions")
    env: str = parameter(
        "CartPole-v1", doc="id of the environment: its observations are flat, its actions Discrete or Box"
    )
    vary: tuple[str, ...] = parameter((), doc="attributes of the environment that differ between clients")
    range: float = parameter(2.0, ge=1, doc="largest factor between a client's attributes and the usual ones")
    jitter: float = parameter(1.1, ge=1, doc="largest factor between a task's and its client's")
    std: float = parameter(1.0, gt=0, doc="of a fresh policy's actions, where they are a Box")

    @cached_property
    def environment(self) -> Simulator:
        """The environment's sizes, and how to make it."""
        return Simulator.of(self.env, self.horizon, self.vary)

    def network(self, model: nn.Module) -> Rollout:
        """The model as a policy in it."""
        return SimulatorRollout(model, self.environment, self.std)

    def family(self, rng: np.random.Generator) -> Tasks:
        """One machine, and little changes to it."""
        return self._machines(self._factors(self.range, rng), self.jitter)

    def everything(self) -> Tasks:
        """All machines."""
        return self._machines(np.ones(len(self.vary)), self.range * self.jitter)

    def _machines(self, client: np.ndarray, width: float) -> Tasks:
        world = self.environment
        usual = np.array(world.usual)

        def physics(rng: np.random.Generator) -> np.ndarray:
            return usual * client * self._factors(width, rng)

        def start(count: int, rng: np.random.Generator) -> np.ndarray:
            return rng.integers(2**20, size=(count, 1))  # a seed, exact in float32

        return Tasks(Layout.of(world), physics, start, uniform=world.discrete)

    def _factors(self, width: float, rng: np.random.Generator) -> np.ndarray:
        return np.exp(rng.uniform(-1, 1, len(self.vary)) * np.log(width))
