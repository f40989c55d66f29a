"""`tune`: a search from its arguments to its results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmeta.errors import ConfigurationError
from fedmeta.experiment import Experiment
from fedmeta.parameters import require_number
from fedmeta.privacy.selection import law_of
from fedmeta.seeding import SERVER, derive
from fedmeta.statistics import ERRORS
from fedmeta.workload import Workload
from server.configuration import load
from server.files import folder_of
from simulations.bench.schedule import Workers, check_workers, make_workers
from simulations.folder_lock import held
from simulations.tune.private import PrivateTuning, one_division, private_tuning
from simulations.tune.report import TuneReport, write_files
from simulations.tune.space import Dimension, check_space, experiment_at, parse_space
from simulations.tune.study import NAME, Study, Trial, need_optuna

MOST_TRIALS = 100_000
"""Of one search: more would take years."""

PLAY = "simulations.tune.trial_run:play_trial"

Settled = Callable[[Trial], None]
"""Called with every trial that is over."""


@dataclass(frozen=True)
class Search:
    """A search that can be: checked, and nothing of it begun.

    Attributes:
        base: the experiment.
        space: what is searched.
        trials: how many were asked for; a private search draws its own number.
        place: folder of the study.
        seed: of the search.
        private: what privacy adds; None without.
        score_name: of the experiment's task.
        engine, parallel, prune_after: as for `tune`.
    """

    base: Experiment
    space: Sequence[Dimension]
    trials: int
    place: Path
    seed: int
    private: PrivateTuning | None
    score_name: str
    engine: str = "ray"
    parallel: int | None = None
    prune_after: int | None = 5

    @property
    def wanted(self) -> int:
        """Trials to play."""
        return self.trials if self.private is None else self.private.drawn

    @property
    def settings(self) -> dict[str, Any]:
        """What must not change while the study lasts, as JSON values."""
        law = {} if self.private is None else {"law": str(self.private.law)}
        search = [str(dimension) for dimension in self.space]
        return {"experiment": self.base.hash, "search": search, "seed": self.seed, **law}


def plan_search(
    source: str | Path | Mapping[str, Any] | Experiment,
    search: Sequence[str],
    trials: int = 30,
    out: str | Path | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
    engine: str = "ray",
    parallel: int | None = None,
    prune_after: int | None = 5,
    law: str = "1",
) -> Search:
    """Check all that can be checked before anything is written; arguments and errors as for `tune`."""
    base, space = load(source, overrides), parse_space(search)
    for name, value in (("trials", trials), ("seed", seed), ("prune_after", prune_after)):
        if value is not None or name != "prune_after":
            require_number(name, value, whole=True)
    if not 1 <= trials <= MOST_TRIALS:
        raise ConfigurationError(f"trials = {trials} must be at least 1, and at most {MOST_TRIALS:,}")
    if seed < 0:
        raise ConfigurationError(f"seed = {seed} must be at least 0")
    if prune_after is not None and prune_after < 1:
        raise ConfigurationError(f"prune_after = {prune_after} must be at least 1, or none")
    check_workers(engine, parallel)
    need_optuna()
    ends = check_space(base, space)
    workload = Workload(base)
    if not any(client.role == "validation" for client in workload.federation.clients):
        raise ConfigurationError("there are no validation clients to judge trials: set partition.validation_clients")
    place = (Path("runs") / f"{base.name}-tune" if out is None else folder_of(out)).resolve()
    private = None
    if base.privacy.unit != "none":
        private = private_tuning(base, ends, law_of(law, trials), seed)
    score_name = workload.spec_of_data.task.score_name
    return Search(base, space, trials, place, seed, private, score_name, engine, parallel, prune_after)


def tune(
    source: str | Path | Mapping[str, Any] | Experiment,
    search: Sequence[str],
    trials: int = 30,
    out: str | Path | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
    engine: str = "ray",
    parallel: int | None = None,
    prune_after: int | None = 5,
    law: str = "1",
    watch: Settled = lambda trial: None,
) -> TuneReport:
    """Search keys of an experiment for the best score on its validation clients, or go on with a search.

    Args:
        source: the experiment.
        search: `KEY=KIND:VALUES` each, see `simulations.tune.space`.
        trials: how many; of a private experiment their mean, and the number is drawn.
        out: folder of the study; None: `runs/NAME-tune`, so that the same command goes on where the last one ended.
        overrides: dotted key -> value, for all trials.
        seed: of the search, and of the draw of the number of trials.
        engine: `ray`, as many trials at once as the cores hold, or `inline`, one after the other in this process.
        parallel: no more trials at once.
        prune_after: complete trials before a trial is ended whose best score lies below the median of theirs; None:
            never. A private experiment's are not, since its trials must not depend on each other.
        law: of the number of trials of a private experiment: the shape of a truncated negative binomial, or `poisson`.
        watch: called as trials are settled.

    Raises:
        FedmetaError: a search that cannot be, or a folder that another one works in or that cannot be written.
    """
    planned = plan_search(
        source,
        search,
        trials,
        out,
        overrides=overrides,
        seed=seed,
        engine=engine,
        parallel=parallel,
        prune_after=prune_after,
        law=law,
    )
    return play_search(planned, watch)


def play_search(search: Search, watch: Settled = lambda trial: None) -> TuneReport:
    """Play a search that was checked, or go on with it; errors as for `tune`."""
    base, private, place, settings = search.base, search.private, search.place, search.settings
    maximise, independent = search.score_name not in ERRORS, private is not None
    with held(place, "search"):
        study = Study(place, search.space, settings, maximise, search.seed, independent=independent)
        if private is not None:
            private.reserve(place)
        crew = _Crew(study, base, place, independent, None if independent else search.prune_after)
        try:
            shares = base.engine.threads, base.engine.gpus_per_client
            with make_workers(search.engine, *shares, search.parallel) as workers:
                crew.play(workers, search.wanted, watch)
        finally:
            report = _report(study, place, search.score_name, settings["search"], search.wanted, private)
            write_files(report, None if report.best is None else crew.experiment(report.best))
        if private is not None:
            private.release(place)
    return report


class _Crew:
    """Plays the trials of a study that are not over, then draws and plays the rest."""

    def __init__(self, study: Study, base: Experiment, place: Path, private: bool, prune_after: int | None) -> None:
        self._study, self._base, self._place, self._private = study, base, place, private
        self._prune_after = prune_after

    def experiment(self, trial: Trial) -> Experiment:
        """Of a trial. Private ones have a seed each, since their noise must be independent; others share the base's."""
        if not self._private:
            return experiment_at(self._base, trial.chosen)
        seed = derive(self._base.seed, trial.number, SERVER, "trial") % 2**31
        return experiment_at(one_division(self._base), trial.chosen, seed)

    def play(self, workers: Workers, wanted: int, watch: Settled) -> None:
        """Play until `wanted` trials are over."""
        begun = self._study.trials()
        waiting = [trial for trial in begun if trial.state == "running"]  # a process was killed
        drawn, running = len(begun), dict[Any, Trial]()
        while waiting or running or drawn < wanted:
            while len(running) < workers.room and (waiting or drawn < wanted):
                if waiting:
                    trial = waiting.pop(0)
                else:
                    trial, drawn = self._study.draw(), drawn + 1
                try:
                    running[self._begin(workers, trial)] = trial
                except ConfigurationError as error:  # values that do not go together
                    self._settle(trial, {"state": "failed", "reason": str(error)}, watch)
            if running:
                ticket, found = workers.first(running)
                if isinstance(found, str):
                    found = {"state": "failed", "reason": found}
                self._settle(running.pop(ticket), found, watch)

    def _begin(self, workers: Workers, trial: Trial) -> Any:
        if not self._study.is_whole(trial):
            raise ConfigurationError("the process that drew it was killed before all its values were there")
        place, text = str(self._place / trial.place), self.experiment(trial).model_dump_json()
        return workers.begin(PLAY, (place, text, self._study.storage, NAME, trial.id, self._prune_after))

    def _settle(self, trial: Trial, found: Mapping[str, Any], watch: Settled) -> None:
        self._study.settle(trial, found)
        watch(self._study.trials()[trial.number])


def _report(
    study: Study, place: Path, score_name: str, search: Any, wanted: int, private: PrivateTuning | None
) -> TuneReport:
    return TuneReport(
        path=place,
        score_name=score_name,
        maximise=study.maximise,
        search=tuple(search),
        wanted=wanted,
        trials=tuple(study.trials()),
        importances=study.importances(),
        privacy=None if private is None else private.statement(place),
    )
