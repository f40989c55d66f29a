"""What must be said beside a matrix: how its cells were made comparable, and where the file departs from that."""

from collections.abc import Iterable, Sequence

from fedmeta.experiment import Experiment
from fedmeta.paired import ENUMERATED, least_p
from fedmeta.workload import Workload
from server.words import counted
from simulations.bench.cells import Plan
from simulations.bench.grid_file import NONE
from simulations.bench.outcome import Outcome
from strategies.group_defence import group_promise

CLAIM_SEEDS, CLAIM_EPISODES = 10, 600
"""Below so many paired seeds, or test episodes a seed, a matrix shows the order of size and supports no claim."""

COVERAGE = "some 76 % (3 seeds), 84 % (5), 89 % (10), 92 % (20)"
"""Of the intervals of `fedmeta.paired.seed_interval`, measured in its tests."""

DISTANCE_RULES = frozenset(
    {
        "krum",
        "multi_krum",
        "bulyan",
        "geometric_median",
        "centered_clipping",
        "dnc",
        "norm_bound",
        "nnm",
        "arc",
        "flame",
    }
)
"""Rules and pre-aggregators that compare lengths or distances, which noise of the clients lengthens."""


def statements(plan: Plan, outcomes: Sequence[Outcome]) -> list[str]:
    """One sentence or two each, in the order in which a reviewer asks."""
    runs = [cell.experiment for cell in plan.runs if cell.experiment is not None]
    return [
        *_completed(plan),
        _server_step(plan, runs[0]),
        *_other_steps(plan),
        _assumed(plan, outcomes),
        _pairs(plan),
        _data(plan, runs),
        "Clients' own words count for nothing: every update weighs the same (server.weighting = 'uniform').",
        _checkpoint(plan),
        _lift(plan, runs),
        *_intervals(plan, runs),
        *_groups(runs),
        *_noise(runs),
    ]


def _completed(plan: Plan) -> list[str]:
    added = plan.grid.added
    if not added:
        return []
    were = "was" if len(added) == 1 else "were"
    return [f"{' and '.join(added)} {were} not in the file and added: every matrix holds them."]


def _server_step(plan: Plan, experiment: Experiment) -> str:
    optimiser = experiment.server.optimiser
    given = ", ".join(f"{key} = {value}" for key, value in optimiser.parameters.items())
    changed = [
        setup.label for setup in plan.grid.setups if any(key.startswith("server.optimiser") for key in setup.set)
    ]
    but = f" (set-up {', '.join(changed)} changes it for all of its cells)" if changed else ""
    return f"All defences take the same server step: {optimiser.name} with {given}, {experiment.server.schedule}{but}."


def _other_steps(plan: Plan) -> list[str]:
    """Where the file gives a defence a step of its own."""
    said = [
        f"NOT EQUAL: defence '{entry.label}' takes server.optimiser.lr = {entry.server_lr:g}, as the file says."
        for entry in plan.grid.defences
        if entry.server_lr is not None
    ]
    own = [
        f"NOT EQUAL: defence '{entry.label}' multiplies its result by server_lr = "
        f"{entry.aggregator.parameters['server_lr']:g}."
        for entry in plan.grid.defences
        if entry.aggregator.parameters.get("server_lr", 1.0) != 1.0
    ]
    return said + own


def _assumed(plan: Plan, outcomes: Sequence[Outcome]) -> str:
    """The f of the rules apart from the m of the rounds."""
    assumed = sorted(
        {
            int(component.parameters["f"])
            for entry in plan.grid.defences
            for component in (*entry.preaggregators, entry.aggregator)
            if component.parameters.get("f") is not None
        }
    )
    rules = f"Rules assume f = {', '.join(map(str, assumed))}" if assumed else "No rule assumes a number of attackers"
    attacked = [o for o in outcomes if o.state == "done" and o.cell.attack != plan.unattacked]
    if not attacked:
        return f"{rules}; the true number is the threat model's, and no rule is told it."
    mean = sum(outcome.values["attackers"] for outcome in attacked) / len(attacked)
    above = [outcome.values["above_f"] for outcome in attacked if "above_f" in outcome.values]
    share = f"; {100 * sum(above) / len(above):.0f} % of the rounds had more than the rule assumed" if above else ""
    return (
        f"{rules}; no rule is told the true number, which was {mean:.1f} malicious clients a round in the mean{share}."
    )


