"""The omniscient attack of an experiment: the grid that carries it out, and what it knows of the server's defence."""

from flwr.serverapp import Grid
from torch import Tensor

from fedmeta.attacks import ATTACKS
from fedmeta.attacks.base import Verdict
from fedmeta.attacks.threat import is_omniscient, malicious_clients
from fedmeta.errors import ConfigurationError
from fedmeta.experiment import Experiment
from fedmeta.workload import Workload
from simulations.adversarial_grid import AdversarialGrid, Defence
from strategies.aggregation import RoundContext, Rule
from strategies.defence import make_defence


def attacked(grid: Grid, experiment: Experiment) -> Grid:
    """The grid of an experiment: with an omniscient attacker around it where the experiment has one."""
    if not is_omniscient(experiment):
        return grid
    attack = experiment.attack
    method = ATTACKS.make(attack.method.name, where="attack.method", **attack.method.parameters)
    check_known_defence(experiment)
    train = [client.id for client in Workload(experiment).federation.clients if client.role == "train"]
    return AdversarialGrid(
        grid,
        method,
        malicious_clients(experiment, train),
        start=attack.start,
        stop=attack.stop,
        seed=experiment.seed,
        defence=defence_of(experiment) if getattr(method, "knows_rule", False) else None,
    )


def check_known_defence(experiment: Experiment) -> None:
    """Refuse an omniscient attack that would try out another defence than the server's.

    Raises:
        ConfigurationError: the server's rule cannot be tried out by anybody else.
    """
    attack = experiment.attack.method
    made = ATTACKS.make(attack.name, where="attack.method", **attack.parameters)
    if not is_omniscient(experiment) or not getattr(made, "knows_rule", False):
        return
    if experiment.privacy.unit != "none" and experiment.privacy.placement == "central":
        why = "what the server clips and noises is no rule to try out"
    else:
        rule = make_defence(experiment).aggregator
        needed = set(rule.requires.context) & {"root_update", "probe"} if isinstance(rule, Rule) else set()
        if not needed:
            return
        why = f"server.aggregator = '{experiment.server.aggregator.name}' needs what only the server has"
    raise ConfigurationError(
        f"attack.method = '{experiment.attack.method.name}' tries the server's pipeline out, and {why}: set "
        "attack.method.knows_rule = false, or choose another aggregator"
    )


def defence_of(experiment: Experiment) -> Defence:
    """What the server of an experiment makes of updates; rules that follow clients over rounds start afresh."""
    pipeline, spec = make_defence(experiment), Workload(experiment).spec

    def verdict(rows: Tensor, model: Tensor, round: int) -> Verdict:
        found = pipeline(rows.to(model.dtype), RoundContext(round=round, model=model, spec=spec))
        return Verdict(found.vector, found.flagged)

    return verdict
