"""Data that lie on the nodes of a deployment alone: the experiment declares their shape, and no more."""

from dataclasses import dataclass

from fedmeta.data.class_dataset import ClassDataset
from fedmeta.errors import DataError
from fedmeta.parameters import parameter
from fedmeta.tasks import TASKS, Task


@dataclass(frozen=True)
class Nodes:
    """Labelled images or arrays that each node reads from the `data-path` of its own configuration."""

    shape: tuple[int, ...] = parameter(
        (1, 28, 28), ge=1, doc="of one input: [1, height, width] for grey images, [3, ...] for RGB, or that of x's rows"
    )
    classes: int = parameter(
        0,
        ge=0,
        doc="classes that all nodes share and number alike; 0: each node has classes of its own",
        unit="classes",
    )

    @property
    def task(self) -> Task:
        """Classification."""
        return TASKS["classification"]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """As declared."""
        return self.shape

    def load(self) -> ClassDataset:
        """Refuse: there is nothing to load.

        Raises:
            DataError: always.
        """
        raise DataError(
            "data.name = 'nodes': the data lie on the nodes of a deployment alone. Start each node with "
            '--node-config \'data-path="..." name="..."\', or name a data set to simulate'
        )
