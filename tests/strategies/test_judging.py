"""Reading what clients measured: one whose reply does not fit is left out by name, and nobody ends the run."""

import math

import pytest
from flwr.app import ArrayRecord, Message, RecordDict

from fedmeta.wire import config_record, metric_record
from simulations.engine.flower_internals import adopt_identity, give_id
from strategies.directory import Directory, Member
from strategies.judging import Judging

DIRECTORY = Directory((Member(0, 1000, "a", "validation"), Member(1, 1001, "b", "validation")))
JUDGING = Judging("validation", 2, success_steps=(0, 1))
SCORES = {"loss.0": [1.0, 1.0], "score.0": [0.5, 1.0]}
RATES = {"asr.0": [0.25, 0.75], "asr.1": [math.nan, 1.0]}
CLEAN = {"clean-asr.0": [0.0, 0.25], "clean-asr.1": [0.0, 0.5]}


def played(bad: RecordDict) -> tuple[list[Message], list[Message]]:
    """Two clients' messages, and their replies: the second's is `bad`."""
    adopt_identity()
    messages = JUDGING.messages(DIRECTORY, ArrayRecord({}), {})
    for message in messages:
        give_id(message)
    return messages, [
        Message(told({**SCORES, **RATES, **CLEAN}), reply_to=messages[0]),
        Message(bad, reply_to=messages[1]),
    ]


def told(metrics: dict[str, object]) -> RecordDict:
    facts = config_record({"score-name": "accuracy", "steps": [0]})
    return RecordDict({"metrics": metric_record(metrics), "config": facts})


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        (None, "0 metric records"),
        (SCORES, "'asr.0'"),
        ({**SCORES, "asr.0": [0.5, 0.5]}, "'asr.1'"),
        ({**SCORES, "asr.0": 0.5, "asr.1": 0.5}, "'float' object is not iterable"),
        ({**SCORES, **RATES, "asr.1": [0.5]}, r"[1, 2] episodes where 2 were asked for"),
        ({**SCORES, "asr.0": [0.5], "asr.1": [0.5]}, r"[1] episodes where 2 were asked for"),
        ({**SCORES, **RATES, "clean-asr.0": [0.0, 0.0]}, "'clean-asr.1'"),
        ({**SCORES, **RATES, **CLEAN, "clean-asr.1": [0.0] * 3}, r"[2, 3] episodes where 2 were asked for"),
    ],
)
def test_a_malformed_success_is_left_out_by_name(metrics: dict[str, object] | None, reason: str) -> None:
    bad = RecordDict({"config": config_record({"score-name": "accuracy"})}) if metrics is None else told(metrics)
    messages, replies = played(bad)
    found, failed = JUDGING.success(DIRECTORY, messages, replies, {"attack": "backdoor"})
    assert list(failed) == [1] and failed[1].startswith("malformed attack success: ") and reason in failed[1]
    alone, silent = JUDGING.success(DIRECTORY, messages, replies[:1], {"attack": "backdoor"})
    assert found is not None and found == alone and found.episodes == 1
    assert [item.mean for item in found.rate] == [0.75, 1.0] and [item.mean for item in found.lift] == [0.5, 0.5]
    assert silent == {1: "no reply within the time limit"}


def test_scores_count_whatever_the_success_is() -> None:
    messages, replies = played(told({**SCORES, "asr.0": 0.5}))
    evaluation, failed = JUDGING.summarise(DIRECTORY, messages, replies)
    assert evaluation is not None and set(evaluation.clients) == {"0", "1"} and not failed


@pytest.mark.parametrize("liar", [0, 1, 2])
@pytest.mark.parametrize("facts", [{"seed": 5}, {"steps": []}, {"steps": [math.inf]}, {"score-name": "mse"}])
def test_one_client_neither_decides_by_what_protocol_others_judge_nor_ends_the_run(liar: int, facts: dict) -> None:
    three = Directory((*DIRECTORY.members, Member(2, 1002, "c", "validation")))
    adopt_identity()
    messages = JUDGING.messages(three, ArrayRecord({}), {})
    for message in messages:
        give_id(message)
    replies = [Message(told({**SCORES, "baseline.pixels.accuracy": [0.5, 0.5]}), reply_to=each) for each in messages]
    replies[liar].content["config"] = config_record({"score-name": "accuracy", "steps": [0], **facts})
    evaluation, failed = JUDGING.summarise(three, messages, replies)
    assert evaluation is not None and set(evaluation.clients) == {"0", "1", "2"} - {str(liar)}
    assert list(failed) == [liar] and failed[liar].startswith("malformed scores: ")


def test_without_a_clean_model_there_is_no_lift() -> None:
    messages, replies = played(told({**SCORES, **RATES}))
    found, failed = JUDGING.success(DIRECTORY, messages, replies, {})
    assert found is not None and not failed and found.clean == found.lift == () and found.episodes == 2


def test_a_baseline_that_a_client_cannot_compute_costs_it_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    reply = told({**SCORES, **RATES, "baseline.pixels.accuracy": [math.nan, math.nan]})
    reply["config"] = config_record({**dict(reply["config"]), "no-baseline.pixels": "it is blank"})  # type: ignore[arg-type]
    messages, replies = played(reply)
    replies[0].content["metrics"]["baseline.pixels.accuracy"] = [0.25, 0.75]  # type: ignore[index]
    evaluation, failed = JUDGING.summarise(DIRECTORY, messages, replies)
    assert evaluation is not None and not failed and set(evaluation.clients) == {"0", "1"}
    assert (evaluation.baselines["pixels"]["accuracy"].mean, evaluation.baseline.count) == (0.5, 1)  # type: ignore[union-attr]
    assert "baseline 'pixels' has no score on validation clients: 1 client (1): it is blank" in caplog.text
