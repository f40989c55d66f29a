"""`fedmeta attack`: how many queries a finished run's adapted models still get right when inputs are changed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedmeta.device import device_of
from fedmeta.errors import ConfigurationError
from fedmeta.evasion.plan import Plan, attacks_of
from fedmeta.evasion.robustness import Figure, Robustness, attack_episode, robustness
from fedmeta.execution import to_device
from fedmeta.experiment_file import parse_override
from fedmeta.learners.base import MetaLearner
from fedmeta.params import Params
from fedmeta.tasks import Episode
from fedmeta.workload import Workload
from server.examined import open_to_examine
from server.report import draw_episode, write_report
from simulations.detect import clean_episodes
from simulations.effort import check_counts
from strategies.configurations import settled_workload

EPISODES_AT_ONCE = 32
"""Under vmap: what an attack keeps grows with them."""
COLUMNS = 6
"""So many inputs of the first episode are shown."""

MODELS = ("last", "best")


def attack(
    directory: str | Path,
    plan: Plan,
    *,
    episodes: int = 200,
    model: str = "last",
    said: Callable[[Figure], None] = lambda figure: None,
) -> dict[str, Any]:
    """Attack a judged model of a run on its frozen test episodes, keep the figures in its directory, redraw its report.

    The episodes follow from the data, the task and `evaluation.seed`: they are the same for every model of these.

    Args:
        directory: of a run with a checkpoint.
        plan: the threat model.
        episodes: how many.
        model: `last` or `best`.
        said: is told every figure as it is known.

    Returns:
        As stored: `round`, `model`, `protocol`, the figures of `Robustness`, `pictures`.

    Raises:
        CheckpointError: no run or no such checkpoint.
        ConfigurationError: what `Plan.check` refuses, an unknown model, fewer than one episode.
    """
    if model not in MODELS:
        raise ConfigurationError(f"--model {model}: a run keeps its models 'last' and 'best'")
    if episodes < 1:
        raise ConfigurationError(f"--episodes {episodes}: one at least, and 200 or more for figures to report")
    check_counts(episodes=episodes)
    rundir = open_to_examine(directory)
    workload = Workload(rundir.experiment)
    checkpoint = rundir.load(model)
    checkpoint.check(workload.experiment.hash, workload.spec.hash)
    workload = settled_workload(workload, checkpoint.optimiser)
    own: Params = {**workload.initial, **checkpoint.params}
    device = device_of(workload.experiment)
    params = {name: value.to(device) for name, value in own.items()}
    frozen = clean_episodes(workload, episodes)
    execution = workload.experiment.client.execution
    found = robustness(
        workload.learner, params, frozen, plan, execution=execution, chunk_size=EPISODES_AT_ONCE, said=said
    )
    record = {
        "round": checkpoint.round,
        "model": model,
        "protocol": _protocol(workload, plan, frozen),
        **found.to_json(),
        "pictures": _pictures(workload.learner, params, to_device(frozen[0], device), plan, found),
    }
    rundir.write_evasion(record)
    write_report(rundir, draw_episode(workload, workload.spec.flatten(rundir.load("last").params)))
    return record


def plan_of(norm: str, eps: str, attacks: str, on: str, settings: Sequence[str] = (), seed: int = 0) -> Plan:
    """The threat model of a command line: `plan_of("linf", ".05,.1", "pgd,square", "query", ["pgd.steps=50"])`.

    Raises:
        ConfigurationError: a radius that is no number, or what `Plan` and `attacks_of` refuse.
    """
    radii = sorted({_radius(part) for part in _parts(eps)})
    return Plan(norm=norm, eps=tuple(radii), attacks=attacks_of(_parts(attacks), _grouped(settings)), on=on, seed=seed)  # type: ignore[arg-type]


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _radius(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ConfigurationError(
            f"--eps: '{text}' is not a number. Give radii with commas between them, such as .05,.1,.2"
        ) from error


def _grouped(settings: Iterable[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for text in settings:
        key, value = parse_override(text)
        name, dot, parameter = key.partition(".")
        if not dot:
            raise ConfigurationError(f"--set {text}: name attack and parameter, such as pgd.steps=50")
        found.setdefault(name, {})[parameter] = value
    return found


def _protocol(workload: Workload, plan: Plan, episodes: Sequence[Episode]) -> dict[str, Any]:
    """What must stand beside the numbers."""
    experiment, shape = workload.experiment, workload.evaluation_shape
    own = experiment.task.kind == "own"
    task = {} if own else {"ways": shape.ways, "shots": shape.shots, "queries": shape.queries}
    return {
        **plan.to_json(),
        **task,
        "episodes": len(episodes),
        "episode_seed": experiment.evaluation.seed,
        "steps": workload.learner.default_steps if plan.steps is None else plan.steps,
        "transductive": bool(getattr(workload.learner.model, "transductive", False)),
        "data": experiment.data.name,
        "learner": experiment.learner.name,
    }


def _pictures(
    learner: MetaLearner, params: Params, episode: Episode, plan: Plan, found: Robustness
) -> Mapping[str, Any] | None:
    """Inputs of one episode, clean and under the strongest attack at every radius; None for what is no picture."""
    if episode.query.x.dim() != 4:
        return None
    labels = episode.query.y if plan.on == "query" else episode.support.y
    chosen = _one_a_class(labels.tolist())[:COLUMNS]
    rows = []
    for eps in (0.0, *plan.eps):
        name = min((one for one in found.figures if one.eps == eps), key=_mean).attack if eps in plan.eps else None
        evasion = plan.attacks[name] if name is not None else None
        attacked = attack_episode(learner, params, episode, evasion, plan.ball(eps), plan)
        images = attacked.x if plan.on == "query" else attacked.x[0]
        right = attacked.answers == episode.query.y
        rows.append(
            {
                "eps": eps,
                "attack": name,
                # Colour is brought to grey: what is shown is how much is seen of a change.
                "images": images[chosen].mean(dim=1).float().cpu().numpy().round(3).tolist(),
                "answers": attacked.answers[chosen].tolist() if plan.on == "query" else None,
                "right": int(right.sum()),
                "queries": len(right),
            }
        )
    return {"labels": [int(labels[place]) for place in chosen], "rows": rows}


def _one_a_class(labels: Sequence[int]) -> list[int]:
    """The first place of every label, then the second places, ..."""
    seen: dict[int, int] = {}
    ranked = []
    for place, label in enumerate(labels):
        seen[label] = seen.get(label, -1) + 1
        ranked.append((seen[label], label, place))
    return [place for _, _, place in sorted(ranked)]


def _mean(figure: Figure) -> float:
    return figure.accuracy.mean
