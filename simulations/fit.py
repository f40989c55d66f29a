"""Whether an experiment's data, partition, model and learner fit together: all that does not is told at once.

Whoever changes `data.name` alone meets several faults, and would else mend them one after the other.
"""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from clients.identity import unfit
from fedmeta.errors import ConfigurationError, FedmetaError
from fedmeta.experiment import Experiment
from fedmeta.learners import check_serves
from fedmeta.workload import Workload, workload_from_json
from server.configuration import load
from simulations.shipped import advising

Source = str | Path | Mapping[str, Any] | Experiment

ELSEWHERE = "nodes"
"""Data that lie on a deployment's nodes, and nowhere to be looked at."""


def load_fitting(source: Source, overrides: Mapping[str, Any], *, data: bool = True) -> Experiment:
    """An experiment that can be: validated, and its parts fit together.

    Args:
        source, overrides: as for `server.configuration.load`.
        data: whether the data set is here to be loaded and divided; a deployment's may lie elsewhere.

    Raises:
        FedmetaError: what does not fit, after the shipped file to start from where another data set is asked for.
    """
    with advising(source, overrides):
        experiment = load(source, overrides)
        check_fit(experiment, data=data)
    return experiment


def load_with_warning(source: Source, overrides: Mapping[str, Any]) -> Experiment:
    """A validated experiment to be looked at; what of it does not fit, as far as no data tell, is a warning."""
    with advising(source, overrides):
        experiment = load(source, overrides)
    try:
        with advising(source, overrides):
            check_fit(experiment, data=False)
    except FedmetaError as error:
        warnings.warn(f"this experiment cannot run: {error}", stacklevel=2)
    return experiment


def check_fit(experiment: Experiment, *, data: bool = True) -> None:
    """Refuse an experiment whose parts do not fit together, before anything is started.

    Raises:
        FedmetaError: the one thing that does not fit, or a ConfigurationError that lists all.
    """
    found = _misfits(workload_from_json(experiment.to_json()), data)
    if len(found) == 1:
        raise found[0]
    if found:
        raise ConfigurationError("\n- ".join([f"{len(found)} things do not fit together:", *map(str, found)]))


def _misfits(workload: Workload, data: bool) -> list[FedmetaError]:
    experiment, found = workload.experiment, list[FedmetaError]()

    def fits(part: Callable[[], Any]) -> bool:
        try:
            part()
        except FedmetaError as error:
            found.append(error)
            return False
        return True

    divided = data and experiment.data.name != ELSEWHERE and fits(lambda: workload.federation)
    if fits(lambda: workload.model) & fits(lambda: check_serves(experiment.learner.name, workload.spec_of_data.task)):
        fits(lambda: workload.learner)
    if divided and found:  # where that alone is wrong, the run's start says it of every client
        client = next((info.id for info in workload.federation.clients if info.role == "train"), None)
        reason = "" if client is None else unfit(workload, client)
        found.extend([ConfigurationError(reason)] if reason else [])
    return found
