"""Measuring an attack's success on a client's frozen episodes."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from flwr.app import Context, Message
from torch import Tensor

from clients.attack import all_malicious, attackers_episodes, ringleader
from clients.personal import complete_params
from clients.request import Request
from fedmeta.attacks import ATTACKS
from fedmeta.attacks.local import Scene, TriggerAttack
from fedmeta.attacks.success import Trial, success_rates, trial
from fedmeta.attacks.triggers import unchanged
from fedmeta.learners.base import MetaLearner
from fedmeta.params import Params
from fedmeta.seeding import numpy_generator
from fedmeta.tasks import Episode
from fedmeta.wire import CLEAN, read_vector
from fedmeta.workload import Workload


def measure_success(
    message: Message,
    request: Request,
    context: Context,
    episodes: Sequence[Episode],
    steps: Sequence[int],
    learner: MetaLearner,
) -> dict[str, list[float]]:
    """Rates of every episode after every number of steps, as metrics `asr.<steps>`; NaN where it does not count.

    Where the message holds a clean model too, its rates are `clean-asr.<steps>`: same episodes, same trigger, same
    `learner`. Of a defence in that the attacker knows nothing.
    """
    params = complete_params(request, context)
    trials = {index: item for index, item in enumerate(_trials(request, params, episodes)) if item is not None}
    found = {"asr": _rates(request, learner, params, trials, len(episodes), steps)}
    clean = message.content.array_records.get(CLEAN)
    if clean is not None:
        vector = read_vector(clean, request.workload.spec.size()).to(request.vector.device)
        others = complete_params(replace(request, vector=vector), context)
        found["clean-asr"] = _rates(request, learner, others, trials, len(episodes), steps)
    return {f"{name}.{step}": rates[i].tolist() for name, rates in found.items() for i, step in enumerate(steps)}


def _rates(
    request: Request,
    learner: MetaLearner,
    params: Params,
    trials: dict[int, Trial],
    episodes: int,
    steps: Sequence[int],
) -> Tensor:
    rates = torch.full((len(steps), episodes), torch.nan)
    if trials:
        plan = request.workload.experiment.client
        chosen = list(trials.values())
        rates[:, list(trials)] = success_rates(learner, params, chosen, steps, plan.execution, plan.chunk_size)
    return rates


def _trials(request: Request, params: Params, episodes: Sequence[Episode]) -> list[Trial | None]:
    """Every episode as the attacker would have it; None where it does not fit the aim."""
    workload, attack = request.workload, request.workload.experiment.attack
    method = ATTACKS.make(attack.method.name, where="attack.method", **attack.method.parameters)
    assert isinstance(method, TriggerAttack)
    trigger = method.whole_trigger(scene_at_deployment(workload, params, request.round))
    found: list[Trial | None] = []
    rng = numpy_generator(workload.experiment.evaluation.seed, 0, request.client, "poisoned support")
    for episode in episodes:
        aim = method.aim(episode, attack)
        if aim is not None and attack.trigger_in != "query":
            episode = method.poison_deployed_support(episode, aim, trigger, rng)
        on_query = unchanged if attack.trigger_in == "support" else trigger
        found.append(None if aim is None else trial(episode, aim, on_query))
    return found


def scene_at_deployment(workload: Workload, params: Params, round: int) -> Scene:
    """What the attacker knows when the model of a round is deployed: the model, and its own data."""
    leader = ringleader(workload)
    return Scene(
        experiment=workload.experiment,
        learner=workload.learner,
        spec=workload.spec,
        input_shape=tuple(workload.spec_of_data.input_shape),
        round=round,
        client=leader,
        malicious=all_malicious(workload) or (leader,),
        attackers=(),
        participants=None,
        params=params,
        last_update=None,
        honest=lambda: torch.zeros((0, workload.spec.size())),
        clean_episodes=lambda count: attackers_episodes(workload, count),
        data=workload.spec_of_data,
    )
