"""Spectral signatures (Tran, Li & Madry, NeurIPS 2018, algorithm 1) on the embeddings of support examples.

A trigger that a network has learnt moves the embeddings of those who carry it along one direction, which then is where
the embeddings spread most. The paper looks within one class of a training set; an episode has a shot or a few of a
class, so here the supports of many episodes are taken together, centred on their classes' means or not.
"""

import torch
from torch import Tensor


def spectral_scores(z: Tensor, classes: Tensor | None = None) -> Tensor:
    """<z_i - mean, v>^2 with v the first right singular vector of the centred rows: higher is more suspicious.

    Args:
        z: embeddings `[n, features]`.
        classes: `[n]`, by which rows are centred, each on the mean of its own; None: on the mean of all. A class with
            one example then scores 0.

    Returns:
        `[n]` float64; zeros where all centred rows are alike.

    >>> spectral_scores(torch.tensor([[0.0], [0.0], [0.0], [8.0]])).round().tolist()
    [4.0, 4.0, 4.0, 36.0]
    """
    rows = z.to(torch.float64)
    if classes is None:
        rows = rows - rows.mean(dim=0)
    else:
        _, groups = classes.unique(return_inverse=True)
        members = torch.nn.functional.one_hot(groups).to(rows.dtype)
        rows = rows - members @ ((members.T @ rows) / members.sum(dim=0).unsqueeze(1))
    _, _, vectors = torch.linalg.svd(rows, full_matrices=False)
    return (rows @ vectors[0]).square()


def removed(scores: Tensor, share: float) -> Tensor:
    """`[n]` bool: the 1.5 share n highest scores, which the paper takes away; of equal ones those that come first.

    Args:
        share: the largest share of poisoned examples that one reckons with.
    """
    count = min(len(scores), round(1.5 * share * len(scores)))
    gone = torch.zeros(len(scores), dtype=torch.bool)
    gone[scores.argsort(descending=True, stable=True)[:count]] = True
    return gone