def _pairs(plan: Plan) -> str:
    return (
        f"Seeds {', '.join(map(str, plan.grid.seeds))} are paired: with one seed all attacks and defences have the "
        "same initial model, the same clients in each round, the same tasks, and the same malicious clients."
    )


def _data(plan: Plan, runs: Iterable[Experiment]) -> str:
    root = any(experiment.server.root == "validation" for experiment in runs)
    trusted = (
        " fltrust's root tasks come from validation clients too, which the other rules do not have." if root else ""
    )
    chosen = "; the best round is chosen on validation clients" if plan.grid.measure.checkpoint == "best" else ""
    return (
        "Test clients, their classes and their episodes take no part in training, in any defence, or in any choice"
        f"{chosen}.{trusted}"
    )


def _checkpoint(plan: Plan) -> str:
    if plan.grid.measure.checkpoint == "last":
        return "The model of the last round counts, in every cell: nobody chooses a round."
    return (
        "The model of the round that validation clients found best counts, the last one where there is none; lifts "
        "are over the last model of the run without attack."
    )


def _lift(plan: Plan, runs: Iterable[Experiment]) -> str:
    poisoned = {e.attack.trigger_in for e in runs if e.attack.method.name != NONE} & {"support", "both"}
    support = "the support is clean"
    if poisoned:
        support += f", but where attack.trigger_in = {' or '.join(sorted(poisoned))} puts the trigger on the target's"
    return (
        "Lift compares with the run of the same defence and seed without attack, on the same frozen episodes with the "
        f"same trigger; where one number is shown, it is after {plan.grid.measure.step} adaptation steps; {support}."
    )


def _intervals(plan: Plan, runs: Sequence[Experiment]) -> list[str]:
    seeds, judged = len(plan.grid.seeds), runs[0].evaluation
    episodes = judged.pooled_episodes if plan.grid.measure.split == "pooled" else judged.episodes
    drawn = "all resamples are listed" if seeds <= ENUMERATED else f"{plan.grid.measure.resamples} resamples"
    said = [
        f"Intervals are 95 % percentile intervals that resample whole seeds ({drawn}). All seeds are judged on the "
        "same frozen episodes, so that intervals speak of training, not of other episodes. Those of few seeds are too "
        f"narrow: with normal values they hold the mean in {COVERAGE} of all cases.",
        "Tests are Wilcoxon's signed ranks over seeds, with Holm's correction; with as many seeds as here no p is "
        f"below {least_p(seeds):.2g}.",
    ]
    if seeds < CLAIM_SEEDS or episodes < CLAIM_EPISODES:
        said.append(
            f"{counted(seeds, 'seed')} and {counted(episodes, 'test episode')} show the order of size: a claim "
            f"that one defence beats another wants {CLAIM_SEEDS} and {CLAIM_EPISODES}."
        )
    return said


def _groups(runs: Iterable[Experiment]) -> list[str]:
    """What groups leave of a rule's promise: how many are clean, and how many bad ones it bears."""
    said = dict[str, None]()
    for experiment in runs:
        clients = experiment.server.sampling.parameters.get("clients")
        promise = group_promise(experiment, clients) if experiment.secagg.enabled else None
        if promise is not None:
            said[f"Under secure aggregation rules see means of groups. {promise}."] = None
    return list(said)


def _noise(runs: Iterable[Experiment]) -> list[str]:
    """What clients' noise does to rules that compare distances."""
    said = dict[str, None]()
    for experiment in runs:
        privacy = experiment.privacy
        if privacy.unit != "client" or privacy.placement != "local" or privacy.noise_multiplier is None:
            continue
        server = experiment.server
        rules = [c.name for c in (*server.preaggregators, server.aggregator) if c.name in DISTANCE_RULES]
        size = Workload(experiment).spec.size()
        added = 2 * size * (privacy.noise_multiplier * privacy.clip_norm) ** 2
        for rule in rules:
            said[
                f"Noise against signal, {rule}: clients' noise adds 2 D sigma^2 = {added:.3g} to every squared "
                "distance (D = "
                f"{size}), between updates clipped to {privacy.clip_norm:g}, of which two are at most "
                f"{(2 * privacy.clip_norm) ** 2:.3g} apart, squared."
            ] = None
    return list(said)
