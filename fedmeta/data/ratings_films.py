"""What is known of a film without anybody's rating: its genres and its decade, as flags beside its number."""

import csv
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from fedmeta.data.ratings_files import rated_films
from fedmeta.errors import DataError

GENRES = (
    *("Action", "Adventure", "Animation", "Children", "Comedy", "Crime", "Documentary", "Drama", "Fantasy"),
    *("Film-Noir", "Horror", "IMAX", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
"""MovieLens' genres; `Children's` of its older sets is `Children`. A genre of another name has no flag."""

DECADES = (1940, 1950, 1960, 1970, 1980, 1990, 2000, 2010)
"""First years of decades; an older film has no flag of a decade, and a younger one that of the last."""

FLAGS = len(GENRES) + len(DECADES)
"""Flags a film."""

FORMS = {"movies.csv": "utf-8", "movies.dat": "latin-1"}
"""File of a MovieLens folder -> its encoding."""

COUNTS = (0, 1, 2, 4, 8, 16, 32, 64)
"""First numbers of ratings of the classes of popularity; 64 and more are one class."""

Films = Mapping[int, tuple[str, str]]
"""A film's number in its source -> its year, or a title that ends in (year); and its genres, parted by `|`."""


def films_of_folder(path: Path) -> Films:
    """The films of a MovieLens folder: `movies.csv` or `movies.dat`.

    Raises:
        DataError: neither is there, or a line that is not number, title, genres.
    """
    file = next((path / name for name in FORMS if (path / name).is_file()), None)
    if file is None:
        raise DataError(
            f"'{path}' holds none of {', '.join(FORMS)}, where genres and years are: add one, or set data.films to "
            "false"
        )
    try:
        lines = file.read_text(encoding=FORMS[file.name]).splitlines()
        if file.suffix == ".dat":
            rows = [line.split("::") for line in lines if line]
        else:
            rows = [row for row in csv.reader(lines[1:]) if row]
        return {int(number): (title.strip(), genres) for number, title, genres in rows}
    except (OSError, csv.Error, ValueError) as error:
        raise DataError(f"'{file}' is not of lines number, title, genres ({error}): fetch it again") from error


def films_of_package() -> Films:
    """The films of `dslabs/movielens`.

    Raises:
        DataError: the package is not installed.
    """
    return {int(number): (str(year), str(genres)) for number, year, genres in rated_films()}


def flags_of(films: Films, numbers: Iterable[int]) -> np.ndarray:
    """`[n, FLAGS]` int64, 0 or 1, of these films; a film that is not described has no flag.

    >>> flags_of({7: ("Alien (1979)", "Horror|Sci-Fi")}, [7, 8]).sum(axis=1)
    array([3, 0])
    """
    return np.array([_flags(*films.get(int(number), ("", ""))) for number in numbers], dtype=np.int64)


def popularity_of(counts: np.ndarray) -> np.ndarray:
    """`[n, len(COUNTS)]` int64, 1 at the class of each number of ratings `[n]`.

    >>> popularity_of(np.array([0, 3, 1000])).argmax(axis=1)
    array([0, 2, 7])
    """
    return np.eye(len(COUNTS), dtype=np.int64)[np.searchsorted(COUNTS, counts, side="right") - 1]


def _flags(title: str, genres: str) -> list[int]:
    own = {name.replace("Children's", "Children") for name in genres.strip().split("|")}
    found = re.search(r"(\d{4})(?:\.0)?\)?\s*$", title)
    decade = min(int(found[1]) // 10 * 10, DECADES[-1]) if found else None
    return [*(int(name in own) for name in GENRES), *(int(first == decade) for first in DECADES)]
