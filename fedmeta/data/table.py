"""Tables: scikit-learn's own, divided among simulated sites, or one file for each site of yours."""

import csv
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from fedmeta.data.class_dataset import ClassDataset
from fedmeta.data.tables import EXTRA, simulated_sites, table_dataset
from fedmeta.errors import DataError
from fedmeta.parameters import parameter
from fedmeta.tasks import TASKS, Task

SIZES = {"breast_cancer": (30, 2), "wine": (13, 3), "digits": (64, 10)}
"""Columns and classes of scikit-learn's tables, so that a server without scikit-learn can build the model."""


@dataclass(frozen=True)
class Table:
    """Rows `[k]` of numbers, scaled column by column; a client is a site (partition `column`, column `site`)."""

    table: Literal["breast_cancer", "wine", "digits"] = parameter("breast_cancer", doc="of scikit-learn's")
    sites: int = parameter(20, ge=1, doc="simulated ones, that a table of scikit-learn's is dealt to", unit="sites")
    shift: float = parameter(0.5, ge=0, doc="how differently simulated sites measure: of gain and zero; 0: alike")
    site_seed: int = parameter(0, ge=0, doc="of the dealing and of the differences")
    path: str | None = parameter(None, doc="folder of your own tables, one site.csv a site; none: scikit-learn's")
    label: str = parameter("label", doc="the column of your own tables that holds the class")

    @property
    def task(self) -> Task:
        """Classification."""
        return TASKS["classification"]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The columns beside the class."""
        return (SIZES[self.table][0],) if self.path is None else (len(self._own[0]),)

    @property
    def classes(self) -> int:
        """That all sites share."""
        return SIZES[self.table][1] if self.path is None else len({label for _, label, _ in self._own[1]})

    def load(self) -> ClassDataset:
        """Read the tables.

        Raises:
            DataError: no scikit-learn, no files, a row without a class or with a value that is no number, or sites with
                different columns.
        """
        if self.path is not None:
            return self._from_folder()
        try:
            import sklearn.datasets
        except ImportError as error:
            raise DataError(EXTRA) from error
        found = getattr(sklearn.datasets, f"load_{self.table}")()
        values, sites = simulated_sites(found.data, found.target, self.sites, self.shift, self.site_seed)
        names = [f"site {site + 1}" for site in range(self.sites)]
        return table_dataset(values, found.target, sites, [str(name) for name in found.target_names], names)

    def _from_folder(self) -> ClassDataset:
        _, rows = self._own
        values = np.array([numbers for numbers, _, _ in rows], dtype=np.float64)
        labels, label = np.unique([label for _, label, _ in rows], return_inverse=True)
        sites, site = np.unique([site for _, _, site in rows], return_inverse=True)
        return table_dataset(values, label, site, [str(name) for name in labels], [str(name) for name in sites])

    @cached_property
    def _own(self) -> tuple[list[str], list[tuple[list[float], str, str]]]:
        """The columns in the order of the first file, and rows as (numbers, class, site)."""
        folder = Path(self.path or "")
        files = sorted(folder.glob("*.csv"))
        if not files:
            raise DataError(f"data.path = '{self.path}' holds no site.csv: give a folder with one table a site")
        headers = {file: _header(file, self.label) for file in files}
        columns = headers[files[0]]
        _check_equal(headers)
        return columns, [row for file in files for row in _rows(file, columns, self.label)]


def _header(file: Path, label: str) -> list[str]:
    """A table's columns beside the class."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            found = next(csv.reader(opened), [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"'{file}' cannot be read as a UTF-8 table: {error}") from error
    if label not in found:
        raise DataError(f"'{file}' has no column '{label}' for the class, only {', '.join(found)}: set data.label")
    if len(set(found)) < len(found):
        raise DataError(f"'{file}' has a column twice: {', '.join(sorted({c for c in found if found.count(c) > 1}))}")
    return [column for column in found if column != label]


def _check_equal(headers: dict[Path, list[str]]) -> None:
    """Refuse sites with different columns; another order of the same is read in the first's.

    Raises:
        DataError: lists, for each site, the columns that it lacks of those that any site has.
    """
    every = sorted(set().union(*headers.values()))
    lacking = {file.stem: [column for column in every if column not in own] for file, own in headers.items()}
    differing = {site: columns for site, columns in lacking.items() if columns}
    if differing:
        told = "; ".join(f"{site} lacks {', '.join(columns)}" for site, columns in differing.items())
        raise DataError(
            f"the sites' tables have different columns: {told}. One model needs the same everywhere: give "
            "every site these columns, or leave them out everywhere"
        )


def _rows(file: Path, columns: list[str], label: str) -> list[tuple[list[float], str, str]]:
    """Rows as (numbers, class, site).

    Raises:
        DataError: a row without a class, with a value that is no number, or with more cells than columns.
    """
    rows = []
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.DictReader(opened)
            for row in reader:
                place = f"'{file}', line {reader.line_num}"
                if None in row:
                    raise DataError(f"{place} has more cells than the table has columns: mend the line")
                said = (row[label] or "").strip()
                if not said:
                    raise DataError(f"{place} has no class in column '{label}': fill it in, or drop the line")
                rows.append(([_number(place, column, row[column]) for column in columns], said, file.stem))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"'{file}' cannot be read as a UTF-8 table: {error}") from error
    if not rows:
        raise DataError(f"'{file}' has no rows: remove it")
    return rows


def _number(place: str, column: str, text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{place}, column '{column}': {text!r} is no number. Fill or drop it")
    return value
