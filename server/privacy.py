"""Privacy of a run on the server's side: opened before the first round, and stated from the ledger at any time."""

import logging
from typing import Any

from fedmeta.experiment import Experiment
from fedmeta.params import ParamSpec
from fedmeta.privacy.account import Account
from fedmeta.privacy.ledger import Ledger
from fedmeta.privacy.statement import Facts, statement
from server.rundir import RunDir
from strategies import SAMPLERS
from strategies.directory import Directory
from strategies.private_rounds import PrivateRounds

log = logging.getLogger("fedmeta.server")


def open_privacy(
    experiment: Experiment, spec: ParamSpec, directory: Directory, rundir: RunDir, simulated: bool
) -> PrivateRounds | None:
    """What privacy adds to a run, its ledger in the run directory; None where the experiment has none.

    Raises:
        ConfigurationError: a target that cannot be reached, or a sampler that cannot be accounted.
        LedgerError: the ledger is damaged.
    """
    if experiment.privacy.unit == "none":
        return None
    sampler = SAMPLERS.make(experiment.server.sampling.name, **experiment.server.sampling.parameters)
    population = len(directory.role("train"))
    sampler.check(population)
    private = PrivateRounds(experiment, spec, sampler, population, rundir.ledger(), simulated)
    plan = private.plan
    rundir.write_privacy(Facts.of(plan, population, simulated).to_json())
    log.info(
        "%sprivacy: unit %s, %s noise, %s, %s",
        "simulated " if simulated else "",
        plan.unit.value,
        experiment.privacy.placement,
        plan.event.mechanism,
        plan.event.scheme,
    )
    return private


def privacy_statement(rundir: RunDir) -> dict[str, Any]:
    """What a run has spent and what that means, by its ledger as it stands; empty for a run without privacy."""
    written = rundir.privacy()
    if written is None:
        return {}
    facts = Facts.from_json(written)
    ledger: Ledger = rundir.ledger()
    account = Account(facts.plan(rundir.experiment), ledger, rundir.experiment.privacy.budget)
    return {**statement(rundir.experiment, facts, account), "audit": rundir.audit()}


def in_one_line(said: dict[str, Any]) -> str:
    """The claim of `privacy_statement` as one line for a console."""
    epsilon = "no guarantee" if said["epsilon"] is None else f"epsilon {said['epsilon']:.4g} at delta {said['delta']:g}"
    stopped = f"; stopped: {said['stopped']}" if said.get("stopped") else ""
    return (
        f"{said['title'].lower()}: {epsilon} for one {said['unit']} ({said['adjacency']}, {said['placement']} noise, "
        f"{said['accountant']}){stopped}"
    )
