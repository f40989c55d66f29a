"""Partitions: clients, classes and writers of the roles never overlap."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from fedmeta.data import PARTITIONS, load_dataset
from fedmeta.data.base import EpisodeShape
from fedmeta.data.class_dataset import ClassDataset, ClassFederation, dataset_from_arrays
from fedmeta.errors import ConfigurationError, DataError

CASES = [
    ("alphabet", {}),
    ("alphabet", {"validation_clients": 1}),
    ("writer", {}),
    ("writer", {"per_client": 3, "validation_clients": 1}),
    ("alphabet_writer", {}),
    ("alphabet_writer", {"per_client": 2, "validation_clients": 1}),
    ("dirichlet", {"clients": 6, "test_clients": 2, "alpha": 0.3}),
    ("iid", {"clients": 4, "test_clients": 2, "validation_clients": 2}),
    ("centralised", {"validation_clients": 1}),
]


def divide(dataset: ClassDataset, name: str, seed: int = 0, **parameters) -> ClassFederation:
    return dataset.federate(PARTITIONS.make(name, **parameters), seed)


@pytest.mark.parametrize(("name", "parameters"), CASES)
def test_roles_share_no_example_and_no_class(toy: ClassDataset, name: str, parameters: dict) -> None:
    federation = divide(toy, name, **parameters)
    roles = [client.role for client in federation.clients]
    assert [client.id for client in federation.clients] == list(range(len(roles)))
    assert roles == sorted(roles, key=["train", "validation", "test", "pooled"].index)
    assert roles[-1] == "pooled" and "test" in roles
    assert ("validation" in roles) == bool(parameters.get("validation_clients"))
    assert len({client.name for client in federation.clients}) == len(roles)
    seen: dict[str, set[int]] = {role: set() for role in roles}
    rows: list[int] = []
    for share in federation.shares:
        seen[share.role] |= set(toy.labels[share.rows].tolist())
        if share.role != "pooled":
            rows += share.rows.tolist()
    assert len(rows) == len(set(rows)), "an example belongs to one client"
    for one, other in (("train", "test"), ("train", "validation"), ("validation", "test")):
        assert not seen.get(one, set()) & seen.get(other, set()), f"{one} and {other} share classes"
    test_rows = sorted(row for share in federation.shares if share.role == "test" for row in share.rows)
    assert sorted(federation.shares[-1].rows) == test_rows


@pytest.mark.parametrize("name", ["writer", "alphabet_writer"])
def test_writers_of_the_roles_are_disjoint(toy: ClassDataset, name: str) -> None:
    federation = divide(toy, name, validation_clients=1)
    writers: dict[str, set[int]] = {"train": set(), "validation": set(), "test": set()}
    for share in federation.shares[:-1]:
        writers[share.role] |= set(toy.columns["writer"][share.rows].tolist())
    assert not (
        writers["train"] & writers["test"]
        or writers["train"] & writers["validation"]
        or writers["test"] & writers["validation"]
    )


def test_the_seed_decides_and_nothing_else(toy: ClassDataset) -> None:
    one, same, other = (divide(toy, "dirichlet", seed, clients=5) for seed in (0, 0, 1))
    assert all(np.array_equal(a.rows, b.rows) for a, b in zip(one.shares, same.shares, strict=True))
    assert not all(np.array_equal(a.rows, b.rows) for a, b in zip(one.shares, other.shares, strict=False))


def test_dirichlet_is_uneven_where_iid_is_even(toy: ClassDataset) -> None:
    def spread(federation: ClassFederation) -> float:
        sizes = [len(share.rows) for share in federation.shares if share.role == "train"]
        return float(np.std(sizes) / np.mean(sizes))

    assert spread(divide(toy, "iid", clients=6)) < 0.1 < spread(divide(toy, "dirichlet", clients=6, alpha=0.1))


def test_cells_below_min_examples_are_dropped(toy: ClassDataset) -> None:
    federation = divide(toy, "writer", min_examples=2)
    assert all(len(rows) >= 2 for rows in federation.source(0).rows.values())
    with pytest.raises(DataError, match=r"min_examples = 3"):
        divide(toy, "writer", min_examples=3)


@pytest.mark.parametrize(("name", "own"), [("writer", {}), ("iid", {"clients": 6}), ("dirichlet", {"clients": 6})])
def test_shared_classes_are_everywhere_and_examples_are_not(toy: ClassDataset, name: str, own: dict) -> None:
    federation = divide(replace(toy, shared_classes=True), name, **own)
    rows = [row for share in federation.shares[:-1] for row in share.rows]
    assert len(rows) == len(set(rows))
    test_classes = {c for share in federation.shares if share.role == "test" for c in toy.labels[share.rows]}
    assert len(test_classes) > 12, "classes of both splits"
    with pytest.raises(ConfigurationError, match=r"task\.kind = 'own'"):
        divide(replace(toy, shared_classes=True), "alphabet")


def test_small_clients_can_be_left_out(toy: ClassDataset) -> None:
    few = divide(toy, "dirichlet", clients=12, alpha=0.05, min_classes=2)
    assert all(len(few.source(client.id).classes) >= 2 for client in few.clients)
    with pytest.raises(DataError, match="min_classes = 30"):
        divide(toy, "alphabet", min_classes=30)


def test_what_cannot_be_is_refused(toy: ClassDataset) -> None:
    with pytest.raises(ConfigurationError, match=r"validation_clients = 3 leaves none of 3"):
        divide(toy, "alphabet", validation_clients=3)
    with pytest.raises(ConfigurationError, match="give no training client"):
        divide(toy, "writer", per_client=9)
    with pytest.raises(ConfigurationError, match="no 'client' of each example"):
        divide(toy, "column")
    with pytest.raises(ConfigurationError, match="no classes for partition"):
        load_dataset("sinusoid").federate(PARTITIONS.make("alphabet"), 0)


def test_own_arrays_with_a_client_column() -> None:
    rng = np.random.default_rng(0)
    examples, labels, owners = rng.random((400, 6)), np.repeat(np.arange(100, 120), 20), np.tile(np.arange(5), 80)
    dataset = dataset_from_arrays(examples, labels, owners, test_share=0.25)
    assert Counter(dataset.splits) == {"train": 15, "test": 5}
    federation = dataset.federate(PARTITIONS.make("column", column="client"), 0)
    assert Counter(client.role for client in federation.clients) == {"train": 4, "test": 1, "pooled": 1}
    episode = federation.source(0).sample(EpisodeShape(5, 1, 2), rng)
    assert episode.support.x.shape == (5, 6)
    with pytest.raises(DataError, match="give one label"):
        dataset_from_arrays(examples, labels[:-1])
