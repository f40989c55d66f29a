"""Evaluation rounds: asking clients to judge a model on their frozen episodes, and summarising what they say."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import ArrayRecord, Message, RecordDict

from fedmeta.attacks.success import AttackSuccess, ClientSuccess, summarise_success
from fedmeta.statistics import ClientScores, Evaluation, summarise
from fedmeta.wire import ARRAYS, CLEAN, CONFIG, MalformedRecord, config_record, only
from strategies.directory import Directory, Member, by_message, why_failed

EVALUATE = "evaluate"


@dataclass(frozen=True)
class Judging:
    """What is asked of the clients.

    Attributes:
        split: `validation`, `test` or `pooled`: also the role of the clients that are asked.
        episodes: frozen episodes a client.
        steps: ascending numbers of adaptation steps; empty: 0 and the learner's own test steps.
        baseline: whether pixel nearest neighbour is measured on the same episodes.
        success_steps: adaptation steps after which an attack's success is measured on them; empty for none.
    """

    split: str
    episodes: int
    steps: tuple[int, ...] = ()
    baseline: bool = False
    success_steps: tuple[int, ...] = ()

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
            The evaluation, or None when no client answered; and client id -> reason for those that did not.
        """
        clients = directory.nodes(member.client for member in self.members(directory))
        own = [message for message in messages if message.metadata.dst_node_id in clients]
        answers = by_message(own, replies)
        failed: dict[int, str] = {}
        scores: dict[int, ClientScores] = {}
        protocol: dict[str, Any] | None = None
        for client, message in sorted(((clients[m.metadata.dst_node_id], m) for m in own), key=lambda pair: pair[0]):
            reply = answers.get(message.metadata.message_id)
            failure = why_failed(reply)
            if reply is None or failure:
                failed[client] = failure
                continue
            try:
                found, facts = _read_scores(reply, self.episodes, self.steps)
                if protocol not in (None, facts):
                    raise MalformedRecord(f"judged by another protocol than the clients before it: {facts}")
                scores[client], protocol = found, facts
            except (MalformedRecord, KeyError, TypeError, ValueError) as error:
                failed[client] = f"malformed scores: {error}"
        if protocol is None:
            return None, failed
        score_name, steps = str(protocol["score-name"]), [int(step) for step in protocol["steps"]]
        facts = {key: value for key, value in protocol.items() if key not in ("score-name", "steps")}
        return summarise(self.split, score_name, steps, scores, {**facts, "episodes": self.episodes}), failed

    def success(
        self,
        directory: Directory,
        messages: Iterable[Message],
        replies: Iterable[Message],
        protocol: Mapping[str, Any],
    ) -> AttackSuccess | None:
        """The attack's success by the same replies; None where no episode counts. Arguments as for `summarise`."""
        clients = directory.nodes(member.client for member in self.members(directory))
        own = [message for message in messages if message.metadata.dst_node_id in clients]
        answers = by_message(own, replies)
        scores = {}
        for message in own:
            reply = answers.get(message.metadata.message_id)
            if reply is not None and not why_failed(reply):
                metrics = only(reply.content, "metric")
                rate, clean = (
                    [list(metrics[f"{name}.{step}"]) for step in self.success_steps if f"{name}.{step}" in metrics]
                    for name in ("asr", "clean-asr")
                )
                if len(rate) == len(self.success_steps):
                    scores[clients[message.metadata.dst_node_id]] = ClientSuccess(rate, clean)
        return summarise_success(self.split, self.success_steps, scores, {**protocol, "episodes": self.episodes})


def _read_scores(reply: Message, episodes: int, asked: tuple[int, ...]) -> tuple[ClientScores, dict[str, Any]]:
    metrics, facts = only(reply.content, "metric"), dict(only(reply.content, "config"))
    steps = [int(step) for step in facts["steps"]]
    if asked and steps != list(asked):
        raise MalformedRecord(f"steps {steps} where {list(asked)} were asked for")
    loss = [list(metrics[f"loss.{step}"]) for step in steps]
    score = [list(metrics[f"score.{step}"]) for step in steps]
    baseline = list(metrics.get("baseline", []))
    lengths = {len(row) for row in [*loss, *score, *([baseline] if baseline else [])]}
    if lengths != {episodes} or not facts["score-name"]:
        raise MalformedRecord(f"{sorted(lengths)} episodes where {episodes} were asked for")
    return ClientScores(loss, score, baseline), facts
