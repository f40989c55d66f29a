"""Partitions: clients, classes and writers of the roles never overlap."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from fedmeta.data import PARTITIONS, load_dataset
from fedmeta.data.arrays import dataset_from_arrays
from fedmeta.data.base import EpisodeShape
from fedmeta.data.class_dataset import ClassDataset, ClassFederation
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


@pytest.mark.parametrize("name", ["iid", "dirichlet"])
def test_what_overlaps_belongs_to_one_client_where_roles_share_classes(toy: ClassDataset, name: str) -> None:
    """Snippets of one paragraph: a test client that has one would be judged on what training clients have seen."""
    toy = replace(toy, shared_classes=True, apart="writer")
    federation = divide(toy, name, clients=2, test_clients=1, min_examples=1)
    owners: dict[tuple[int, int], set[int]] = {}
    for number, share in enumerate(federation.shares[:-1]):
        for row in share.rows:
            owners.setdefault((int(toy.labels[row]), int(toy.columns["writer"][row])), set()).add(number)
    assert all(len(found) == 1 for found in owners.values())
    assert sum(len(share.rows) for share in federation.shares[:-1]) == len(toy.labels), "and nothing is lost"


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
    with pytest.raises(ConfigurationError, match="no classes for partition"):
        load_dataset("sinusoid").federate(PARTITIONS.make("dirichlet", alpha=0.1), 0)


def test_as_many_validation_clients_as_asked_for_or_a_refusal(toy: ClassDataset) -> None:
    def roles(name: str, **own) -> Counter:
        return Counter(client.role for client in divide(toy, name, **own).clients)

    assert roles("alphabet_writer", validation_clients=4)["validation"] == 4, "two alphabets by two writers"
    few = {"clients": 3, "test_clients": 2}
    for name, wanted, own in (("alphabet", 2, {}), ("writer", 3, {}), ("iid", 7, few), ("centralised", 2, {})):
        assert roles(name, validation_clients=wanted, **own)["validation"] == wanted
        assert roles(name, validation_clients=0, **own)["validation"] == 0, "0 is a value"
    validated = replace(toy, splits=["validation" if i < 6 else split for i, split in enumerate(toy.splits)])
    assert Counter(c.role for c in divide(validated, "alphabet").clients)["validation"] == 1
    with pytest.raises(ConfigurationError, match="validation_clients = 2, and this division makes only 1"):
        divide(validated, "alphabet", validation_clients=2)


def test_one_picture_a_writer_needs_several_writers_a_client() -> None:
    """As in Omniglot: a class of which a client has one example is dropped, and with all of them the client."""
    labels, writers = np.repeat(np.arange(12), 20), np.tile(np.arange(20), 12)
    splits = ["test" if c >= 8 else "train" for c in range(12)]
    dataset = ClassDataset(np.zeros((240, 4, 4), dtype=np.uint8), labels, splits, {"writer": writers}, {})
    with pytest.raises(DataError, match=r"raise partition\.per_client"):
        divide(dataset, "writer")
    federation = divide(dataset, "writer", per_client=4)
    assert Counter(client.role for client in federation.clients) == {"train": 4, "test": 1, "pooled": 1}
    federation.source(0).sample(EpisodeShape(5, 1, 3), np.random.default_rng(0))
    with pytest.raises(DataError, match=r"has 4 examples of class 0.*1 shots \+ 4 queries = 5.*more writers"):
        federation.source(0).sample(EpisodeShape(5, 1, 4), np.random.default_rng(0))


def test_the_pooled_client_holds_what_the_test_clients_hold_and_no_more(toy: ClassDataset) -> None:
    federation = divide(toy, "dirichlet", clients=4, test_clients=6, alpha=0.2, min_examples=3, min_classes=2)
    held = [
        {row for rows in federation.source(client.id).rows.values() for row in rows} for client in federation.clients
    ]
    tested = [rows for client, rows in zip(federation.clients, held, strict=True) if client.role == "test"]
    assert held[-1] == set().union(*tested) and len(tested) >= 2
    assert not any(c.role == "pooled" for c in divide(toy, "alphabet", pooled=False).clients)


def test_an_alphabet_of_several_roles_is_named_by_role(toy: ClassDataset) -> None:
    mixed = replace(toy, splits=["test" if i in (0, 1, 2, 23) else "train" for i in range(24)])
    names = [client.name for client in divide(mixed, "alphabet", min_classes=3, pooled=False).clients]
    assert names == ["A (train)", "B", "C", "D (train)", "A (test)"]


def test_centralised_data_without_alphabets() -> None:
    rng = np.random.default_rng(0)
    dataset = dataset_from_arrays(rng.random((400, 6)), np.repeat(np.arange(20), 20), test_share=0.25)
    federation = divide(dataset, "centralised", test_clients=2, validation_clients=1)
    assert Counter(c.role for c in federation.clients) == {"train": 1, "validation": 1, "test": 2, "pooled": 1}
    seen = [set(federation.source(c.id).classes.tolist()) for c in federation.clients]
    assert len(seen[0]) == 13 and not seen[0] & seen[1] and not seen[0] & seen[2] and seen[2] == seen[4]


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


def test_centralised_training_sees_no_example_of_a_test_client(toy: ClassDataset) -> None:
    """Where all clients share the classes, as at sites with tables, no split keeps their examples apart."""
    shared = replace(toy, shared_classes=True, columns={"writer": toy.columns["writer"]})
    one, many = (divide(shared, name, validation_clients=2, min_examples=1) for name in ("centralised", "iid"))
    rows = [row for share in one.shares[:-1] for row in share.rows]
    assert len(rows) == len(set(rows)) == len(toy.labels), "everything, and nothing twice"
    assert [client.role for client in one.clients] == ["train", "validation", "validation", *["test"] * 5, "pooled"]
    judged = {share.name: share.rows.tolist() for share in many.shares if share.role != "train"}
    assert judged == {share.name: share.rows.tolist() for share in one.shares if share.role != "train"}
