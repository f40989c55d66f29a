"""Bucketing (Karimireddy et al., ICLR 2022, algorithm 1)."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from fedmeta.errors import ConfigurationError
from fedmeta.parameters import parameter
from strategies.aggregation import Requires, RoundContext
from strategies.preaggregation import PreAggregator
from strategies.rows import Mixing, Rows


@dataclass(frozen=True)
class Bucketing(PreAggregator):
    """Shuffle the rows, cut them into buckets of s, the last one perhaps smaller, and go on with the buckets' means.

    f malicious rows spoil at most f of ceil(n / s) buckets, so the inner rule keeps its f with fewer rows.
    s = ceil(n / 2 f) - 1 leaves more than 2 f buckets for every n > 2 f; the papers' floor(n / 2 f) does not.

    Raises:
        ConfigurationError: neither s nor f.

    >>> Bucketing(s=3)(torch.tensor([[1.0], [2.0], [6.0]]))
    tensor([[3.]])
    """

    name: ClassVar[str] = "bucketing"
    requires: ClassVar[Requires] = Requires(rows="ceil(n / s) > 2 f")
    keeps_clients: ClassVar[bool] = False  # not even with s = 1: the buckets are shuffled

    s: int | None = parameter(None, doc="rows a bucket; none: max(1, ceil(n / 2 f) - 1)", ge=1, unit="rows")
    f: int | None = parameter(None, doc="assumed number of malicious clients", ge=0)

    def __post_init__(self) -> None:
        if self.s is None and self.f is None:
            raise ConfigurationError("bucketing needs s, the rows of a bucket, or f, from which s follows: set one")

    def least_rows(self) -> int:
        """n with more than 2 f buckets."""
        if self.f is None:
            return 1
        return 2 * self.f + 1 if self.s is None else 2 * self.f * self.s + 1

    def bucket_size(self, n: int) -> int:
        """s, where it is not given max(1, ceil(n / 2 f) - 1), and 1 where f is 0."""
        if self.s is not None:
            return self.s
        if not self.f:
            return 1
        return max(1, -(-n // (2 * self.f)) - 1)

    def rows_after(self, n: int) -> int:
        """ceil(n / s)."""
        return -(-n // self.bucket_size(n))

    def mixing(self, rows: Rows, context: RoundContext) -> Mixing:
        """Equal weights within buckets that are drawn from the context's generator."""
        size, count = self.bucket_size(rows.n), self.rows_after(rows.n)
        order = torch.from_numpy(context.numpy_generator().permutation(rows.n))
        speaker = torch.empty(rows.n, dtype=torch.int64)
        speaker[order] = torch.arange(rows.n) // size
        weights = torch.nn.functional.one_hot(speaker, count).T.to(torch.float64)
        return Mixing(weights / weights.sum(dim=1, keepdim=True), speaker)
