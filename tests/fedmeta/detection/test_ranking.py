"""AUROC, average precision and TPR at a bounded FPR against rank statistics, brute force and worked examples."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from fedmeta.detection.ranking import Ranking, auroc, auroc_over_groups, average_precision, ranking, tpr_at_fpr

# Few distinct values, so that ties are the rule; both classes present.
SCORED = st.lists(st.tuples(st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 3.0, math.inf]), st.booleans()), min_size=2)
LABELLED = SCORED.filter(lambda pairs: len({bad for _, bad in pairs}) == 2)


def columns(pairs: list[tuple[float, bool]]) -> tuple[list[float], list[bool]]:
    return [score for score, _ in pairs], [bad for _, bad in pairs]


@given(LABELLED)
def test_auroc_is_the_rank_sum_statistic(pairs: list[tuple[float, bool]]) -> None:
    """Mann-Whitney: U = R+ - p (p + 1) / 2 with midranks, AUROC = U / (p n)."""
    scores, labels = columns(pairs)
    positives, negatives = sum(labels), len(labels) - sum(labels)
    u = rankdata(scores)[np.array(labels)].sum() - positives * (positives + 1) / 2
    assert auroc(scores, labels) == pytest.approx(u / (positives * negatives))


@given(LABELLED)
def test_precision_and_tpr_by_trying_every_threshold(pairs: list[tuple[float, bool]]) -> None:
    scores, labels = columns(pairs)
    positives, negatives = sum(labels), len(labels) - sum(labels)
    area, recall_before, best = 0.0, 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        above = [bad for score, bad in pairs if score >= threshold]
        recall = sum(above) / positives
        area += (recall - recall_before) * sum(above) / len(above)
        recall_before = recall
        if (len(above) - sum(above)) / negatives <= 0.3:
            best = max(best, recall)
    assert average_precision(scores, labels) == pytest.approx(area)
    assert tpr_at_fpr(scores, labels, 0.3) == pytest.approx(best)


@given(LABELLED)
def test_reversed_scores_reverse_auroc_and_order_does_not_matter(pairs: list[tuple[float, bool]]) -> None:
    scores, labels = columns(pairs)
    found = auroc(scores, labels)
    assert auroc([-score for score in scores], labels) == pytest.approx(1 - found)
    assert ranking(scores[::-1], labels[::-1]) == ranking(scores, labels)


def test_what_is_undefined_is_none_and_equal_scores_are_chance() -> None:
    assert ranking([1.0, 2.0], [True, True]) is None and ranking([1.0, 2.0], [False, False]) is None
    assert ranking([], []) is None
    assert ranking([7.0] * 4, [True, False, False, False]) == Ranking(0.5, 0.25, 0.0)
    with pytest.raises(ValueError, match="one length"):
        auroc([1.0], [True, False])


def test_a_score_of_nan_is_left_out_with_its_label() -> None:
    scores, labels = [math.nan, 3.0, 2.0, math.nan, 1.0], [True, True, False, False, False]
    assert ranking(scores, labels) == ranking([3.0, 2.0, 1.0], [True, False, False]) == Ranking(1.0, 1.0, 1.0)
    assert ranking([math.nan, 1.0], [True, False]) is None, "no positive has a score"


def test_five_per_cent_allows_one_false_alarm_in_twenty_and_none_in_nineteen() -> None:
    scores = [9.0, 8.0, *([0.0] * 19)]  # an honest client stands above the malicious one
    labels = [False, True, *([False] * 19)]
    assert tpr_at_fpr(scores, labels) == 1.0
    assert tpr_at_fpr(scores[:-1], labels[:-1]) == 0.0


EPISODES = st.lists(st.tuples(*[st.lists(st.sampled_from([0.0, 0.5, 1.0, math.nan]), max_size=4)] * 2), min_size=1)


@given(EPISODES)
def test_auroc_over_groups_is_auroc_of_all_scores(episodes: list[tuple[list[float], list[float]]]) -> None:
    positive, negative = [list(part) for part in zip(*episodes, strict=True)]
    flat = [[score for own in part for score in own] for part in (positive, negative)]
    plain = auroc(flat[0] + flat[1], [True] * len(flat[0]) + [False] * len(flat[1]))
    found = auroc_over_groups(positive, negative, resamples=50)
    assert (found is None) == (plain is None)
    if found is not None:
        assert found.mean == pytest.approx(plain) and found.count == len(episodes)
        assert not found.known or found.low < found.high


def test_the_interval_draws_whole_episodes() -> None:
    """As a plain bootstrap over episodes, done by hand; one episode, or none that differs, has none."""
    rng = np.random.default_rng(1)
    positive = [rng.normal(1.0 + shift, 1, 8) for shift in rng.normal(0, 1, 12)]
    negative = [rng.normal(shift, 1, 10) for shift in rng.normal(0, 1, 12)]
    found = auroc_over_groups(positive, negative)
    drawn = []
    for rows in rng.integers(12, size=(2000, 12)):
        high, low = (np.concatenate([part[row] for row in rows]) for part in (positive, negative))
        drawn.append(auroc(np.concatenate([high, low]), [True] * len(high) + [False] * len(low)))
    assert found is not None
    assert (found.low, found.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.02)
    for part in ((positive[:1], negative[:1]), ([[2.0], [3.0]], [[0.0], [1.0]])):
        alone = auroc_over_groups(*part)
        assert alone is not None and not alone.known
