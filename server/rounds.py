"""The round loop: from a grid and an experiment to a run directory, the same under every engine."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp import Grid
from torch import Tensor

from fedmeta.code_hash import code_hash, code_path
from fedmeta.experiment import Experiment
from fedmeta.statistics import Evaluation
from fedmeta.wire import read_vector, vector_record
from fedmeta.workload import Workload
from server.attack import clean_model, persistence
from server.callbacks import Callback, Callbacks
from server.detection import detection_of_round, detection_of_run
from server.early_stopping import EarlyStopping
from server.judging import FinalJudge, Unjudged
from server.privacy import open_privacy, privacy_statement
from server.round_record import better, log_troubles, make_record
from server.rundir import RunDir
from server.secure_aggregation import learned
from server.standing import Standing, checkpoint_of, standing_of
from strategies.defence import make_defence
from strategies.directory import Directory, IdentityError, learn_directory
from strategies.holdings import misfits
from strategies.meta import MetaStrategy
from strategies.node_keys import registered_keys
from strategies.private_rounds import PrivateRounds
from strategies.reasons import group_reasons

log = logging.getLogger("fedmeta.server")

Observer = Callable[[dict[str, Any]], None]
"""Called with the record of every finished round, as it stands in metrics.jsonl."""


Prepare = Callable[[PrivateRounds], None]
"""Called once, before the first round of a private run."""


@dataclass(frozen=True)
class RunResult:
    """What a run leaves.

    Attributes:
        path: the run directory.
        rounds: finished rounds.
        vector: `[D]`, the last model.
        model_hash: SHA-256 of its bytes.
        history: one record a round, as in metrics.jsonl.
        results: the final evaluations, as in results.json.
        failed_rounds: rounds that wanted valid updates, or in which the server's step diverged. They gave no new model,
            unless noise is central, which is released whoever came.
    """

    path: Path
    rounds: int
    vector: Tensor
    model_hash: str
    history: tuple[dict[str, Any], ...]
    results: dict[str, Any]
    failed_rounds: tuple[int, ...]

    def evaluation(self, split: str = "test", which: str = "last") -> Evaluation | None:
        """The final evaluation on `test` or `pooled` of the `last` or `best` model; None where there is none."""
        found = (self.results.get(which) or {}).get(split)
        return Evaluation.from_json(found) if found else None


def run_experiment(
    grid: Grid,
    experiment: Experiment,
    rundir: RunDir,
    observers: Sequence[Observer] = (),
    *,
    simulated: bool = False,
    prepare: Prepare | None = None,
    callbacks: Sequence[Callback] = (),
    judge: bool = True,
) -> RunResult:
    """Play all rounds that are still to play, judge the model on the test clients, and write everything down.

    Args:
        grid: any Flower grid whose nodes run our ClientApp.
        experiment: validated.
        rundir: new, or one to continue: a checkpoint in it is where the run goes on.
        observers: called after every round.
        simulated: no one's data are real, so that noise and private draws may come from the seed.
        prepare: called before the first round with what privacy adds to the run: an audit puts its canaries there.
        callbacks: told of rounds, evaluations and the end.
        judge: whether models are judged on test clients in the end; without, the results hold validation alone.

    Raises:
        IdentityError: the clients do not fit the experiment.
        CheckpointError: the checkpoint is damaged or of another experiment.
    """
    hooks = Callbacks(callbacks)
    try:
        result = _run(grid, experiment, rundir, observers, hooks, simulated, prepare, judge)
    except BaseException as error:
        hooks.ended(f"{type(error).__name__}: {error}", None)
        raise
    hooks.ended(result.results.get("stopped"), result.results)
    return result


def _run(
    grid: Grid,
    experiment: Experiment,
    rundir: RunDir,
    observers: Sequence[Observer],
    hooks: Callbacks,
    simulated: bool,
    prepare: Prepare | None,
    judge: bool,
) -> RunResult:
    started = time.monotonic()
    # Norms are reduced in this process: with another number of threads they would differ in the last bit.
    torch.set_num_threads(experiment.engine.threads)
    workload = Workload(experiment)
    strategy = _strategy(grid, workload, rundir, simulated, prepare)
    if strategy.aggregation.promise is not None:
        log.info("secure aggregation: %s", strategy.aggregation.promise)
    strategy.validation.clean = clean = clean_model(experiment, workload.spec)
    standing = standing_of(rundir, workload, strategy, grid)
    early = EarlyStopping(experiment.evaluation, rundir.metrics())
    hooks.rounds, stopped, ending, validated = standing.round, None, early.reason, True
    hooks.started()
    while standing.round < experiment.server.rounds:
        stopped = strategy.exhausted()
        if stopped is not None:
            log.warning("after round %d: %s", standing.round, stopped)
            break
        if ending is not None and validated:
            log.info("after round %d: %s", standing.round, ending)
            break
        final = ending is not None  # asked for after a round that was not validated: the next one is the last
        standing, record = _play(grid, strategy, standing, rundir, final)
        early.see(record)
        for observer in observers:
            observer(record)
        hooks.round_ended(record)
        ending = hooks.asked or early.reason
        validated = final or record["validation"] is not None or not strategy.directory.role("validation")
    ended = FinalJudge(grid, strategy, clean) if judge else Unjudged()
    results = ended.results(standing.round, standing.vector, standing.best, rundir)
    results["seconds"] = time.monotonic() - started
    if strategy.private is not None:
        results["privacy"] = {**privacy_statement(rundir), "stopped": stopped}
    if standing.round < experiment.server.rounds and (stopped or ending):
        results["stopped"] = stopped or ending
    history = tuple(rundir.metrics())
    results |= _over_all_rounds(strategy, history)
    rundir.write_results(results)
    return RunResult(
        path=rundir.path,
        rounds=standing.round,
        vector=standing.vector,
        model_hash=results["model_hash"],
        history=history,
        results=results,
        failed_rounds=tuple(record["round"] for record in history if record["failed_round"]),
    )


def _over_all_rounds(strategy: MetaStrategy, history: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the records of the rounds, taken together, say of the run; no key for what they say nothing of."""
    experiment, detection = strategy.experiment, detection_of_run(history)
    found = {
        "attack_idle_rounds": [record["round"] for record in history if record.get("attack_idle")],
        "secagg": learned(experiment, strategy.aggregation.promise, history),
        "attack_persistence": persistence(history, experiment.attack.stop),
        "detection": None if detection is None else detection.to_json(),
        "configurations": strategy.configurations.in_results(),
    }
    return {key: value for key, value in found.items() if value}


