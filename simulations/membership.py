"""`fedmeta audit --membership`: shadow federations with and without each client, and LiRA on their adapted losses."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fedmeta.audit.membership import FPRS, auroc_bound, fair_halves, judge, lira, logit_scaled, most_caught
from fedmeta.data.episodes import frozen_episodes
from fedmeta.errors import ConfigurationError
from fedmeta.evaluation import evaluate
from fedmeta.experiment import Experiment
from fedmeta.seeding import SERVER, derive
from fedmeta.tasks import Episode
from fedmeta.workload import Workload
from server.examined import open_to_examine
from server.findings import write_finding
from server.privacy import privacy_statement
from server.report import write_report
from server.rundir import RunDir
from server.words import counted
from simulations.effort import check_counts
from simulations.stage import Stage, open_stage


def audit_membership(
    directory: str | Path,
    *,
    shadows: int = 16,
    tasks: int = 4,
    engine: str = "inline",
    said: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Ask whether the model of an experiment tells which clients trained it, and write `membership.json` in the run.

    Each shadow is a whole federation of the run's experiment in which each training client is in with half a chance;
    absent ones are drawn and never come, so that all else is as in the run. Start, sampling and noise differ from
    shadow to shadow; a client's data and the tasks it draws in a round do not, which makes the attacker a strong one.

    Args:
        directory: of a run: its experiment, its claim, and where the findings go.
        shadows: federations, even; time is so many times the run's training.
        tasks: frozen tasks of each client, of which the adapted query loss is observed.
        engine: `ray` or `inline`.
        said: is told what the audit will cost before it begins, and a line after each shadow.

    Returns:
        As stored: `online` and `offline` (`fedmeta.audit.membership.Attack`), `bound` (None where nothing is claimed
        for a client, with the reason in `no_bound`), and how many trials there were.

    Raises:
        ConfigurationError: an experiment whose shadows would not be like runs of their own, or an odd count.
    """
    check_counts(2, shadows=shadows)
    check_counts(tasks=tasks)
    rundir = open_to_examine(directory)
    workload = Workload(rundir.experiment)
    experiment = workload.experiment
    _check(experiment)
    clients = [info.id for info in workload.federation.clients if info.role == "train"]
    rng = np.random.default_rng(derive(experiment.seed, 0, SERVER, "shadow federations"))
    included = fair_halves(shadows, len(clients), rng)
    episodes = {client: _tasks(workload, client, tasks) for client in clients}
    cost = f"{shadows} trainings of {counted(experiment.server.rounds, 'round')} each"
    said(f"{shadows} shadow federations of {counted(len(clients), 'client')}: {cost}")
    losses = np.zeros((shadows, len(clients), tasks))
    for shadow, there in enumerate(included):
        begun = time.perf_counter()
        absent = frozenset(client for client, within in zip(clients, there, strict=True) if not within)
        seed = derive(experiment.seed, shadow, SERVER, "shadow") % 2**31
        losses[shadow] = _shadow_losses(experiment, engine, seed, absent, episodes)
        said(f"shadow {shadow + 1} of {shadows}: {time.perf_counter() - begun:.1f} s")
    found = {"shadows": shadows, "clients": len(clients), "tasks": tasks, **_judged(rundir, losses, included, rng)}
    write_finding(rundir, "membership", found)
    write_report(rundir, None)
    return found


def _judged(rundir: RunDir, losses: np.ndarray, included: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    """What losses `[shadows, clients, tasks]` tell of who was in, `[shadows, clients]`, beside the run's claim."""
    claim, why = _claim(rundir)
    online, offline = lira(logit_scaled(losses).mean(axis=2), included, rng)
    delta = 0.0 if claim is None else claim["delta"]
    return {
        "members": int(included.sum()),
        "others": int((~included).sum()),
        "fprs": list(FPRS),
        "online": judge(online, included, delta, rng).to_json(),
        "offline": judge(offline, included, delta, rng).to_json(),
        "loss_in": float(losses[included].mean()),
        "loss_out": float(losses[~included].mean()),
        "bound": claim,
        "no_bound": why,
    }


def exceeds(found: dict[str, Any]) -> bool:
    """Whether error rates refute the claim."""
    claim = found["bound"]
    return claim is not None and max(found[way]["shown"] for way in ("online", "offline")) > claim["epsilon"]


def _check(experiment: Experiment) -> None:
    privacy, reason = experiment.privacy, None
    if experiment.data.name == "nodes":
        reason = "the clients' data are on their nodes, and no shadow federation can train on them"
    elif privacy.unit != "none" and privacy.placement != "central":
        reason = (
            f"privacy.placement = '{privacy.placement}': in a simulation clients draw their noise from the seed that "
            "divides their data, so that all shadows would have the same; audit it with placement = 'central'"
        )
    elif experiment.server.root != "none":
        reason = "server.root: the server's own tasks would be other ones in every shadow; audit it with root = 'none'"
    elif experiment.attack.method.name != "none":
        reason = "attack.method: malicious clients are no members to be told apart; audit it with attack.method = none"
    if reason is not None:
        raise ConfigurationError(f"membership cannot be audited here: {reason}")


def _tasks(workload: Workload, client: int, count: int) -> list[Episode]:
    """A client's own tasks, drawn as in training, the same for all shadows."""
    seed = workload.experiment.evaluation.seed
    return frozen_episodes(workload.source(client), workload.training_shape, count, seed, f"membership/{client}")


def _shadow_losses(
    experiment: Experiment, engine: str, seed: int, absent: frozenset[int], episodes: dict[int, list[Episode]]
) -> np.ndarray:
    """Train one shadow federation and judge it on every client's tasks: losses `[clients, tasks]`."""
    with open_stage(experiment, engine, seed=seed, absent=absent) as stage:
        # A start of its own: everybody is sent the start, but an attacker's shadows need not share it.
        vector = Workload(stage.strategy.experiment).initial_vector()
        for round in range(1, experiment.server.rounds + 1):
            if stage.strategy.exhausted() is not None:
                break
            vector = stage.play(round, vector).after
        return _losses(stage, vector, episodes)


def _losses(stage: Stage, vector: Tensor, episodes: dict[int, list[Episode]]) -> np.ndarray:
    workload = stage.workload
    spec, steps = workload.spec, (workload.learner.default_steps,)
    own = spec.unflatten(workload.first_personal(vector), "personal")
    params = {**workload.initial, **spec.unflatten(vector), **own}
    every = [episode for drawn in episodes.values() for episode in drawn]
    found = evaluate(workload.learner, params, every, steps).loss[0].double().numpy()
    return found.reshape(len(episodes), -1)


def _claim(rundir: RunDir) -> tuple[dict[str, Any] | None, str]:
    """Epsilon and delta for a client, and what they allow; or why there is no such claim."""
    said = privacy_statement(rundir)
    if not said:
        return None, "the run has no privacy"
    if said["unit"] != "client":
        return None, f"the claim is for one {said['unit']}, and a client's membership is that of all it has"
    if said["epsilon"] is None:
        return None, "the run claims nothing"
    epsilon, delta = float(said["epsilon"]), float(said["delta"])
    allowed = [float(most_caught(fpr, epsilon, delta)) for fpr in FPRS]
    return {"epsilon": epsilon, "delta": delta, "tpr": allowed, "auroc": auroc_bound(epsilon, delta)}, ""
