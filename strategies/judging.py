"""Evaluation rounds: asking clients to judge a model on their frozen episodes, and summarising what they say."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from flwr.app import ArrayRecord, Message, RecordDict

from fedmeta.attacks.success import AttackSuccess, ClientSuccess, summarise_success
from fedmeta.calibration import BINS
from fedmeta.component import Component
from fedmeta.statistics import ClientScores, Evaluation, summarise
from fedmeta.wire import ARRAYS, CLEAN, CONFIG, TROUBLE, MalformedRecord, config_record, only
from strategies.directory import Directory, Member, by_message, why_failed
from strategies.reasons import group_reasons

log = logging.getLogger("fedmeta.strategies")

EVALUATE = "evaluate"

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Judging:
    """What is asked of the clients.

    Attributes:
        split: `validation`, `test` or `pooled`: also the role of the clients that are asked.
        episodes: frozen episodes a client.
        steps: ascending numbers of adaptation steps; empty: 0 and the learner's own test steps.
        baseline: whether baselines, which learn nothing, are measured on the same episodes.
        success_steps: adaptation steps after which an attack's success is measured on them; empty for none.
        deployment: the defence that a client adapts and predicts under; None for the learner as it is.
    """

    split: str
    episodes: int
    steps: tuple[int, ...] = ()
    baseline: bool = False
    success_steps: tuple[int, ...] = ()
    deployment: Component | None = None

    def members(self, directory: Directory) -> list[Member]:
        """The clients that are asked."""
        return directory.role(self.split)

    def messages(
        self,
        directory: Directory,
        arrays: ArrayRecord,
        base: Mapping[str, Any],
        clean: ArrayRecord | None = None,
    ) -> list[Message]:
        """One message a client; all share one content, so that an engine can broadcast it.

        Args:
            directory: the clients.
            arrays: the model.
            base: what every message carries.
            clean: a model that nobody attacked, for the lift of an attack's success.
        """
        config = {**base, "episodes": self.episodes, "steps": list(self.steps), "baseline": self.baseline}
        if self.success_steps:
            config["success-steps"] = list(self.success_steps)
        if self.deployment is not None:
            config["deployment"] = self.deployment.model_dump_json()
        beside = {} if clean is None else {CLEAN: clean}
        content = RecordDict({ARRAYS: arrays, **beside, CONFIG: config_record(config)})
        return [
            Message(content=content, dst_node_id=member.node, message_type=EVALUATE)
            for member in self.members(directory)
        ]

    def summarise(
        self, directory: Directory, messages: Iterable[Message], replies: Iterable[Message]
    ) -> tuple[Evaluation | None, dict[int, str]]:
        """Summarise the replies to messages of `messages()`; others among them are left alone.

        Returns:
            The evaluation, or None when no client answered; and client id -> reason for those that did not, or that
            judged by another protocol than most.
        """
        troubles: dict[str, dict[int, str]] = {}
        clients = directory.nodes(member.client for member in self.members(directory))

        def read(reply: Message) -> tuple[ClientScores, dict[str, Any]]:
            found, facts = _read_scores(reply, self.episodes, self.steps)
            for key in [key for key in facts if key.startswith(TROUBLE)]:
                client = clients.get(reply.metadata.src_node_id, -1)
                troubles.setdefault(key.removeprefix(TROUBLE), {})[client] = str(facts.pop(key))
            return found, facts

        answers, failed = self._read(directory, messages, replies, read, "scores")
        for name, reasons in troubles.items():
            for line in group_reasons(reasons):
                log.warning("baseline '%s' has no score on %s clients: %s", name, self.split, line)
        if not answers:
            return None, failed
        protocol = _usual([protocol for _, protocol in answers.values()])
        scores = {client: found for client, (found, own) in answers.items() if own == protocol}
        for client, (_, own) in answers.items():
            if client not in scores:
                failed[client] = f"malformed scores: judged by another protocol than most clients: {own}"
        score_name, steps = str(protocol["score-name"]), [int(step) for step in protocol["steps"]]
        facts = {key: value for key, value in protocol.items() if key not in ("score-name", "steps", "measures")}
        return summarise(self.split, score_name, steps, scores, {**facts, "episodes": self.episodes}), failed

    def success(
        self,
        directory: Directory,
        messages: Iterable[Message],
        replies: Iterable[Message],
        protocol: Mapping[str, Any],
    ) -> tuple[AttackSuccess | None, dict[int, str]]:
        """Summarise the attack's success by the same replies. Arguments as for `summarise`.

        Returns:
            The success, or None where no episode counts; and client id -> reason for those that did not tell theirs.
        """
        scores, failed = self._read(
            directory,
            messages,
            replies,
            lambda reply: _read_success(reply, self.episodes, self.success_steps),
            "attack success",
        )
        facts = {**protocol, "episodes": self.episodes}
        return summarise_success(self.split, self.success_steps, scores, facts), failed

    def _read(
        self,
        directory: Directory,
        messages: Iterable[Message],
        replies: Iterable[Message],
        read: Callable[[Message], Answer],
        what: str,
    ) -> tuple[dict[int, Answer], dict[int, str]]:
        """What `read` finds in each client's reply, and client id -> reason where that is nothing."""
        clients = directory.nodes(member.client for member in self.members(directory))
        own = {clients[m.metadata.dst_node_id]: m for m in messages if m.metadata.dst_node_id in clients}
        answers = by_message(own.values(), replies)
        found: dict[int, Answer] = {}
        failed: dict[int, str] = {}
        for client, message in sorted(own.items()):
            reply = answers.get(message.metadata.message_id)
            failure = why_failed(reply)
            if reply is None or failure:
                failed[client] = failure
                continue
            try:
                found[client] = read(reply)
            except (MalformedRecord, LookupError, ArithmeticError, TypeError, ValueError) as error:
                failed[client] = f"malformed {what}: {error}"
        return found, failed


