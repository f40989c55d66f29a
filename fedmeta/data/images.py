"""A folder of one's own images, `client/class/*.png`, by name in an experiment."""

from dataclasses import dataclass
from functools import cached_property

from fedmeta.data.class_dataset import ClassDataset
from fedmeta.data.own import from_folder
from fedmeta.errors import DataError
from fedmeta.parameters import parameter
from fedmeta.tasks import TASKS, Task


@dataclass(frozen=True)
class Images:
    """Images of any number of clients; a class of one name is the same for all of them."""

    path: str | None = parameter(None, doc="folder of client/class/*.png")
    shape: tuple[int, ...] = parameter((1, 28, 28), ge=1, doc="of every image: [1, height, width], or [3, ...] for RGB")
    test_share: float = parameter(0.2, ge=0, lt=1, doc="share of the classes that test clients are judged on")
    validation_share: float = parameter(0.0, ge=0, lt=1, doc="likewise of validation clients")
    split_seed: int = parameter(0, ge=0, doc="of the draw of these classes")

    @property
    def task(self) -> Task:
        """Classification."""
        return TASKS["classification"]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """As declared."""
        return self.shape

    @cached_property
    def classes(self) -> int:
        """Names of class folders over all clients; reads the images."""
        return self.load().classes

    def load(self) -> ClassDataset:
        """Read all images.

        Raises:
            DataError: no path, no such folders, or images of another shape.
        """
        if self.path is None:
            raise DataError("data 'images' needs data.path, a folder of client/class/*.png")
        return from_folder(
            self.path,
            self.shape,
            test_share=self.test_share,
            validation_share=self.validation_share,
            seed=self.split_seed,
        )
