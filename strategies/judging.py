"""Evaluation rounds: asking clients to judge a model on their frozen episodes, and summarising what they say."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import ArrayRecord, Message, RecordDict

from fedmeta.statistics import ClientScores, Evaluation, summarise
from fedmeta.wire import ARRAYS, CONFIG, MalformedRecord, config_record, only
from strategies.directory import Directory, Member

EVALUATE = "evaluate"


@dataclass(frozen=True)
class Judging:
    """What is asked of the clients.

    Attributes:
        split: `validation`, `test` or `pooled`: also the role of the clients that are asked.
        episodes: frozen episodes a client.
        steps: ascending numbers of adaptation steps; empty: 0 and the learner's own test steps.
        baseline: whether pixel nearest neighbour is measured on the same episodes.
    """

    split: str
    episodes: int
    steps: tuple[int, ...] = ()
    baseline: bool = False

    def members(self, directory: Directory) -> list[Member]:
        """The clients that are asked."""
        return directory.role(self.split)

    def messages(self, directory: Directory, arrays: ArrayRecord, base: Mapping[str, Any]) -> list[Message]:
        """One message a client; all share one content, so that an engine can broadcast it."""
        config = {**base, "episodes": self.episodes, "steps": list(self.steps), "baseline": self.baseline}
        content = RecordDict({ARRAYS: arrays, CONFIG: config_record(config)})
        return [
            Message(content=content, dst_node_id=member.node, message_type=EVALUATE)
            for member in self.members(directory)
        ]

    def summarise(self, directory: Directory, replies: Iterable[Message]) -> tuple[Evaluation | None, dict[int, str]]:
        """Summarise replies.

        Returns:
            The evaluation, or None when no client answered; and client id -> reason for those that did not.
        """
        asked = directory.nodes(member.client for member in self.members(directory))
        failed = dict.fromkeys(asked.values(), "no reply within the time limit")
        scores: dict[int, ClientScores] = {}
        facts: dict[str, Any] = {}
        for reply in sorted(replies, key=lambda message: asked.get(message.metadata.src_node_id, -1)):
            client = asked.get(reply.metadata.src_node_id)
            if client is None:
                continue
            if reply.has_error():
                failed[client] = (reply.error.reason or f"error code {reply.error.code}").strip()
                continue
            try:
                scores[client] = _read_scores(reply)
                facts = dict(only(reply.content, "config"))
                del failed[client]
            except (MalformedRecord, KeyError) as error:
                failed[client] = f"malformed scores: {error}"
        if not scores:
            return None, failed
        score_name, steps = str(facts.pop("score-name")), [int(step) for step in facts.pop("steps")]
        return summarise(self.split, score_name, steps, scores, {**facts, "episodes": self.episodes}), failed


def _read_scores(reply: Message) -> ClientScores:
    metrics, facts = only(reply.content, "metric"), only(reply.content, "config")
    steps = [int(step) for step in facts["steps"]]
    return ClientScores(
        loss=[metrics[f"loss.{step}"] for step in steps],
        score=[metrics[f"score.{step}"] for step in steps],
        baseline=metrics.get("baseline", []),
    )
