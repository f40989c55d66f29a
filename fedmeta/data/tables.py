"""What tables have in common: rows of numbers with a class and a site, sites that measure differently, and baselines.

All sites share the classes and differ in how they measure; a new site has a few labelled rows. The baselines are
logistic regressions: one on those few rows alone, and one on all rows of the training sites, as if pooled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedmeta.data.class_dataset import ClassDataset, ClassFederation
from fedmeta.errors import DataError
from fedmeta.learners.functional import ways_of
from fedmeta.seeding import numpy_generator
from fedmeta.tasks import Baseline, Episode

EXTRA = "tables need scikit-learn: install fedmeta[tables]"


def table_dataset(
    values: np.ndarray, labels: np.ndarray, sites: np.ndarray, class_names: Sequence[str], site_names: Sequence[str]
) -> ClassDataset:
    """A data set of `[n, k]` rows, `[n]` classes and `[n]` sites, for the partition `column` with `column = "site"`.

    Every column is scaled to mean 0 and deviation 1 over all rows; a constant one becomes 0.

    Raises:
        DataError: a value that is not finite.
    """
    broken = np.argwhere(~np.isfinite(values))
    if len(broken):
        raise DataError(
            f"row {broken[0][0]}, column {broken[0][1]} of the table is not a finite number: fill or drop it"
        )
    deviation = values.std(axis=0)
    scaled = (values - values.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    return ClassDataset(
        examples=scaled.astype(np.float32),
        labels=labels.astype(np.int64),
        splits=["train"] * len(class_names),
        columns={"site": sites.astype(np.int64)},
        names={"class": list(class_names), "site": list(site_names)},
        shared_classes=True,
        baselines=logistic_baselines,
    )


def simulated_sites(
    values: np.ndarray, labels: np.ndarray, sites: int, shift: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows dealt to sites that measure differently.

    Each class is dealt evenly at random. Site s reads x in column j, in deviations of that column, as
    x exp(shift a_sj) + shift b_sj, with a and b standard normal: instruments of another gain and zero.

    Args:
        values: `[n, k]`.
        labels: `[n]`.
        sites: >= 1.
        shift: size of the differences; 0 for none.
        seed: of the dealing and of the differences.

    Returns:
        The rows as the sites read them `[n, k]`, and the site of each `[n]`.
    """
    rng = numpy_generator(seed, 0, 0, "table sites")
    owner = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        # Where a class has no row for everybody, not always the same go without.
        owner[rows] = (np.arange(len(rows)) + rng.integers(sites)) % sites
    gain, zero = rng.normal(size=(2, sites, values.shape[1]))
    deviation = values.std(axis=0)
    centred = values - values.mean(axis=0)
    return centred * np.exp(shift * gain[owner]) + shift * zero[owner] * deviation, owner


def logistic_baselines(federation: ClassFederation) -> Mapping[str, Baseline]:
    """By name; scikit-learn's defaults, an L2 penalty of C = 1."""
    return {
        "logistic regression, per site": _per_site,
        "logistic regression, training sites pooled": _Pooled(federation),
    }


def _per_site(episode: Episode) -> Tensor:
    """Log-probabilities `[queries, ways]` of a regression on the episode's support."""
    fitted = _logistic(episode.support.x.numpy(), episode.support.y.numpy())
    return _spread(fitted, episode.query.x, torch.arange(ways_of(episode)))


@dataclass(frozen=True)
class _Pooled:
    """A regression on all rows of the training clients."""

    federation: ClassFederation

    @cached_property
    def fitted(self) -> Any:
        dataset = self.federation.dataset
        rows = np.concatenate([share.rows for share in self.federation.shares if share.role == "train"])
        return _logistic(dataset.examples[rows], dataset.labels[rows])

    def __call__(self, episode: Episode) -> Tensor:
        """Log-probabilities `[queries, ways]` of the classes behind the slots."""
        return _spread(self.fitted, episode.query.x, episode.classes)


def _logistic(x: np.ndarray, y: np.ndarray) -> Any:
    """Fitted to rows `[n, k]` and classes `[n]`; of a single class that class, which is all that such rows say."""
    try:
        from sklearn.dummy import DummyClassifier
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise DataError(EXTRA) from error
    if len(np.unique(y)) < 2:
        return DummyClassifier(strategy="most_frequent").fit(x, y)
    return LogisticRegression(max_iter=1000).fit(x, y)


def _spread(fitted: Any, x: Tensor, wanted: Tensor) -> Tensor:
    """`[n, len(wanted)]`, log-probabilities of the wanted classes; minus infinity for one that was not fitted."""
    shares = torch.from_numpy(fitted.predict_proba(x.numpy())).double()
    found = shares.clamp_min(torch.finfo(torch.float64).tiny).log()
    place = {int(label): column for column, label in enumerate(fitted.classes_)}
    missing = found.new_full((len(found),), -torch.inf)
    return torch.stack([found[:, place[c]] if c in place else missing for c in wanted.tolist()], dim=1)
