"""Tables at sites: scikit-learn's, folders of one's own, and the logistic regressions beside them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fedmeta.data import PARTITIONS, load_dataset
from fedmeta.data.base import EpisodeShape
from fedmeta.data.class_dataset import ClassFederation
from fedmeta.data.table import SIZES, Table
from fedmeta.data.tables import simulated_sites, table_dataset
from fedmeta.errors import DataError
from fedmeta.evaluation import judge_baseline
from fedmeta.tasks import TASKS, Batch

sklearn_datasets = pytest.importorskip("sklearn.datasets", reason="install fedmeta[tables]")


@pytest.mark.parametrize("table", list(SIZES))
def test_scikit_learns_tables_at_sites_that_measure_alike(table: str) -> None:
    sites, given = 6, getattr(sklearn_datasets, f"load_{table}")()
    dataset = load_dataset("table", table=table, sites=sites, shift=0.0)
    declared = Table(table=table)  # type: ignore[arg-type]
    assert declared.input_shape == dataset.input_shape == given.data.shape[1:]
    assert declared.classes == dataset.classes == len(given.target_names)
    deviation = np.where(given.data.std(axis=0) > 0, given.data.std(axis=0), 1.0)
    assert np.allclose(dataset.examples, (given.data - given.data.mean(axis=0)) / deviation, atol=1e-5)
    assert dataset.labels.tolist() == given.target.tolist()
    for label in range(dataset.classes):
        counts = np.bincount(dataset.columns["site"][dataset.labels == label], minlength=sites)
        assert counts.max() - counts.min() <= 1, "each class is dealt evenly"


def test_simulated_sites_differ_by_gain_and_zero() -> None:
    rng = np.random.default_rng(0)
    values, labels = rng.normal(5.0, 2.0, size=(400, 3)), rng.integers(2, size=400)
    read, owner = simulated_sites(values, labels, 4, 0.7, 1)
    deviation, gains, zeros = values.std(axis=0), [], []
    for site in range(4):
        for column in range(3):
            x = (values[owner == site, column] - values[:, column].mean()) / deviation[column]
            slope, shift = np.polyfit(x, read[owner == site, column] / deviation[column], 1)
            gains.append(np.log(slope) / 0.7)
            zeros.append(shift / 0.7)
            assert np.allclose(slope * x + shift, read[owner == site, column] / deviation[column]), "affine"
    assert len(set(np.round(gains, 6))) == len(set(np.round(zeros, 6))) == 12, "every site and column its own"
    assert np.abs(gains).max() < 4 and np.abs(zeros).max() < 4
    same, other = simulated_sites(values, labels, 4, 0.7, 1), simulated_sites(values, labels, 4, 0.7, 2)
    assert np.array_equal(same[0], read) and not np.array_equal(other[0], read)


def federation(tmp_sites: int = 6, shift: float = 0.5) -> ClassFederation:
    dataset = load_dataset("table", sites=tmp_sites, shift=shift)
    return dataset.federate(PARTITIONS.make("column", column="site", test_fraction=0.34, validation_clients=0), 0)


def test_baselines_are_scikit_learns_regressions() -> None:
    from sklearn.linear_model import LogisticRegression

    found = federation()
    assert [info.role for info in found.clients] == ["train"] * 4 + ["test"] * 2 + ["pooled"]
    episode = found.source(4).sample(EpisodeShape(2, 3, 8), np.random.default_rng(0))
    assert found.baselines is not None
    scores = {
        name: judge_baseline(baseline, TASKS["classification"], [episode])["accuracy"][0]
        for name, baseline in found.baselines.items()
    }
    x, y = episode.query.x.numpy(), episode.query.y.numpy()
    alone = LogisticRegression(max_iter=1000).fit(episode.support.x.numpy(), episode.support.y.numpy())
    rows = np.concatenate([found.shares[client].rows for client in range(4)])
    pooled = LogisticRegression(max_iter=1000).fit(found.dataset.examples[rows], found.dataset.labels[rows])
    assert scores == {
        "logistic regression, per site": alone.score(x, y),
        "logistic regression, training sites pooled": pooled.score(x, episode.classes.numpy()[y]),
    }
    single = found.source(4).sample(EpisodeShape(1, 2, 2), np.random.default_rng(0))
    assert all(baseline(single).shape == (2, 1) for baseline in found.baselines.values())


def test_a_support_of_one_class_answers_that_class() -> None:
    """A site's own rows as one task may hold one class: then that is all that they say, and not the lowest number."""
    found = federation()
    assert found.baselines is not None
    episode = found.source(4).sample(EpisodeShape(2, 3, 8), np.random.default_rng(0))
    rows = episode.support.y == 1
    alone = episode._replace(support=Batch(episode.support.x[rows], episode.support.y[rows]))
    output = found.baselines["logistic regression, per site"](alone)
    assert output.shape == (16, 2) and (output.argmax(dim=1) == 1).all()


