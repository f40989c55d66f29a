"""An experiment in one line: what learns on what, who attacks it, what defends it, and what the server sees."""

from fedmeta.attacks import ATTACKS
from fedmeta.attacks.threat import is_attacked
from fedmeta.experiment import Experiment


def in_one_line(experiment: Experiment) -> str:
    """For the head of a run and of its report.

    >>> in_one_line(Experiment())
    'protonet with conv4 on hershey'
    """
    parts = [f"{experiment.learner.name} with {experiment.model.name} on {experiment.data.name}"]
    if is_attacked(experiment):
        parts.append(_attack(experiment))
    chain = [component.name for component in (*experiment.server.preaggregators, experiment.server.aggregator)]
    if chain != ["mean"] or is_attacked(experiment):
        parts.append("aggregator " + ", then ".join(chain))
    secagg = experiment.secagg
    if secagg.enabled:
        groups = "one group" if secagg.group_size is None else f"groups of {secagg.group_size}"
        parts.append(f"secure aggregation in {groups}")
    return "; ".join(parts)


def _attack(experiment: Experiment) -> str:
    attack = experiment.attack
    if ATTACKS.get(attack.method.name).kind == "deployment":  # type: ignore[attr-defined]
        return f"{attack.method.name} where a victim adapts"
    return f"{attack.method.name} by {100 * attack.fraction:g} % of the training clients"
