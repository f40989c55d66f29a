"""The study behind a search: optuna's, in a file that survives this process."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmeta.errors import CheckpointError, ConfigurationError
from fedmeta.seeding import SERVER, derive
from simulations.tune.space import Dimension
from simulations.tune.trial_run import PATIENT

STORAGE, NAME = "study.db", "tune"
SETTINGS, REASON, ROUND = "fedmeta", "reason", "round"


@dataclass(frozen=True)
class Trial:
    """One trial as it stands.

    Attributes:
        number: from 0.
        id: in the storage.
        chosen: searched key -> value.
        state: `complete`, `pruned`, `failed`, or `running` where it is not over, or was killed.
        value: the best validation score of a complete one, the last of a pruned one; None where there is none.
        round: in which it was.
        reason: why it failed.
    """

    number: int
    id: int
    chosen: dict[str, Any]
    state: str
    value: float | None = None
    round: int | None = None
    reason: str | None = None

    @property
    def place(self) -> str:
        """Its run directory within the study's."""
        return f"trials/{self.number:04d}"


class Study:
    """A search that goes on where it was left.

    A trial's values follow from the seed, its number and the trials that were over when it was drawn, so that a study
    of one trial at a time is the same whether it was killed or not.

    Args:
        folder: of the study.
        space: searched keys.
        settings: what must not change while it lasts, as JSON values.
        maximise: whether a higher score is better.
        seed: of the search.
        independent: draw all trials alike and without looking at others (privacy), not where earlier ones were good.

    Raises:
        ConfigurationError: optuna is not installed.
        CheckpointError: the folder holds a study with other settings.
    """

    def __init__(
        self,
        folder: Path,
        space: Sequence[Dimension],
        settings: Mapping[str, Any],
        maximise: bool,
        seed: int,
        independent: bool,
    ) -> None:
        optuna = _optuna()
        self._space = {dimension.key: dimension.distribution() for dimension in space}
        self._seed, self._independent, self.maximise = seed, independent, maximise
        self.storage = f"sqlite:///{(folder / STORAGE).resolve()}"
        self._study = optuna.create_study(
            storage=optuna.storages.RDBStorage(self.storage, engine_kwargs=PATIENT),
            study_name=NAME,
            direction="maximize" if maximise else "minimize",
            load_if_exists=True,
        )
        text = json.dumps(dict(settings), sort_keys=True)
        known = self._study.user_attrs.get(SETTINGS)
        if known is None:
            self._study.set_user_attr(SETTINGS, text)
        elif known != text:
            before, now = json.loads(known), json.loads(text)
            differing = [key for key in {**before, **now} if before.get(key) != now.get(key)]
            raise CheckpointError(
                f"'{folder}' holds a study with another {', '.join(sorted(differing))}: repeat what it was begun with, "
                "or choose another folder with --out"
            )

    def trials(self) -> list[Trial]:
        """All trials, by number."""
        return [_read(each) for each in self._study.get_trials(deepcopy=False)]

    def draw(self) -> Trial:
        """The next trial."""
        optuna = _optuna()
        number = len(self._study.get_trials(deepcopy=False))
        seed = derive(self._seed, number, SERVER, "tune") % 2**32
        samplers = optuna.samplers
        self._study.sampler = samplers.RandomSampler(seed) if self._independent else samplers.TPESampler(seed=seed)
        drawn = self._study.ask(fixed_distributions=self._space)
        return Trial(drawn.number, drawn._trial_id, dict(drawn.params), "running")

    def is_whole(self, trial: Trial) -> bool:
        """Whether all its values were drawn before the process that drew it was killed."""
        return set(trial.chosen) == set(self._space)

    def settle(self, trial: Trial, found: Mapping[str, Any]) -> None:
        """Write down how a trial ended, as `play_trial` says it."""
        optuna = _optuna()
        storage, state = self._study._storage, optuna.trial.TrialState
        if found["state"] == "complete":
            storage.set_trial_user_attr(trial.id, ROUND, found["round"])
            self._study.tell(trial.number, found["value"])
        elif found["state"] == "pruned":
            self._study.tell(trial.number, state=state.PRUNED)
        else:
            storage.set_trial_user_attr(trial.id, REASON, found["reason"])
            self._study.tell(trial.number, state=state.FAIL)

    def importances(self) -> dict[str, float]:
        """Share of each key in what makes trials good (PED-ANOVA); empty where too few trials can tell."""
        optuna = _optuna()
        if len([trial for trial in self.trials() if trial.state == "complete"]) < 4:
            return {}
        try:
            found = optuna.importance.get_param_importances(self._study)
        except (ValueError, RuntimeError, ImportError):  # no variation, or a version that needs another package
            return {}
        return {key: float(value) for key, value in found.items()}


def _read(found: Any) -> Trial:
    states = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    state = states.get(found.state.name, "running")
    steps = found.intermediate_values
    value, round = (found.value, found.user_attrs.get(ROUND)) if state == "complete" else (None, None)
    if state == "pruned" and steps:
        round = max(steps)
        value = steps[round]
    return Trial(found.number, found._trial_id, dict(found.params), state, value, round, found.user_attrs.get(REASON))


def need_optuna() -> None:
    """Refuse a search before its folder is made, where there is nothing to search with.

    Raises:
        ConfigurationError: optuna cannot be imported.
    """
    _optuna()


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ConfigurationError(
            f"fedmeta tune needs optuna, which cannot be imported ({error}): pip install 'fedmeta[tune]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
