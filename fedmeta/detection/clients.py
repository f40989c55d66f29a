"""How well a defence found the malicious clients of a run, from what it said of each client in each round."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fedmeta.detection.ranking import Ranking, ranking


@dataclass(frozen=True)
class JudgedRound:
    """What a defence said in one round, and the truth.

    Attributes:
        clients: ids of the clients whose updates it saw.
        attackers: of these, the ones whose updates were malicious in this round.
        scores: by client id, higher is more suspicious; a client without a score, or with NaN, has none. Empty for a
            rule that scores nobody.
        flagged: ids that it left out as malicious; None for a rule that accuses nobody.
    """

    clients: tuple[int, ...]
    attackers: frozenset[int]
    scores: Mapping[int, float]
    flagged: frozenset[int] | None

    @property
    def ranking(self) -> Ranking | None:
        """How well the scores of this round rank; None where attackers or honest clients have none."""
        return ranking(*self.labelled)

    @property
    def labelled(self) -> tuple[list[float], list[bool]]:
        """The scores, and for each whether its client was malicious."""
        scored = [client for client in self.clients if client in self.scores]
        return [self.scores[client] for client in scored], [client in self.attackers for client in scored]


@dataclass(frozen=True)
class Flags:
    """Flags counted over clients and rounds.

    Attributes:
        caught, missed: malicious updates that were flagged, and that were not.
        lost, kept: honest updates that were flagged, and that were not.
    """

    caught: int = 0
    missed: int = 0
    lost: int = 0
    kept: int = 0

    @classmethod
    def of(cls, rounds: Iterable[JudgedRound]) -> "Flags":
        """Counted over rounds of a rule that accuses."""
        counts = {(bad, flagged): 0 for bad in (True, False) for flagged in (True, False)}
        for judged in rounds:
            for client in judged.clients:
                counts[client in judged.attackers, client in (judged.flagged or ())] += 1
        return cls(counts[True, True], counts[True, False], counts[False, True], counts[False, False])

    @property
    def precision(self) -> float | None:
        """Of the flagged, the share that was malicious; None where nobody was flagged."""
        return _share(self.caught, self.lost)

    @property
    def recall(self) -> float | None:
        """Of the malicious, the share that was flagged; None where nobody was malicious."""
        return _share(self.caught, self.missed)

    @property
    def fpr(self) -> float | None:
        """Of the honest, the share that was flagged, and so lost; None where nobody was honest."""
        return _share(self.lost, self.kept)

    def to_json(self) -> dict[str, Any]:
        """The counts, and the three shares."""
        return {**asdict(self), "precision": self.precision, "recall": self.recall, "fpr": self.fpr}


@dataclass(frozen=True)
class Detection:
    """How well a defence found the malicious clients of a run.

    Attributes:
        attacked_rounds, clean_rounds: rounds that it judged, with and without a malicious update among them.
        within: the mean of the rounds' rankings, over the `ranked_rounds` in which malicious and honest clients have
            scores: what a rule that compares the clients of a round can see. With fewer than 20 honest clients a round
            its `tpr_at_fpr` allows no false alarm. None where there is no such round.
        ranked_rounds: the number of these.
        across: the ranking of all scores of these rounds thrown together: what one threshold for the whole run can do.
        share: malicious clients among those with a score in these rounds: the AUPRC of scores by chance.
        unscored: updates without a score, in rounds in which others have one.
        attacked: flags in attacked rounds; None for a rule that accuses nobody, or without such rounds.
        clean: flags in attack-free rounds, whose `fpr` is the rate of false alarms; None likewise.
    """

    attacked_rounds: int
    clean_rounds: int
    within: Ranking | None
    ranked_rounds: int
    across: Ranking | None
    share: float | None
    unscored: int
    attacked: Flags | None
    clean: Flags | None

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `Detection.from_json` reads it back."""
        flags = {key: None if found is None else found.to_json() for key, found in self._flags().items()}
        return {**asdict(self), **flags}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Detection":
        """Rebuild from `to_json`."""
        rankings = {key: None if data[key] is None else Ranking(**data[key]) for key in ("within", "across")}
        counts = ("caught", "missed", "lost", "kept")
        flags = {
            key: None if data[key] is None else Flags(**{name: data[key][name] for name in counts})
            for key in ("attacked", "clean")
        }
        return cls(**{**data, **rankings, **flags})

    def _flags(self) -> dict[str, Flags | None]:
        return {"attacked": self.attacked, "clean": self.clean}


def summarise_detection(rounds: Sequence[JudgedRound]) -> Detection | None:
    """A run's detection from its rounds; None where the defence neither scored nor accused anybody.

    Rounds in which it did neither, since they were not aggregated, do not count.
    """
    judged = [round for round in rounds if round.scores or round.flagged is not None]
    if not judged:
        return None
    attacked = [round for round in judged if round.attackers & set(round.clients)]
    clean = [round for round in judged if round not in attacked]
    found = [(round, one) for round in attacked if (one := round.ranking) is not None]
    scores = [score for round, _ in found for score in round.labelled[0]]
    labels = [label for round, _ in found for label in round.labelled[1]]
    return Detection(
        attacked_rounds=len(attacked),
        clean_rounds=len(clean),
        within=_mean([one for _, one in found]),
        ranked_rounds=len(found),
        across=ranking(scores, labels),
        share=_share(sum(labels), len(labels) - sum(labels)),
        unscored=sum(len(_unscored(round)) for round in judged),
        attacked=_flags(attacked),
        clean=_flags(clean),
    )


def _flags(rounds: Sequence[JudgedRound]) -> Flags | None:
    accusing = [round for round in rounds if round.flagged is not None]
    return Flags.of(accusing) if accusing else None


def _unscored(round: JudgedRound) -> list[int]:
    """Clients without a score, in a round in which others have one."""
    known = {client for client, score in round.scores.items() if score == score}
    return [client for client in round.clients if known and client not in known]


def _mean(rankings: Sequence[Ranking]) -> Ranking | None:
    if not rankings:
        return None
    columns = zip(*((one.auroc, one.auprc, one.tpr_at_fpr) for one in rankings), strict=True)
    return Ranking(*(sum(column) / len(rankings) for column in columns))


def _share(part: int, rest: int) -> float | None:
    return part / (part + rest) if part + rest else None
