"""The sections of an experiment: every key with its bound and, in brackets, its unit.

`fedex` and `secagg` have their sections beside what reads them.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, field_validator

from fedmeta.component import Component, default_component
from fedmeta.section import Section

Schedule = Literal["constant", "linear", "cosine"]


def ascending(steps: tuple[int, ...]) -> tuple[int, ...]:
    """Numbers of adaptation steps in order.

    Raises:
        ValueError: they do not ascend from 0 or more.
    """
    if list(steps) != sorted(set(steps)) or any(step < 0 for step in steps):
        raise ValueError("must ascend from 0 or more without repeats, such as [0, 1, 5]")
    return steps


class TaskSection(Section):
    """The episodes that clients train on."""

    kind: Literal["episodes", "own"] = Field(
        "episodes",
        description="N-way K-shot episodes, or a client's own data split into support and query (shared classes)",
    )
    ways: int = Field(5, ge=1, description="classes an episode [classes]")
    shots: int = Field(1, ge=1, description="support examples a class [examples]")
    queries: int = Field(5, ge=1, description="query examples a class [examples]")
    support_fraction: float = Field(
        0.2, gt=0, lt=1, description="share of a client's data that is support, for kind = own"
    )


class SharingSection(Section):
    """Which parameters leave a client."""

    personal: tuple[str, ...] = Field(
        (),
        strict=False,
        description="patterns of parameters that are trained but never leave the client, such as head.*",
    )
    frozen: tuple[str, ...] = Field((), strict=False, description="patterns of parameters that never move")


class ClientSection(Section):
    """Local meta-training."""

    steps: int = Field(1, ge=1, description="outer steps a client takes a round [steps]")
    tasks_per_step: int = Field(4, ge=1, description="meta-batch: tasks whose gradients are averaged [tasks]")
    optimiser: Component = default_component("sgd", "the client's outer optimiser, fresh every round", lr=0.1)
    schedule: Schedule = Field("constant", description="of the client's learning rate over the rounds")
    execution: Literal["auto", "loop", "vmap"] = Field("auto", description="tasks one after the other, or batched")
    chunk_size: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        "auto", description="tasks batched at once under vmap; auto: as many as memory holds; none: all [tasks]"
    )
    precision: Literal["float32", "tf32", "bf16"] = Field(
        "float32", description="of training's products and convolutions; tf32: on a GPU; parameters stay float32"
    )
    adversarial: Component = default_component("none", "adversarial training: what the outer step descends instead")


class ServerSection(Section):
    """Rounds, sampling and aggregation."""

    rounds: int = Field(20, ge=0, description="federated rounds [rounds]")
    sampling: Component = default_component("fixed", "which clients train in a round", clients=8)
    weighting: Literal["uniform", "tasks"] = Field(
        "uniform", description="weight of an update: one, or the tasks it saw"
    )
    preaggregators: tuple[Component, ...] = Field(
        (), strict=False, description="what updates go through before the aggregator, in order"
    )
    aggregator: Component = default_component("mean", "how updates become one")
    root: Literal["none", "validation"] = Field(
        "none", description="whose tasks the server trains on itself, for an aggregator that trusts its own update"
    )
    optimiser: Component = default_component("sgd", "what the server does with the aggregate; its state lasts", lr=1.0)
    schedule: Schedule = Field("constant", description="of the server's learning rate over the rounds")
    min_success_fraction: float = Field(
        0.5, ge=0, le=1, description="below this share of valid replies a round is not aggregated"
    )
    timeout: float = Field(3600.0, gt=0, description="longest wait for a round's replies [seconds]")

    def progress(self, round: int) -> float:
        """The share in [0, 1] of all rounds that lie before one, counted from 1: where a schedule stands in it."""
        return min(1.0, max(0, round - 1) / max(1, self.rounds))


class EvaluationSection(Section):
    """How models are judged: on frozen episodes of clients that never train."""

    every: int = Field(10, ge=1, description="validation every so many rounds, and after the last [rounds]")
    validation_episodes: int = Field(20, ge=1, description="episodes of each validation client [episodes]")
    episodes: int = Field(30, ge=1, description="episodes of each test client at the end [episodes]")
    pooled_episodes: int = Field(600, ge=1, description="episodes across all test clients' data at the end [episodes]")
    ways: int | None = Field(None, ge=1, description="none: as in training [classes]")
    shots: int | None = Field(None, ge=1, description="none: as in training [examples]")
    queries: int | None = Field(None, ge=1, description="none: as in training [examples]")
    steps: tuple[int, ...] = Field(
        (), strict=False, description="adaptation steps of the final curve; empty: 0 and the learner's test steps"
    )
    deployment: tuple[Component, ...] = Field(
        (), strict=False, description="defences of a client that uses the model: it is judged under each of them too"
    )
    seed: int = Field(0, ge=0, description="of the frozen episodes: apart from the run's seed, so that runs share them")
    patience: int | None = Field(
        None, ge=1, description="end after so many validations without a better score; none: never [validations]"
    )
    min_improvement: float = Field(
        0.0, ge=0, description="by how much a score must be better to count for patience [of the score]"
    )

    _ascending = field_validator("steps")(ascending)


class PrivacySection(Section):
    """Differential privacy: whose, where the noise is added, and how much may be spent."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, strict=True, allow_inf_nan=False)

    unit: Literal["none", "client", "task", "example"] = Field(
        "none", description="whose presence is hidden; none: no privacy"
    )
    placement: Literal["central", "local", "distributed"] = Field(
        "central",
        description="who adds the noise: the server, which is trusted; each client, all of it before anything leaves "
        "it; or clients in shares, under secure aggregation",
    )
    clip_norm: float = Field(1.0, gt=0, description="C, of one unit's contribution; the first one where adaptive")
    clipping: Literal["fixed", "adaptive"] = Field(
        "fixed", description="adaptive follows a quantile of the norms (client unit, not local)"
    )
    per_layer: bool = Field(False, description="clip each parameter tensor to C / sqrt(their number)")
    quantile: float = Field(0.5, gt=0, lt=1, description="share of norms within C that adaptive clipping aims at")
    clip_rate: float = Field(0.2, gt=0, description="rate of adaptive clipping")
    count_noise: float | None = Field(
        None, gt=0, description="noise on the count within C; none: cohort / 20, at least z [clients]"
    )
    noise_multiplier: float | None = Field(
        None, ge=0, description="z: standard deviation of the noise over C; or give target_epsilon"
    )
    target_epsilon: float | None = Field(
        None, gt=0, description="find the noise multiplier that spends this in all rounds"
    )
    delta: float = Field(1e-5, gt=0, lt=1, description="below one over the number of units")
    accountant: Literal["auto", "rdp", "prv", "pld"] = Field("auto", description="auto: the least of the valid bounds")
    budget: float | None = Field(None, gt=0, description="epsilon that ends the run before the round that exceeds it")
    task_pool: int | None = Field(
        None,
        ge=1,
        description="tasks a client owns, each drawn by its own coin; none: fresh tasks at every step [tasks]",
    )
    share_metrics: bool = Field(False, description="clients send training metrics, which no noise protects")
    mechanism: Literal["skellam", "discrete_gaussian"] = Field("skellam", description="the noise of distributed shares")
    min_survivors: int | None = Field(
        None,
        ge=1,
        description="fewest clients of a group whose sum is unmasked, for which shares are sized; none: what "
        "secagg.dropouts leaves of the smallest [clients]",
    )
    colluders: int | None = Field(
        None,
        ge=0,
        description="clients of a group whose shares do not count, since they may tell them; none: secagg.corrupt of "
        "all, in one group [clients]",
    )


