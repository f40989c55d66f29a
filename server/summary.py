"""An experiment in one line: what learns on what, who attacks it, what defends it, and what the server sees."""

from fedmeta.attacks import ATTACKS
from fedmeta.attacks.threat import is_attacked
from fedmeta.experiment import Experiment


def in_one_line(experiment: Experiment) -> str:
    """For the head of a run and of its report.

    >>> in_one_line(Experiment())
    'protonet with conv4 on hershey'
    >>> in_one_line(Experiment(client={"precision": "bf16"}))
    'protonet with conv4 on hershey; trained in bf16'
    """
    parts = [f"{experiment.learner.name} with {experiment.model.name} on {experiment.data.name}"]
    if experiment.client.precision != "float32":
        parts.append(f"trained in {experiment.client.precision}")
    if experiment.client.adversarial.name != "none":
        parts.append(_adversarial(experiment))
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


def _adversarial(experiment: Experiment) -> str:
    chosen = experiment.client.adversarial
    given = chosen.parameters
    who = "" if given.get("share", 1.0) == 1.0 else f" by {100 * given['share']:g} % of the clients"
    return f"trained adversarially ({chosen.name}, {given['norm']} eps {given['eps']:g}){who}"


def _attack(experiment: Experiment) -> str:
    attack = experiment.attack
    if ATTACKS.get(attack.method.name).kind == "deployment":  # type: ignore[attr-defined]
        return f"{attack.method.name} where a victim adapts"
    return f"{attack.method.name} by {100 * attack.fraction:g} % of the training clients"
