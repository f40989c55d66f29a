"""A run's detection from its rounds: what counts, and what does not."""

import json
import math

import pytest

from fedmeta.detection.clients import Detection, Flags, JudgedRound, summarise_detection
from fedmeta.detection.ranking import Ranking


def judged(attackers=(), scores=(), flagged=None, clients=(0, 1, 2, 3)) -> JudgedRound:
    given = dict(zip(clients, scores, strict=False))
    return JudgedRound(clients, frozenset(attackers), given, None if flagged is None else frozenset(flagged))


def test_rounds_are_ranked_by_themselves_and_by_one_threshold() -> None:
    """Each round ranks perfectly, but the honest of the second score above the attacker of the first."""
    found = summarise_detection([judged([0], [2, 1, 1, 1]), judged([3], [20, 20, 20, 30]), judged([], [5, 5, 5, 5])])
    assert found is not None and (found.attacked_rounds, found.clean_rounds, found.ranked_rounds) == (2, 1, 2)
    assert found.within == Ranking(1.0, 1.0, 1.0) and found.share == 0.25
    assert found.across is not None and found.across.auroc == pytest.approx((6 + 3) / 12)
    assert found.attacked is None and found.clean is None, "the rule accuses nobody"


def test_flags_are_counted_over_attacked_and_attack_free_rounds() -> None:
    rounds = [judged([0, 1], flagged=[0, 2]), judged([1], flagged=[1]), judged([], flagged=[3]), judged([], flagged=[])]
    found = summarise_detection(rounds)
    assert found is not None and found.within is None and found.across is None and found.share is None
    assert found.attacked == Flags(caught=2, missed=1, lost=1, kept=4)
    assert found.attacked.precision == found.attacked.recall == pytest.approx(2 / 3)
    assert found.attacked.fpr == pytest.approx(1 / 5)
    assert found.clean == Flags(lost=1, kept=7) and found.clean.fpr == pytest.approx(1 / 8)
    assert found.clean.recall is None and Flags(kept=3).precision is None


def test_scores_that_are_none_are_counted_and_rounds_of_one_class_are_not_ranked() -> None:
    rounds = [
        judged([0], [math.nan, 1, 1, 1]),  # the attacker has no score
        judged([0, 1, 2, 3], [1, 2, 3, 4]),  # nobody is honest
        judged([0], [2, 1]),  # two clients have none
    ]
    found = summarise_detection(rounds)
    assert found is not None and (found.attacked_rounds, found.ranked_rounds) == (3, 1)
    assert found.within == found.across == Ranking(1.0, 1.0, 1.0)
    assert found.unscored == 1 + 2 and found.share == 0.5


def test_an_attacker_that_the_defence_never_saw_makes_no_attacked_round() -> None:
    found = summarise_detection([judged([9], [1, 1, 1, 1], flagged=[])])
    assert found is not None and (found.attacked_rounds, found.clean_rounds) == (0, 1)


def test_a_rule_that_says_nothing_has_no_detection() -> None:
    assert summarise_detection([judged([0]), judged([])]) is None and summarise_detection([]) is None


def test_json_and_back() -> None:
    for rounds in ([judged([0], [2, 1, 1, 1], flagged=[0])], [judged([], flagged=[])], [judged([0], [1, 2, 3, 4])]):
        found = summarise_detection(rounds)
        assert found is not None
        text = json.dumps(found.to_json(), allow_nan=False)
        assert Detection.from_json(json.loads(text)) == found
