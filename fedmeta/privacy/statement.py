"""What a run's privacy amounts to, in words and numbers: the claim, against whom it holds, what it does not cover."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedmeta.errors import ConfigurationError
from fedmeta.experiment import Experiment
from fedmeta.privacy.account import Account
from fedmeta.privacy.accounting import Bound, bounds, contents_epsilon, tightest
from fedmeta.privacy.distributed.assumptions import colluders_assumed, survivors_needed
from fedmeta.privacy.events import Event, Gaussian
from fedmeta.privacy.plan import Plan
from fedmeta.privacy.schemes import NoAmplification
from fedmeta.privacy.units import Adjacency, Unit

SIMULATED = "simulated: no privacy was needed or given"


@dataclass(frozen=True)
class Facts:
    """What a claim rests on beside the experiment, known when a run starts.

    Attributes:
        event: of one round, as the sampler and the unit make it.
        population: training clients.
        simulated: noise and draws came from the seed.
    """

    event: Event
    population: int
    simulated: bool

    @classmethod
    def of(cls, plan: Plan, population: int, simulated: bool) -> "Facts":
        """Of a plan."""
        return cls(plan.event, population, simulated)

    def plan(self, experiment: Experiment) -> Plan:
        """The plan again, without its calibration."""
        privacy = experiment.privacy
        local = privacy.placement != "central"
        return Plan(Unit(privacy.unit), local, self.event, privacy.delta, privacy.accountant)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads."""
        return {"event": self.event.to_json(), "population": self.population, "simulated": self.simulated}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Facts":
        """The inverse of `to_json`."""
        return cls(Event.from_json(data["event"]), int(data["population"]), bool(data["simulated"]))


def statement(experiment: Experiment, facts: Facts, account: Account) -> dict[str, Any]:
    """The privacy report of a run as JSON values, from its ledger alone: reading changes nothing.

    `epsilon` is None where there is no guarantee, and `no_bound` says why: no noise, or an accountant that is no longer
    installed, or whose arithmetic does not hold what was spent.
    """
    plan, ledger = account.plan, account.ledger
    bound, client, no_bound = _spent(account)
    events = ledger.events(plan.unit, client)
    return {
        "title": "Simulated privacy" if facts.simulated else "Privacy",
        "simulated": facts.simulated,
        "epsilon": _number(bound.epsilon),
        "no_bound": no_bound,
        "delta": bound.delta,
        "delta_too_large": plan.unit is Unit.CLIENT and bound.delta >= 1 / max(facts.population, 1),
        "accountant": bound.accountant,
        "version": bound.version,
        "bounds": {
            verdict.accountant: _number(verdict.bound.epsilon) if verdict.bound is not None else verdict.refusal
            for verdict in bounds(events, plan.delta)
        },
        "unit": plan.unit.value,
        "unit_in_words": _unit(experiment),
        "adjacency": plan.event.neighbours.value,
        "placement": experiment.privacy.placement,
        "trust": _trust(experiment, facts),
        "sampler": str(plan.event.scheme),
        "enforced": _enforced(plan, facts),
        "mechanism": str(plan.event.mechanism),
        "noise_multiplier": plan.noise_multiplier,
        "clip_norm": experiment.privacy.clip_norm,
        "clipping": experiment.privacy.clipping,
        "analysis": plan.event.mechanism.analysis,
        "exactness": plan.event.mechanism.exactness,
        "survivors": survivors_needed(experiment) if experiment.privacy.placement == "distributed" else None,
        "releases": sum(event.count for event in events),
        "rounds": len({entry.round for entry in ledger.entries if entry.client == client}),
        "unreleased": ledger.unreleased,
        "client": client,
        "other_unit": _other_unit(experiment, account, events),
        "not_covered": _not_covered(experiment),
        "budget": experiment.privacy.budget,
    }


def _spent(account: Account) -> tuple[Bound, int | None, str]:
    """What was spent most, by whom, and why there is no bound of it; a report of a run that is over must not fail."""
    plan = account.plan
    try:
        bound, client = account.spent()
    except ConfigurationError as error:
        # RDP bounds whatever clients release by themselves.
        client = account.spent("rdp")[1] if plan.local else None
        return Bound(math.inf, plan.delta, plan.accountant, ""), client, str(error)
    return bound, client, "" if math.isfinite(bound.epsilon) else "there was no noise"


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _unit(experiment: Experiment) -> str:
    if experiment.privacy.unit == "client":
        return "all data of one client"
    if experiment.privacy.unit == "example":
        return "one example, exchanged for another of its class; how many examples a class has is public"
    if experiment.task.kind == "own":
        return "one client's data, which are its one task"
    if experiment.privacy.task_pool is not None:
        return f"one of the {experiment.privacy.task_pool} tasks of a client's own pool; tasks may share examples"
    return "one episode at every step of its client; an example that is in more than one of them is not covered"


