"""Early stopping: a run ends when its score on validation clients has not become better for a while."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from fedmeta.experiment_sections import EvaluationSection
from fedmeta.statistics import ERRORS, Evaluation


class EarlyStopping:
    """Counts validations without a better score; those of earlier sessions count too, so that resuming changes nothing.

    Args:
        settings: `patience` (None: never) and `min_improvement`.
        records: of the rounds that were played already.
    """

    def __init__(self, settings: EvaluationSection, records: Iterable[Mapping[str, Any]] = ()) -> None:
        self._settings = settings
        self._best = -math.inf
        self._waited = 0
        for record in records:
            self.see(record)

    def see(self, record: Mapping[str, Any]) -> None:
        """Note a round; one without validation changes nothing, a score that is not finite is no better one."""
        if self._settings.patience is None or record["validation"] is None:
            return
        evaluation = Evaluation.from_json(record["validation"])
        score = evaluation.after.mean * (-1 if evaluation.score_name in ERRORS else 1)
        if score > self._best + (self._settings.min_improvement if math.isfinite(self._best) else 0.0):
            self._best, self._waited = score, 0
        else:
            self._waited += 1

    @property
    def reason(self) -> str | None:
        """Why the run shall end; None while it may go on."""
        patience = self._settings.patience
        if patience is None or self._waited < patience:
            return None
        return f"no better score in {self._waited} validation{'' if self._waited == 1 else 's'} (evaluation.patience)"
