"""Clustering that several defences share: scikit-learn's density methods, and exact k-means on a line.

scikit-learn is an extra (`defences`), imported when a rule that needs it is called.
"""

import importlib.util
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedmeta.errors import ConfigurationError

Array = npt.NDArray[Any]

REFERENCES = 20
"""Uniform samples with which the gap statistic compares."""


def hdbscan(distances: Tensor, min_cluster_size: int, *, single: bool) -> Tensor:
    """Cluster by HDBSCAN with min_samples = 1.

    Args:
        distances: `[n, n]`, symmetric.
        min_cluster_size: smallest cluster, >= 2.
        single: whether all may be one cluster.

    Returns:
        `[n]` labels from 0, -1 for those in no cluster. Where all distances are zero there is one cluster.
    """
    n = len(distances)
    if not distances.any():
        return torch.zeros(n, dtype=torch.int64) if n >= min_cluster_size else torch.full((n,), -1)
    if n < min_cluster_size:
        return torch.full((n,), -1)
    found = _sklearn().HDBSCAN(
        min_cluster_size=min_cluster_size, min_samples=1, metric="precomputed", allow_single_cluster=single, copy=True
    )
    return torch.from_numpy(found.fit(distances.numpy()).labels_.astype(np.int64))


def mean_shift(features: Tensor) -> Tensor:
    """`[n]` labels of MeanShift on `[n, k]` features, -1 for orphans; bandwidth: distances to half of the others."""
    points = features.numpy()
    bandwidth = float(_sklearn().estimate_bandwidth(points, quantile=0.5))
    if bandwidth < 1e-12:  # at least half of the points are in one place, which is a cluster without any shifting
        centre = np.median(points, axis=0)
        return torch.from_numpy(np.where(np.abs(points - centre).max(axis=1) < 1e-9, 0, -1))
    labels = _sklearn().MeanShift(bandwidth=bandwidth, cluster_all=False).fit(points).labels_
    return torch.from_numpy(labels.astype(np.int64))


def largest_cluster(labels: Tensor) -> Tensor:
    """`[n]` bool: members of the largest cluster, of equal ones that with the lowest label; none without clusters."""
    clusters = labels[labels >= 0]
    if len(clusters) == 0:
        return torch.zeros(len(labels), dtype=torch.bool)
    return labels == int(torch.bincount(clusters).argmax())


def split_line(values: Array, k: int) -> tuple[Array, float]:
    """k-means of numbers, exactly: on a line clusters are intervals, found by dynamic programming.

    Args:
        values: `[n]`, n >= k.

    Returns:
        `[n]` labels 0..k-1 in ascending order of the clusters' means, and the sum of squared distances to them.

    >>> split_line(np.array([5.0, 0.0, 5.2, 0.1]), 2)[0]
    array([1, 0, 1, 0])
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order] - values.mean()
    n = len(ordered)
    sums, squares = np.concatenate([[0.0], ordered.cumsum()]), np.concatenate([[0.0], (ordered**2).cumsum()])
    start, stop = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    with np.errstate(divide="ignore", invalid="ignore"):
        inertia = squares[stop] - squares[start] - (sums[stop] - sums[start]) ** 2 / (stop - start)
    inertia = np.where(stop > start, np.maximum(inertia, 0.0), np.inf)
    best, cuts = inertia[0], []
    for _ in range(k - 1):
        through = best[:, None] + inertia
        cuts.append(through.argmin(axis=0))
        best = through.min(axis=0)
    edges = [n]
    for cut in reversed(cuts):
        edges.append(int(cut[edges[-1]]))
    labels = np.empty(n, dtype=np.int64)
    labels[order] = np.searchsorted(sorted(edges[1:]), np.arange(n), side="right")
    return labels, float(best[n])


def gap_clusters(values: Array, most: int, draws: np.random.Generator) -> int:
    """The number of clusters of numbers by the gap statistic (Tibshirani et al. 2001, section 3).

    The smallest k with gap(k) >= gap(k + 1) - s(k + 1), where gap(k) compares the log of the inertia with that of
    uniform samples over the same range; `most` where there is none.
    """
    spread = values.max() - values.min()
    if spread <= 1e-12 * max(1.0, abs(values).max()):
        return 1
    scaled = (values - values.min()) / spread
    samples = draws.random((REFERENCES, len(values)))
    most = min(most, len(values) - 1)
    gaps, errors = [], []
    for k in range(1, most + 1):
        logs = np.log([max(split_line(sample, k)[1], 1e-12) for sample in samples])
        gaps.append(logs.mean() - np.log(max(split_line(scaled, k)[1], 1e-12)))
        errors.append(logs.std() * np.sqrt(1 + 1 / REFERENCES))
        if k > 1 and gaps[-2] >= gaps[-1] - errors[-1]:
            return k - 1
    return most


def need_sklearn(where: str) -> None:
    """Refuse a rule that clusters before any client works, where what it clusters with is missing.

    Raises:
        ConfigurationError: names the rule's place and the remedy.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise ConfigurationError(f"{where} needs scikit-learn to cluster: pip install 'fedmeta[defences]'")


def _sklearn() -> Any:
    need_sklearn("this defence")
    import sklearn.cluster

    return sklearn.cluster
