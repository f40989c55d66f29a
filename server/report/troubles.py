"""What went wrong in a run, alike troubles told once however many rounds and clients they met."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from strategies.reasons import group_reasons
from strategies.round_report import RELEASED

KINDS = {
    "failed": "failed",
    "refused": "refused",
    "validation_failed": "failed at validation",
    "attack_idle": "could not attack and sent an honest update",
}
"""Keys of a round's record that hold client id -> reason, and what is said of them."""


@dataclass
class _Met:
    rounds: list[int] = field(default_factory=list)
    clients: dict[int, str] = field(default_factory=dict)


def troubles(metrics: Iterable[Mapping[str, Any]], results: Mapping[str, Any]) -> list[dict[str, str]]:
    """One line for each kind of trouble, in the order of their first round: `rounds` and `text`.

    Args:
        metrics: the rounds' records.
        results: the final evaluations, which clients may have failed at; empty for a run under way.
    """
    met: dict[tuple[str, str], _Met] = {}
    for record in metrics:
        for kind, reason, client in _of_round(record):
            found = met.setdefault((kind, reason), _Met())
            if record["round"] not in found.rounds[-1:]:
                found.rounds.append(record["round"])
            if client is not None:
                found.clients[client] = reason
    lines = [{"rounds": _ranges(found.rounds), "text": _text(*key, found)} for key, found in met.items()]
    for which in ("last", "best"):
        judged = results.get(which) or {}
        if which == "last" or judged.get("round") != (results.get("last") or {}).get("round"):
            failed = {int(client): reason for client, reason in (judged.get("failed") or {}).items()}
            words = f"failed at the final evaluation of the {which} model"
            lines += [{"rounds": "end", "text": f"{words}: {line}"} for line in group_reasons(failed)]
    return lines


def _of_round(record: Mapping[str, Any]) -> Iterator[tuple[str, str, int | None]]:
    if record["event"]:
        yield "the model stayed as it was", record["event"], None
    elif record.get("failed_round"):
        yield "", RELEASED, None
    for key, words in KINDS.items():
        for client, reason in record.get(key, {}).items():
            yield words, reason, int(client)


def _text(kind: str, reason: str, found: _Met) -> str:
    text = group_reasons(dict(sorted(found.clients.items())))[0] if found.clients else reason
    return f"{kind}: {text}" if kind else text


def _ranges(rounds: list[int], shown: int = 4) -> str:
    """Rounds in words.

    >>> _ranges([1, 2, 3, 7]), _ranges([1, 3, 5, 7, 9, 11])
    ('1 to 3, 7', '1, 3, 5, 7, ... (6 rounds)')
    """
    runs: list[list[int]] = []
    for number in rounds:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    words = ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in runs[:shown])
    return words if len(runs) <= shown else f"{words}, ... ({len(rounds)} rounds)"
