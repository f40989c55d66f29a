"""How well a run's defence found its malicious clients, from the records of its rounds."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedmeta.detection.clients import Detection, JudgedRound, summarise_detection


def judged_round(record: Mapping[str, Any]) -> JudgedRound:
    """What the record of a round says of its clients.

    Clients that did not answer, and replies that were refused, never came before the defence. An attacker that could
    not act sent an honest update. Under secure aggregation the defence sees groups: each is known by its place, and
    malicious with an attacker in it.
    """
    absent = {*record["failed"], *record["refused"]}
    idle = record.get("attack_idle", {})
    attackers = frozenset(client for client in record.get("attackers") or () if str(client) not in idle)
    defence, clients = record.get("defence", {}), tuple(c for c in record["sampled"] if str(c) not in absent)
    if "groups" in defence:
        groups, defence = record.get("groups", []), defence["groups"]
        clients = tuple(range(len(groups)))
        attackers = frozenset(place for place in clients if attackers.intersection(groups[place]["clients"]))
    flagged = defence.get("flagged")
    return JudgedRound(
        clients=clients,
        attackers=attackers,
        scores={int(client): score for client, score in defence.get("scores", {}).items()},
        flagged=None if flagged is None else frozenset(flagged),
    )


def detection_of_round(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """How well the scores and flags of one round tell its attackers, as JSON; None where there are neither."""
    judged = judged_round(record)
    found = summarise_detection([judged])
    if found is None:
        return None
    flags = found.attacked or found.clean
    ranking = vars(found.within) if found.within is not None else {}
    return {**ranking, **({} if flags is None else flags.to_json())}


def detection_of_run(records: Sequence[Mapping[str, Any]]) -> Detection | None:
    """Over all rounds; None for a defence that scores and accuses nobody."""
    return summarise_detection([judged_round(record) for record in records])


def detection_rows(found: Detection) -> list[tuple[str, str, str]]:
    """For tables: what, the figure, and what must stand beside it."""
    rows = []
    if found.within is not None and found.across is not None and found.share is not None:
        rounds = f"mean of {found.ranked_rounds} attacked round{'' if found.ranked_rounds == 1 else 's'}"
        for label, key, chance in (
            ("AUROC", "auroc", "chance 50 %"),
            ("AUPRC", "auprc", f"chance {100 * found.share:.1f} %"),
            ("TPR at 5 % FPR", "tpr_at_fpr", "chance 5 %"),
        ):
            within, across = getattr(found.within, key), getattr(found.across, key)
            beside = f"{rounds}; {100 * across:.1f} % with one threshold for the run; {chance}"
            rows.append((label, f"{100 * within:.1f} %", beside))
    if found.attacked is not None:
        flags = found.attacked
        bad, honest = flags.caught + flags.missed, flags.lost + flags.kept
        rows.append(("malicious updates flagged", _percent(flags.recall), f"{flags.caught} of {bad}"))
        rows.append(
            ("flagged updates malicious", _percent(flags.precision), f"{flags.caught} of {flags.caught + flags.lost}")
        )
        rows.append(("honest updates flagged, attacked rounds", _percent(flags.fpr), f"{flags.lost} of {honest}"))
    if found.clean is not None:
        flags = found.clean
        beside = f"{flags.lost} of {flags.lost + flags.kept}"
        rows.append(("honest updates flagged, attack-free rounds", _percent(flags.fpr), beside))
    return rows


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.1f} %"