def _strategy(grid: Grid, workload: Workload, rundir: RunDir, simulated: bool, prepare: Prepare | None) -> MetaStrategy:
    """Learn who the clients are, and make the strategy with what privacy adds."""
    experiment = workload.experiment
    told = experiment if simulated else experiment.without_places()
    keys, bound = {} if simulated else registered_keys(grid), rundir.node_keys()
    directory, refused = learn_directory(
        grid, told.to_json(), code_hash(), code_path(), experiment.server.timeout, keys, bound
    )
    if not simulated:  # in a simulation all clients are the experiment's own, which is then wrong as a whole
        unfit = misfits(workload.spec, directory.members, experiment, make_defence(experiment))
        directory, refused = directory.without(unfit), {**refused, **unfit}
        if not directory.members:
            raise IdentityError(f"no node can take part: {'; '.join(group_reasons(refused))}")
    for line in group_reasons(refused):
        log.warning("nodes refused: %s", line)
    _bind(directory, keys, bound, rundir)
    rundir.write_clients([{"client": m.client, "name": m.name, "role": m.role} for m in directory.members])
    private = open_privacy(experiment, workload.spec, directory, rundir, simulated)
    if private is not None and prepare is not None:
        prepare(private)
    return MetaStrategy(experiment, workload.spec, directory, private, told)


def _bind(directory: Directory, keys: Mapping[int, str], bound: Mapping[int, str], rundir: RunDir) -> None:
    """Bind client ids to the keys of their nodes for the rest of the run, and warn of those that have none."""
    known = {member.client: keys[member.node] for member in directory.members if member.node in keys}
    if known:
        rundir.write_node_keys({**bound, **known})
    claims = [member.name for member in directory.members if member.own_data and member.client not in known]
    if claims:
        log.warning(
            "nobody vouches for who %s are: their nodes were not registered under a name, so another may claim to be "
            "them. Use --enable-supernode-auth and `flwr supernode register KEY.pub FEDERATION --name NAME`",
            ", ".join(claims[:5]) + (", ..." if len(claims) > 5 else ""),
        )


def _play(
    grid: Grid, strategy: MetaStrategy, standing: Standing, rundir: RunDir, final: bool = False
) -> tuple[Standing, dict[str, Any]]:
    """One round: train, aggregate, perhaps validate, after the final one always; written down before it is done."""
    started, round, timeout = time.monotonic(), standing.round + 1, strategy.experiment.server.timeout
    arrays = vector_record(standing.vector)
    messages = strategy.configure_train(round, arrays, ConfigRecord(), grid)
    aggregated, _ = strategy.aggregate_train(round, grid.send_and_receive(messages, timeout=timeout))
    report = strategy.report
    assert report is not None
    log_troubles(report)
    arrays = arrays if aggregated is None else aggregated
    vector = read_vector(arrays, strategy.spec.size())
    evaluation, missing = _validate(grid, strategy, round, arrays, final)
    # A mean over other clients than last time would be no comparison; a model that stayed as it was is no new one.
    best = standing.best if missing or aggregated is None else better(standing.best, evaluation, round)
    standing = replace(standing, round=round, vector=vector, best=best)
    record = make_record(report, evaluation, missing, time.monotonic() - started)
    detection = detection_of_round(record)
    record |= {} if detection is None else {"detection": detection}
    if evaluation is not None and strategy.validation.success is not None:
        record["attack_success"] = strategy.validation.success.to_json()
    rundir.append(record)
    checkpoint = checkpoint_of(standing, strategy, grid)
    if best is not None and best["round"] == round:
        rundir.save("best", checkpoint)
    rundir.save("last", checkpoint)
    return standing, record


def _validate(
    grid: Grid, strategy: MetaStrategy, round: int, arrays: ArrayRecord, final: bool
) -> tuple[Evaluation | None, dict[int, str]]:
    """Validation on its schedule and after the last round, where there are validation clients, and who failed at it."""
    experiment = strategy.experiment
    last = final or round == experiment.server.rounds or strategy.exhausted() is not None
    due = round % experiment.evaluation.every == 0 or last
    if not due or not strategy.directory.role("validation"):
        return None, {}
    messages = strategy.configure_evaluate(round, arrays, ConfigRecord(), grid)
    strategy.aggregate_evaluate(round, grid.send_and_receive(messages, timeout=experiment.server.timeout))
    for line in group_reasons(strategy.validation.failed):
        log.warning("round %d, validation failed: %s", round, line)
    return strategy.validation.evaluation, strategy.validation.failed
