"""Tuning a private run: how many trials there are is drawn, and what the best of them costs is written down."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedmeta.errors import ConfigurationError
from fedmeta.experiment import Experiment
from fedmeta.privacy.accounting import tightest
from fedmeta.privacy.events import Event
from fedmeta.privacy.ledger import Entry, Ledger
from fedmeta.privacy.schemes import NoAmplification
from fedmeta.privacy.selection import BestOf, Law
from fedmeta.privacy.units import Unit
from fedmeta.seeding import SERVER, numpy_generator
from fedmeta.workload import Workload
from server.configuration import load
from server.rundir import LEDGER
from strategies import SAMPLERS
from strategies.private_rounds import make_plan

ACCOUNTANT = "rdp"
"""The one that bounds the best of many; its figures for other ways of tuning stand beside."""


@dataclass(frozen=True)
class PrivateTuning:
    """The best of a random number of private runs.

    Attributes:
        law: of the number of trials.
        drawn: the number.
        unit: whose privacy.
        run: what one trial releases, at most.
        delta: of the guarantee.
    """

    law: Law
    drawn: int
    unit: Unit
    run: Event
    delta: float

    @property
    def event(self) -> Event:
        """What publishing the best of them releases."""
        return Event(BestOf(self.law, (self.run,)), NoAmplification(), self.run.neighbours)

    def reserve(self, folder: Path) -> None:
        """Write it into the study's ledger, before the first trial; once, however often the study goes on."""
        ledger = Ledger(folder / LEDGER)
        if not ledger.entries:
            ledger.reserve([Entry(1, self.unit, self.event)])

    def release(self, folder: Path) -> None:
        """Note that the best was chosen."""
        ledger = Ledger(folder / LEDGER)
        if ledger.unreleased:
            ledger.release(range(len(ledger.entries)))

    def statement(self, folder: Path) -> dict[str, Any]:
        """What tuning has spent, by the study's ledger, beside what other ways of it would, as JSON values."""
        events = Ledger(folder / LEDGER).events(self.unit)
        all_runs = [replace(self.run, count=self.run.count * max(self.drawn, 1))]
        return {
            "title": "Simulated privacy of tuning",
            "epsilon": _epsilon(events, self.delta),
            "delta": self.delta,
            "accountant": ACCOUNTANT,
            "unit": self.unit.value,
            "adjacency": self.run.neighbours.value,
            "law": str(self.law),
            "drawn": self.drawn,
            "one_run": _epsilon([self.run], self.delta),
            "all_runs": _epsilon(all_runs, self.delta),
            "run_again": _epsilon([*events, self.run], self.delta),
            "covers": "the model, the settings and the score of the best trial, chosen on validation clients, whose "
            "data take no part in training",
            "not_covered": [
                "how many trials there were, the other trials and this folder: publish the best trial's model alone",
                "another run with the settings that were found: it costs `run_again` in all",
            ],
            "simulated": "the number of trials, their settings and all noise follow from the seed",
        }


def private_tuning(base: Experiment, ends: Iterable[Experiment], law: Law, seed: int) -> PrivateTuning:
    """Draw the number of trials, and check that all of them release the same.

    Args:
        base: a private experiment.
        ends: experiments at the ends of what is searched.
        law: of the number of trials.
        seed: of the draw; a simulation's only.

    Raises:
        ConfigurationError: trials that the server sees, that would divide the data in different ways, or that release
            different things, which this law does not bear.
    """
    if base.privacy.placement != "central":
        raise ConfigurationError(
            f"privacy.placement = '{base.privacy.placement}': the guarantee is against the server, which sees every "
            "trial, so that the best of many costs as much as all. Tune with central noise, or without privacy on "
            "data that are public"
        )
    one_division(base)
    run = run_event(base)
    for end in ends:
        if run_event(end) != run:
            raise ConfigurationError(
                f"a searched key changes what a run releases ({run_event(end)} where the experiment has {run}): the "
                "accounting of the best needs trials that are alike. Search other keys"
            )
    drawn = law.draw(numpy_generator(seed, 0, SERVER, "number of trials"))
    return PrivateTuning(law, drawn, Unit(base.privacy.unit), run, base.privacy.delta)


def one_division(base: Experiment) -> Experiment:
    """The experiment with the seed of its division written down, so that trials of other seeds divide the data alike.

    Else a client that judges one trial would train in the next, and its data would decide, without any noise, which
    trial is published.

    Raises:
        ConfigurationError: a partition that cannot be given a seed of its own.
    """
    given = base.partition.parameters
    if given.get("seed") is not None:
        return base
    if "seed" not in given:
        raise ConfigurationError(
            f"partition.name = '{base.partition.name}' has no seed of its own, and private trials need a seed each on "
            "one division of the data: give the partition a parameter `seed`"
        )
    return load(base, {"partition.seed": base.seed})


def run_event(experiment: Experiment) -> Event:
    """What all rounds of a run release."""
    sampling = experiment.server.sampling
    sampler = SAMPLERS.make(sampling.name, **sampling.parameters)
    population = sum(client.role == "train" for client in Workload(experiment).federation.clients)
    event = make_plan(experiment, sampler, population).event
    return replace(event, count=event.count * experiment.server.rounds)


def _epsilon(events: Iterable[Event], delta: float) -> float | None:
    found = tightest(events, delta, ACCOUNTANT).epsilon
    return found if math.isfinite(found) else None
