"""`fedmeta audit`: a private experiment played with canary clients, to see what its releases tell of who took part."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedmeta.audit.canaries import AuditedGaussian, Canaries
from fedmeta.audit.gaussian import mu_bound_epsilon, one_shot_estimate
from fedmeta.audit.one_run import one_run_bound
from fedmeta.errors import ConfigurationError
from fedmeta.experiment import Experiment
from fedmeta.privacy.schemes import NoAmplification, Poisson
from fedmeta.seeding import SERVER, derive
from server.configuration import load
from server.report import write_report
from server.rounds import Observer
from server.rundir import RunDir
from simulations.launch import open_run, play
from strategies.private_rounds import PrivateRounds


def audit(
    target: str | Path | Mapping[str, Any] | Experiment,
    *,
    canaries: int = 500,
    engine: str = "ray",
    overrides: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    beta: float = 0.05,
    observers: Sequence[Observer] = (),
) -> dict[str, Any]:
    """Audit the central noise of an experiment with clients as the unit.

    The experiment is played once more, in a directory of its own. Canary clients of norm C in random directions, each
    in or out by a fair coin, take part like any client; an observer of all releases then guesses which were in.

    Args:
        target: a finished run's directory, in which the findings are written too, or an experiment.
        canaries: made-up clients, 20 <= canaries <= parameters of the model.
        engine: `ray` or `inline`.
        overrides: dotted key -> value.
        out: directory of the audited run; None for a fresh one.
        beta: probability that a bound is wrong, in (0, 1).
        observers: called after every round.

    Returns:
        `claim` (None where nothing is claimed), `one_run` (a LowerBound), `by_rates` (a bound, if the trade-off is
        Gaussian), `estimate` (the one-shot estimate, not a bound), `canaries`, `rounds`, `path`.

    Raises:
        ConfigurationError: another unit, placement or sampling, for which canaries are not clients like any other.
    """
    audited = Path(target) if isinstance(target, (str, Path)) and Path(target).is_dir() else None
    original = RunDir.open(audited, exclusive=False) if audited is not None else None
    experiment = load(original.experiment if original is not None else target, overrides)
    _check(experiment)
    planted: list[Canaries] = []

    def plant(private: PrivateRounds) -> None:
        planted.append(_plant(private, canaries, derive(experiment.seed, 0, SERVER, "canaries")))

    result = play(open_run(experiment, out=out), engine, observers, plant)
    found = {
        **_findings(planted[0], result.results["privacy"], beta),
        "rounds": result.rounds,
        "path": str(result.path),
    }
    for rundir in filter(None, (RunDir.open(result.path, exclusive=False), original)):
        rundir.write_audit(found)
        write_report(rundir, None)
    return found


def _check(experiment: Experiment) -> None:
    if experiment.privacy.unit != "client" or experiment.privacy.placement != "central":
        raise ConfigurationError(
            f"an audit needs privacy.unit = 'client' and placement = 'central', not '{experiment.privacy.unit}' and "
            f"'{experiment.privacy.placement}': canaries are made-up clients whose updates the server clips and noises"
        )


def _plant(private: PrivateRounds, count: int, seed: int) -> Canaries:
    """Put canaries into a run's mechanism."""
    scheme = private.plan.event.scheme
    if not isinstance(scheme, (Poisson, NoAmplification)):
        raise ConfigurationError(
            f"canaries cannot take part like clients under sampling '{scheme}': use poisson, or all clients"
        )
    assert private.central is not None
    found = Canaries.random(count, private.size, private.sampler.marginal(private.population), seed)
    private.central = AuditedGaussian.around(private.central, found)
    return found


def _findings(canaries: Canaries, said: Mapping[str, Any], beta: float) -> dict[str, Any]:
    scores, included, delta = canaries.scores.numpy(), canaries.included.numpy(), float(said["delta"])
    cosines = canaries.cosines.numpy()
    return {
        "claim": said["epsilon"],
        "delta": delta,
        "canaries": len(scores),
        "one_run": asdict(one_run_bound(scores, included, delta, beta)),
        "by_rates": mu_bound_epsilon(scores[included], scores[~included], delta, beta),
        "estimate": one_shot_estimate(cosines[included], canaries.directions.shape[1], delta, cosines[~included]),
    }
