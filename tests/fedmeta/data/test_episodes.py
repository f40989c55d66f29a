"""Episodes: disjoint halves, independent draws, refusals, frozen test episodes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedmeta.data.base import EpisodeShape
from fedmeta.data.class_dataset import ClassDataset
from fedmeta.data.episodes import ClassSource, OwnDataSource, frozen_episodes, split_codes, split_support_query
from fedmeta.errors import DataError


def source(classes: int = 8, each: int = 20) -> ClassSource:
    """Pixels hold position and class."""
    examples = np.zeros((classes * each, 2, 2), dtype=np.uint8)
    examples[:, 0, 0] = np.tile(np.arange(each), classes)
    examples[:, 0, 1] = np.repeat(np.arange(classes), each)
    return ClassSource("toy", examples, {c: np.arange(c * each, (c + 1) * each) for c in range(classes)})


def positions(x: torch.Tensor) -> np.ndarray:
    return np.round(x[:, 0, 0, 0].numpy() * 255).astype(int)


def classes_of(x: torch.Tensor) -> np.ndarray:
    return np.round(x[:, 0, 0, 1].numpy() * 255).astype(int)


@given(st.integers(1, 8), st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
def test_halves_are_disjoint_labels_consistent_and_shots_in_order(
    ways: int, shots: int, queries: int, seed: int
) -> None:
    episode = source().sample(EpisodeShape(ways, shots, queries), np.random.default_rng(seed))
    assert episode.support.x.shape == (ways * shots, 1, 2, 2) and episode.support.x.dtype == torch.float32
    assert episode.query.x.shape == (ways * queries, 1, 2, 2)
    assert len(set(episode.classes.tolist())) == ways
    for part in episode.support, episode.query:
        assert (episode.classes[part.y].numpy() == classes_of(part.x)).all()
        assert part.y.tolist() == list(range(ways)) * (len(part.y) // ways), "shot by shot"
    seen = {
        (c, p)
        for part in (episode.support, episode.query)
        for c, p in zip(classes_of(part.x), positions(part.x), strict=True)
    }
    assert len(seen) == ways * (shots + queries), "no example twice"


def test_positions_are_drawn_for_each_class_by_itself() -> None:
    """F03: one list of positions for all classes would put the same writer everywhere."""
    toy, rng = source(classes=10), np.random.default_rng(0)
    drawn = [positions(toy.sample(EpisodeShape(5, 1, 1), rng).support.x) for _ in range(200)]
    assert sum(len(set(row)) == 1 for row in drawn) <= 1
    counts = np.bincount(np.concatenate(drawn), minlength=20)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_an_episode_that_cannot_be_is_refused() -> None:
    """F04: examples drawn with replacement would repeat the support among the queries."""
    small = source(classes=5, each=4)
    with pytest.raises(DataError, match=r"client toy has 4 examples of class 0.*2 shots \+ 3 queries = 5"):
        small.sample(EpisodeShape(5, 2, 3), np.random.default_rng(0))
    rng = np.random.default_rng(0)
    for _ in range(1000):
        episode = small.sample(EpisodeShape(5, 2, 2), rng)
        both = np.concatenate([positions(episode.support.x), positions(episode.query.x)])
        keys = set(zip(np.concatenate([classes_of(episode.support.x), classes_of(episode.query.x)]), both, strict=True))
        assert len(keys) == 20
    with pytest.raises(DataError, match=r"has 5 classes, and an episode needs 6"):
        small.sample(EpisodeShape(6, 1, 1), rng)


def test_unequal_classes_use_only_their_own_rows() -> None:
    examples = np.arange(30, dtype=np.uint8).reshape(30, 1, 1)
    uneven = ClassSource("uneven", examples, {3: np.arange(0, 4), 7: np.arange(10, 30)})
    rng = np.random.default_rng(0)
    for _ in range(100):
        episode = uneven.sample(EpisodeShape(2, 2, 2), rng)
        values = np.round(torch.cat([episode.support.x, episode.query.x]).flatten().numpy() * 255).astype(int)
        slots = torch.cat([episode.support.y, episode.query.y])
        for value, c in zip(values, episode.classes[slots].tolist(), strict=True):
            assert value in uneven.rows[c]


def test_frozen_episodes_are_frozen() -> None:
    shape = EpisodeShape(3, 1, 2)
    few, many = (frozen_episodes(source(), shape, count, seed=0, client="test/Greek") for count in (2, 5))
    for a, b in zip(few, many, strict=False):
        assert torch.equal(a.query.x, b.query.x) and torch.equal(a.classes, b.classes)
    other = frozen_episodes(source(), shape, 2, seed=1, client="test/Greek")
    assert not all(torch.equal(a.query.x, b.query.x) for a, b in zip(few, other, strict=True))


@given(st.integers(2, 60), st.floats(0.01, 0.99), st.integers(0, 9))
def test_own_data_is_split_without_overlap(count: int, fraction: float, seed: int) -> None:
    support, query = split_support_query(count, fraction, np.random.default_rng(seed), "x")
    assert len(support) and len(query) and sorted([*support, *query]) == list(range(count))


def test_own_data_keeps_the_data_sets_labels() -> None:
    whole = OwnDataSource(source(classes=4, each=5), 0.4, num_classes=9)
    episode = whole.sample(EpisodeShape(1, 1, 1), np.random.default_rng(0))
    assert len(episode.support.y) == 8 and len(episode.query.y) == 12
    assert (classes_of(episode.query.x) == episode.query.y.numpy()).all()
    with pytest.raises(DataError, match="has 1 examples"):
        split_support_query(1, 0.5, np.random.default_rng(0), "lonely")


def test_own_data_keeps_apart_what_may_not_meet() -> None:
    """Several pictures of a patient: all of them are support, or all are query, whatever their classes."""
    labels, patients = np.repeat([0, 1], 12), np.tile(np.repeat(np.arange(4), 3), 2)
    data = ClassDataset(
        np.arange(24, dtype=np.float32)[:, None],
        labels,
        ["train", "train"],
        {"patient": patients},
        {},
        shared_classes=True,
        apart="patient",
    )
    own = OwnDataSource(
        ClassSource("clinic", data.examples, {0: np.arange(12), 1: np.arange(12, 24)}, data.rules), 0.3, 2
    )
    rng, seen = np.random.default_rng(0), set()
    for _ in range(20):
        episode = own.sample(EpisodeShape(1, 1, 1), rng)
        sides = [set(patients[batch.x[:, 0].long().numpy()].tolist()) for batch in (episode.support, episode.query)]
        assert not sides[0] & sides[1] and len(sides[0]) == 1, "a quarter is the nearest to .3"
        assert sorted(torch.cat([episode.support.x, episode.query.x])[:, 0].tolist()) == list(range(24))
        assert torch.equal(episode.support.y, torch.from_numpy(labels)[episode.support.x[:, 0].long()])
        seen |= sides[0]
    assert seen == {0, 1, 2, 3}
    with pytest.raises(DataError, match=r"client one has 3 examples of 1 text, patient or recording"):
        split_codes(np.zeros(3), 0.5, rng, "one")