def test_pooling_wins_where_sites_measure_alike_and_loses_its_lead_where_they_do_not() -> None:
    gap = []
    for shift in (0.0, 1.5):
        found = federation(shift=shift)
        rng = np.random.default_rng(1)
        episodes = [found.source(4 + i % 2).sample(EpisodeShape(2, 4, 8), rng) for i in range(20)]
        assert found.baselines is not None
        alone, pooled = (
            np.mean(judge_baseline(baseline, TASKS["classification"], episodes)["accuracy"])
            for baseline in found.baselines.values()
        )
        gap.append(pooled - alone)
    assert gap[0] > 0.01 and gap[1] < gap[0] - 0.05


def test_a_class_that_training_sites_never_saw_is_never_chosen() -> None:
    values = np.concatenate([np.full((6, 2), float(label)) for label in (0, 1, 2)])
    labels = np.repeat([0, 1, 2], 6)
    sites = np.where(labels == 2, 1, np.tile([0, 1], 9))
    dataset = table_dataset(values, labels, sites, ["a", "b", "c"], ["x", "y"])
    partition = PARTITIONS.make("column", column="site", test_fraction=0.5, validation_clients=0, pooled=False)
    found = next(f for f in (dataset.federate(partition, seed) for seed in range(9)) if f.clients[0].name == "x")
    episode = found.source(1).sample(EpisodeShape(3, 1, 2), np.random.default_rng(0))
    assert found.baselines is not None
    output = found.baselines["logistic regression, training sites pooled"](episode)
    slot = episode.classes.tolist().index(2)
    assert torch.isneginf(output[:, slot]).all() and torch.isfinite(output[:, [i for i in range(3) if i != slot]]).all()


def write(folder: Path, site: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{site}.csv").write_text(text, encoding="utf-8")


def test_a_folder_of_tables(tmp_path: Path) -> None:
    write(
        tmp_path / "t",
        "berlin",
        "age,label,dose\n" + "".join(f"{i},{'ill' if i % 2 else 'well'},{i}.5\n" for i in range(8)),
    )
    write(tmp_path / "t", "turin", "dose,age,label\n" + "".join(f"{i}.5,{i},well\n" for i in range(8)))
    table = Table(path=str(tmp_path / "t"))
    assert table.input_shape == (2,) and table.classes == 2
    dataset = table.load()
    assert dataset.names == {"class": ["ill", "well"], "site": ["berlin", "turin"]}
    assert np.allclose(dataset.examples[:8], dataset.examples[8:]), "columns go by their names, not their order"
    assert np.allclose(dataset.examples.mean(axis=0), 0, atol=1e-6) and np.allclose(dataset.examples.std(axis=0), 1)


def test_tables_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    with pytest.raises(DataError, match=r"holds no site.csv: give a folder with one table a site"):
        Table(path=str(folder)).load()
    write(folder, "a", "age,dose,label\n1,2,x\n")
    write(folder, "b", "age,weight,label\n1,2,x\n")
    write(folder, "c", "age,dose,weight,label\n1,2,3,x\n")
    with pytest.raises(DataError, match=r"different columns: a lacks weight; b lacks dose. One model needs the same"):
        Table(path=str(folder)).load()
    write(folder, "b", "age,dose,label\n1,,x\n")
    write(folder, "c", "age,dose,label\n1,2,y\n")
    with pytest.raises(DataError, match=r"b.csv', line 2, column 'dose': '' is no number. Fill or drop it"):
        Table(path=str(folder)).load()
    write(folder, "b", "age,dose,label\n1,nan,x\n")
    with pytest.raises(DataError, match=r"b.csv', line 2, column 'dose': 'nan' is no number. Fill or drop it"):
        Table(path=str(folder)).load()
    for line in ("1,2, ", "1,2"):
        write(folder, "b", f"age,dose,label\n3,4,x\n{line}\n")
        with pytest.raises(DataError, match=r"b.csv', line 3 has no class in column 'label': fill it in, or drop"):
            Table(path=str(folder)).load()
    write(folder, "b", "age,dose,label\n1,2,x,3\n")
    with pytest.raises(DataError, match=r"b.csv', line 2 has more cells than the table has columns"):
        Table(path=str(folder)).load()
    write(folder, "b", "age,dose,class\n1,2,x\n")
    with pytest.raises(DataError, match=r"no column 'label' for the class, only age, dose, class: set data.label"):
        Table(path=str(folder)).load()
    write(folder, "b", "age,age,label\n1,2,x\n")
    with pytest.raises(DataError, match=r"has a column twice: age"):
        Table(path=str(folder)).load()
    write(folder, "b", "age,dose,label\n")
    with pytest.raises(DataError, match=r"b.csv' has no rows: remove it"):
        Table(path=str(folder)).load()