def _trust(experiment: Experiment, facts: Facts) -> str:
    if facts.simulated:
        return (
            f"{SIMULATED}. Noise and draws follow from the seed; the figures are those that a deployment with the same "
            "settings would have"
        )
    if experiment.privacy.placement == "local":
        return (
            "each client adds its noise before anything leaves it: the guarantee holds against the server, the other "
            "clients and all who see the models. The client's own code and machine are trusted"
        )
    if experiment.privacy.placement == "distributed":
        return _trust_distributed(experiment)
    extra = " Clients are trusted to clip each task's gradient." if experiment.privacy.unit == "task" else ""
    return (
        "the server sees every update and who takes part, and is trusted with both; the guarantee holds against those "
        f"who see the models of all rounds, and do not see who took part.{extra}"
    )


def _trust_distributed(experiment: Experiment) -> str:
    needed, colluders = survivors_needed(experiment), colluders_assumed(experiment)
    return (
        "each client adds a share of the noise, and secure aggregation shows the server sums over groups only: the "
        "guarantee holds against the server, the other clients and all who see the models, while at most "
        f"{colluders} of the clients in a sum tell their noise or leave it out, and no sum of fewer than {needed} is "
        f"unmasked. The secure aggregation is one against a server that is {experiment.secagg.adversary}; that no "
        "smaller sum is unmasked counts on one that tells all clients the same survivors. The client's own code and "
        "machine are trusted"
    )


def _enforced(plan: Plan, facts: Facts) -> str:
    if isinstance(plan.event.scheme, NoAmplification):
        return "nothing is assumed of the draws of clients or tasks"
    whose = "from the seed" if facts.simulated else "from the operating system's generator"
    return f"drawn by the code of this run, {whose}; not assumed"


def _other_unit(experiment: Experiment, account: Account, events: Sequence[Event]) -> dict[str, Any]:
    """Task and client level side by side: what the same releases mean for the other unit."""
    plan, privacy, client = account.plan, experiment.privacy, experiment.client
    if plan.unit is Unit.CLIENT:
        return {
            "unit": "task",
            "epsilon": _number(contents_epsilon(events, plan.delta)),
            "why": "another task in its place changes its client's contribution by up to 2 C, whoever takes part",
        }
    if plan.unit is not Unit.TASK:
        return {"unit": "client", "epsilon": None, "why": "a client's many examples together are not protected"}
    tasks = client.tasks_per_step if privacy.task_pool is None else privacy.task_pool
    whole = [
        replace(
            event,
            mechanism=Gaussian(event.mechanism.noise_multiplier / tasks),
            scheme=NoAmplification(),
            adjacency=Adjacency.REPLACE_ONE,
            count=event.count,
        )
        for event in events
    ]
    return {
        "unit": "client",
        "epsilon": _number(tightest(whole, plan.delta).epsilon),
        "why": f"a client's {tasks} clipped task gradients may all move together, and no draw is counted on",
    }


_VALIDATION = {
    "none": "what validation clients answer: their data take no part in training",
    "validation": "validation clients at all: the server trains on their data (server.root) without clip or noise",
}


def _not_covered(experiment: Experiment) -> list[str]:
    found = [
        "how many training clients there are",
        "what test clients answer: their data take no part in training",
        _VALIDATION[experiment.server.root],
        "names, roles and failures that clients report, and that a client answers at all",
        "choices made by looking at results: learning rates, rounds, the best of several runs",
    ]
    if experiment.privacy.placement == "central":
        found.append("who took part in a round (metrics.jsonl): publish the models, not the run directory")
    if experiment.privacy.placement == "distributed":
        found.append("who took part in a round, which the server sees")
    if experiment.privacy.share_metrics:
        found.append("losses, scores and clipped shares of training clients, which privacy.share_metrics sends")
    if experiment.sharing.personal:
        found.append("personal parameters, which stay on their client")
    return found