class AttackSection(Section):
    """Who attacks, when, knowing what, and how success is measured."""

    method: Component = default_component("none", "the attack")
    fraction: float = Field(
        0.2, ge=0, le=1, description="share of the training clients that is malicious, drawn from the seed"
    )
    start: int = Field(1, ge=1, description="first round of the attack [rounds]")
    stop: int | None = Field(None, ge=0, description="last round of the attack; none: the last of the run [rounds]")
    knowledge: Literal["own", "colluding", "omniscient"] = Field(
        "own", description="whose updates an attacker knows: its own, all attackers', or everybody's of the round"
    )
    target: Literal["slot", "class", "absent"] = Field(
        "slot", description="what method.target names: a slot, a class of the data set, or nothing in the episode"
    )
    trigger_in: Literal["query", "support", "both"] = Field(
        "query", description="what is poisoned, in training and when success is measured"
    )
    steps: tuple[int, ...] = Field(
        (0, 1, 2, 5, 10, 20), strict=False, description="adaptation steps after which success is measured"
    )
    clean: str | None = Field(
        None, description="run directory of the same experiment without attack, whose model gives the lift"
    )

    _ascending = field_validator("steps")(ascending)


class EngineSection(Section):
    """Where clients run. Results depend on device and threads only, and on these by rounding."""

    cpus_per_client: float = Field(1.0, gt=0, description="CPU share of one actor [cores]")
    gpus_per_client: float = Field(0.0, ge=0, description="GPU share of one actor; 0.25 puts four on one [GPUs]")
    actors: int | None = Field(None, ge=1, description="none: as many as the machine and the shares allow [actors]")
    ray_address: str | None = Field(None, description="of a running Ray cluster; none: start one here")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda where a GPU share is given")
    threads: int = Field(1, ge=1, description="torch threads of a client [threads]")
    reduce: Literal["off", "auto"] = Field(
        "off", description="auto: actors send sums of updates, exact to 1e-12, where a plain mean needs no more"
    )
    client_timeout: float | None = Field(
        None, gt=0, description="longest turn of one client; none: only server.timeout [seconds]"
    )
    start_timeout: float = Field(60.0, gt=0, description="longest wait for the actors to start [seconds]")


class DeploymentSection(Section):
    """How long a run on real machines waits for its nodes; engines of ours have no use for it, nor do results."""

    nodes: int | None = Field(
        None, ge=1, description="a run starts when so many are there; none: with those that are, one at least [nodes]"
    )
    node_timeout: float = Field(300.0, ge=0, description="longest wait for them [seconds]")
    patience: float | None = Field(
        None,
        ge=0,
        description="how much longer a round waits for the rest once server.min_success_fraction of its clients have "
        "answered; none: server.timeout [seconds]",
    )
    return_timeout: float = Field(
        60.0, ge=0, description="how long a round waits for a node that went away to come back [seconds]"
    )


class TrackingSection(Section):
    """Where metrics go beside the run directory."""

    backends: tuple[Literal["tensorboard", "wandb", "mlflow", "prometheus"], ...] = Field(
        (), strict=False, description="each needs its extra; W&B and MLflow work offline"
    )
    project: str = Field("fedmeta", description="W&B project, MLflow experiment")
