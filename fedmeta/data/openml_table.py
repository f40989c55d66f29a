"""A table of openml.org by its id (Vanschoren et al. 2013), through the optional package `openml`.

What was fetched once lies in openml's cache folder, from which a later run works without a network.
"""

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fedmeta.data.class_dataset import ClassDataset
from fedmeta.data.tables import simulated_sites, table_dataset
from fedmeta.errors import DataError
from fedmeta.parameters import parameter
from fedmeta.tasks import TASKS, Task

log = logging.getLogger("fedmeta.data")

EXTRA = "data.name = 'openml' needs the package openml: install fedmeta[openml]"
UNKNOWN = 111
"""openml.org's error for an id that it does not know."""


@dataclass(frozen=True)
class OpenML:
    """Rows of numbers with a class: categories become columns of 0 and 1, a missing number its column's mean.

    A client is a site: a value of the column `site`, or a simulated one that measures in its own way (as data `table`).
    """

    id: int = parameter(doc="of the data set on openml.org, such as 31 (credit-g)", ge=1)
    target: str | None = parameter(None, doc="column of the class; none: the data set's own target")
    site: str | None = parameter(None, doc="column whose values are the sites, left out of the rows; none: simulated")
    sites: int = parameter(20, ge=1, doc="simulated ones", unit="sites")
    shift: float = parameter(0.5, ge=0, doc="how differently simulated sites measure: of gain and zero; 0: alike")
    site_seed: int = parameter(0, ge=0, doc="of the dealing and of the differences")
    path: str | None = parameter(None, doc="openml's cache folder; none: as openml is configured")

    @property
    def task(self) -> Task:
        """Classification."""
        return TASKS["classification"]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The columns beside class and site, once categories are columns."""
        return (self._table[0].shape[1],)

    @property
    def classes(self) -> int:
        """That all sites share."""
        return len(np.unique(self._table[1]))

    def load(self) -> ClassDataset:
        """Fetch the table, or read it from the cache folder.

        Raises:
            DataError: no package, no such data set or a removed one, no network, or a table without a class.
        """
        values, label, site = self._table
        classes, labels = np.unique(label, return_inverse=True)
        if site is None:
            values, owner = simulated_sites(values, labels, self.sites, self.shift, self.site_seed)
            names = [f"site {number + 1}" for number in range(self.sites)]
        else:
            found, owner = np.unique(site, return_inverse=True)
            names = [str(name) for name in found]
        return table_dataset(values, labels, owner, [str(name) for name in classes], names)

    @cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Numbers `[n, k]`, class names `[n]` and site names `[n]`."""
        dataset, frame = self._fetched()
        target = dataset.default_target_attribute if self.target is None else self.target
        for key, column in (("target", target), ("site", self.site)):
            if column is not None and column not in frame.columns:
                raise DataError(
                    f"data.{key} = '{column}' is no column of data set {self.id}: {', '.join(frame.columns)}"
                )
        if target is None:
            raise DataError(f"data set {self.id} names no target: set data.target to one of {', '.join(frame.columns)}")
        known = frame[[target] if self.site is None else [target, self.site]].notna().all(axis=1)
        if not known.any():
            raise DataError(f"data set {self.id} has no row with a class: set data.target to another column")
        if not known.all():
            without, rows = int((~known).sum()), len(known)
            log.warning("data.id = %d: %d of %d rows have no class or site, and are left out", self.id, without, rows)
        frame = frame[known]
        label = frame[target].astype(str).to_numpy()
        site = None if self.site is None else frame[self.site].astype(str).to_numpy()
        given = frame.drop(columns=[target] if self.site is None else [target, self.site])
        return _numbers(given), label, site

    def _fetched(self) -> tuple[Any, Any]:
        """openml's data set and its data frame."""
        try:
            import openml
        except ImportError as error:
            raise DataError(EXTRA) from error
        from openml.exceptions import OpenMLServerException, PyOpenMLError

        if self.path is not None:
            openml.config.set_root_cache_directory(self.path)
        try:
            # Never openml's pickles: a cache folder may come from somebody else.
            dataset = openml.datasets.get_dataset(
                self.id, download_data=True, download_features_meta_data=True, cache_format="feather"
            )
            self._check_status(dataset)
            return dataset, dataset.get_data()[0]
        except OpenMLServerException as error:
            if error.code == UNKNOWN:
                raise DataError(
                    f"data.id = {self.id}: openml.org knows no such data set; it never was, or was removed. Look for "
                    "another on openml.org"
                ) from error
            raise DataError(f"data.id = {self.id}: openml.org refused: {error}") from error
        except PyOpenMLError as error:
            raise DataError(
                f"data.id = {self.id}: openml failed: {error}. A damaged file in its cache folder is fetched anew once "
                "it is removed"
            ) from error
        except OSError as error:  # what requests raises without a network is one, too
            raise DataError(
                f"data.id = {self.id}: openml.org cannot be reached, and the cache folder does not hold the data set: "
                f"{type(error).__name__}. Set data.path to a cache folder that does, or fetch it elsewhere"
            ) from error

    def _check_status(self, dataset: Any) -> None:
        """Refuse a data set that was withdrawn for its faults."""
        file = dataset.parquet_file or dataset.data_file
        description = Path(file).parent / "description.xml" if file else None
        if description and "<oml:status>deactivated<" in description.read_text(encoding="utf-8"):
            raise DataError(
                f"data.id = {self.id}: this data set is deactivated on openml.org, which means known faults or another "
                "version: take that"
            )


def _numbers(frame: Any) -> np.ndarray:
    """A data frame's columns as numbers `[n, k]`."""
    columns = []
    for name in frame.columns:
        column = frame[name]
        if getattr(column.dtype, "kind", "O") in "iufb":
            numbers = column.to_numpy(dtype=np.float64)
            known = np.isfinite(numbers)
            columns.append(np.where(known, numbers, numbers[known].mean() if known.any() else 0.0))
        else:  # a missing value is 0 in all of its columns
            text = column.astype(object)
            columns += [(text == value).to_numpy(dtype=np.float64) for value in sorted(text.dropna().unique(), key=str)]
    if not columns:
        raise DataError("the table has no column beside class and site")
    return np.stack(columns, axis=1)