def _usual(protocols: list[dict[str, Any]]) -> dict[str, Any]:
    """The protocol of most clients, of equally many that of the lowest id: one client does not decide for others."""
    texts = [repr(sorted(protocol.items())) for protocol in protocols]
    [(usual, _)] = Counter(texts).most_common(1)
    return protocols[texts.index(usual)]


def _read_scores(reply: Message, episodes: int, asked: tuple[int, ...]) -> tuple[ClientScores, dict[str, Any]]:
    metrics, facts = only(reply.content, "metric"), dict(only(reply.content, "config"))
    steps = [int(step) for step in facts["steps"]]
    if not steps or (asked and steps != list(asked)):
        raise MalformedRecord(f"steps {steps} where {list(asked) or 'some'} were asked for")
    loss = [list(metrics[f"loss.{step}"]) for step in steps]
    score = [list(metrics[f"score.{step}"]) for step in steps]
    measures = {name: [list(metrics[f"measure.{step}.{name}"]) for step in steps] for name in facts.get("measures", [])}
    baselines = _read_baselines(metrics)
    beside = [row for rows in measures.values() for row in rows]
    beside += [row for figures in baselines.values() for row in figures.values()]
    lengths = {len(row) for row in [*loss, *score, *beside]}
    if lengths != {episodes} or not facts["score-name"]:
        raise MalformedRecord(f"{sorted(lengths)} episodes where {episodes} were asked for")
    brier, bins = _read_calibration(metrics, steps, episodes)
    return ClientScores(loss, score, baselines, brier, bins, measures), facts


def _read_baselines(metrics: Mapping[str, Any]) -> dict[str, dict[str, list[float]]]:
    """Baseline -> figure -> `[episodes]`, from keys `baseline.<name>.<figure>`."""
    found: dict[str, dict[str, list[float]]] = {}
    for key in metrics:
        if key.startswith("baseline."):
            name, _, figure = key.removeprefix("baseline.").rpartition(".")
            found.setdefault(name, {})[figure] = list(metrics[key])
    return found


def _read_calibration(
    metrics: Mapping[str, Any], steps: list[int], episodes: int
) -> tuple[list[list[float]], list[list[list[float]]]]:
    """Brier scores `[steps][episodes]` and bins `[steps][3][BINS]`; empty lists where the task has none."""
    if f"brier.{steps[0]}" not in metrics:
        return [], []
    brier = [list(metrics[f"brier.{step}"]) for step in steps]
    flat = [list(metrics[f"bins.{step}"]) for step in steps]
    if {len(row) for row in brier} != {episodes} or {len(row) for row in flat} != {3 * BINS}:
        raise MalformedRecord(f"calibration of other than {episodes} episodes in {BINS} bins")
    return brier, [[row[start : start + BINS] for start in range(0, 3 * BINS, BINS)] for row in flat]


def _read_success(reply: Message, episodes: int, steps: tuple[int, ...]) -> ClientSuccess:
    metrics = only(reply.content, "metric")
    rate = [list(metrics[f"asr.{step}"]) for step in steps]
    # All steps or none: without a clean model nobody measures it.
    clean = [list(metrics[f"clean-asr.{step}"]) for step in steps] if f"clean-asr.{steps[0]}" in metrics else []
    lengths = {len(row) for row in [*rate, *clean]}
    if lengths != {episodes}:
        raise MalformedRecord(f"{sorted(lengths)} episodes where {episodes} were asked for")
    return ClientSuccess(rate, clean)
