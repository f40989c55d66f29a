"""Local meta-training of a cohort: from train messages to updates."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from flwr.app import Context, Message, RecordDict
from torch import Tensor

from clients.attack import Attacker, is_attacker, make_attacker
from clients.configuration import configuration_loss
from clients.failures import error_reply
from clients.masking import encode
from clients.personal import complete_params, keep_personal, personal_vector
from clients.privacy import Protection, Reservation, pool_tasks, reserve
from clients.request import Request, read_request
from clients.secagg_policy import is_required
from clients.secure_aggregation import has_failed, is_masked, masked, refusal
from fedmeta.adversarial.check import check_episodes, trains_adversarially
from fedmeta.privacy.secagg_names import RECORD
from fedmeta.seeding import numpy_generator
from fedmeta.tasks import Episode
from fedmeta.training import CohortResult, train_cohort
from fedmeta.wire import (
    ARRAYS,
    CONFIG,
    IDLE,
    METRICS,
    WEIGHT,
    MalformedRecord,
    config_record,
    metric_record,
    vector_record,
)


def train(messages: list[Message], contexts: list[Context]) -> Iterator[Message]:
    """Train the clients of one round together; what one of them raises becomes its own reply.

    Messages of one round share experiment and model; where they do not, each group of equals is its own cohort.

    Returns:
        The replies, each made when it is asked for: updates are not there twice.
    """
    failed: dict[int, Message] = {}
    replies: dict[int, Callable[[], Message]] = {}
    groups: dict[tuple[int, int, str, bool, int | None], list[int]] = {}
    requests: dict[int, Request] = {}
    reserved: dict[int, Reservation] = {}
    models: dict[int, Tensor] = {}
    for index, (message, context) in enumerate(zip(messages, contexts, strict=True)):
        try:
            request = requests[index] = read_request(message, context, models)
            _check_masked(request, message, context)
            form = _update_form(request)
            personal_vector(request.workload, context, request.vector)  # what cannot be read is one client's affair
            reservation = reserve(request, context)
            if reservation is not None:
                reserved[index] = reservation
        except Exception as error:
            failed[index] = _failure(message, context, error)  # at once: an error keeps all that it passed alive
            continue
        # An attacker trains in a way of its own, and so alone.
        alone = index if is_attacker(request) else None
        key = (id(request.workload), request.round, form, _is_adversarial(request), alone)
        groups.setdefault(key, []).append(index)
    for members in groups.values():
        protection = Protection([requests[i] for i in members], [contexts[i] for i in members])
        if is_attacker(protection.requests[0]):
            result, idle = _train_attacker(protection)
        else:
            result, idle = train_group(protection), None
        for row, index in enumerate(members):
            reply = partial(_reply, messages[index], protection, result, row, idle)
            replies[index] = partial(_confirmed, reply, reserved[index]) if index in reserved else reply
    return (failed[index] if index in failed else replies[index]() for index in range(len(messages)))


def _confirmed(make: Callable[[], Message], reservation: Reservation) -> Message:
    """A reply that spends what was reserved for it, unless it failed."""
    reply = make()
    if not has_failed(reply):
        reservation.confirm()
    return reply


def _update_form(request: Request) -> str:
    """`delta` when asked for it; a strategy that does not ask is Flower's own, which takes replies as the new model."""
    form = str(request.config.get("update-form", "model"))
    if form not in ("delta", "model"):
        raise MalformedRecord(f"update-form = '{form}' is neither 'delta' nor 'model'")
    privacy = request.workload.experiment.privacy
    if form == "model" and privacy.unit != "none" and privacy.placement == "central":
        raise MalformedRecord(
            "the experiment has central noise, which only MetaStrategy adds: this strategy asked for a model. "
            "Set privacy.placement = 'local'"
        )
    return form


def _train_attacker(protection: Protection) -> tuple[CohortResult, str | None]:
    """As `train_group` for one malicious client, and why it could not attack, where it could not.

    A fault of its attack is a failure of its own.
    """
    [request], [context] = protection.requests, protection.contexts

    def honest(clients: Sequence[int]) -> Tensor:
        requests = [replace(request, client=client) for client in clients]
        alike = [[each for each in requests if _is_adversarial(each) is kind] for kind in (False, True)]
        updates: dict[int, Tensor] = {}
        for members in filter(None, alike):
            found = train_group(Protection(members, [context] * len(members)))
            for error in found.failures.values():
                raise error
            updates |= {each.client: row for each, row in zip(members, found.updates, strict=True)}
        return torch.stack([updates[client] for client in clients])

    try:
        attacker = make_attacker(request, complete_params(request, context), honest)
        result = train_group(protection, attacker)
        if result.failures:
            return result, None
        update, idle = attacker.update(result.updates[0])
        return replace(result, updates=update.unsqueeze(0)), idle
    except Exception as error:
        size, rest = request.workload.spec.size(), request.workload.spec.size("personal")
        nothing = CohortResult(torch.full((1, size), torch.nan), torch.full((1, rest), torch.nan), {}, {0: error})
        return nothing, None


def _is_adversarial(request: Request) -> bool:
    """Whether the client trains adversarially where it is honest."""
    return trains_adversarially(request.workload.experiment, request.client)


def train_group(protection: Protection, attacker: Attacker | None = None) -> CohortResult:
    """Train a cohort honestly, all adversarially or none; or a cohort of one as its attack says, which is plainly."""
    requests, contexts = protection.requests, protection.contexts
    workload = requests[0].workload
    adversarial = attacker is None and _is_adversarial(requests[0])

    def sample(client: int, step: int, count: int) -> list[Episode]:
        drawn = draw_tasks(requests[client], contexts[client], step, count)
        if adversarial:
            check_episodes(drawn)
        return drawn if attacker is None else attacker.poison(drawn, step)

    plan = protection.plan(workload.local_plan(requests[0].round, adversarial))
    given = zip(requests, contexts, strict=True)
    personal = torch.stack([personal_vector(workload, context, request.vector) for request, context in given])
    frozen = {entry.name: workload.initial[entry.name] for entry in workload.spec.select("frozen")}
    device = requests[0].vector.device
    return train_cohort(
        workload.learner,
        workload.spec,
        _shared([request.vector for request in requests]),
        len(requests),
        sample,
        plan if attacker is None else attacker.plan(plan),
        personal=personal.to(device),
        frozen={name: value.to(device) for name, value in frozen.items()},
    )


def _shared(vectors: Sequence[Tensor]) -> Tensor:
    """`[D]` where all clients start from one vector, else `[C, D]`."""
    alike = all(vector is vectors[0] for vector in vectors)
    return vectors[0] if alike else torch.stack(list(vectors))


def draw_tasks(request: Request, context: Context, step: int, count: int) -> list[Episode]:
    """The client's tasks of one local step, from the seed, the round, the client and the step alone.

    Where a private client owns a fixed pool of tasks, they come out of that.
    """
    workload = request.workload
    if workload.experiment.privacy.task_pool is not None:
        return pool_tasks(request, context, step, count)
    source = workload.training_source(request.client)
    rng = numpy_generator(workload.experiment.seed, request.round, request.client, f"episodes/{step}")
    return [source.sample(workload.training_shape, rng) for _ in range(count)]


def _reply(message: Message, protection: Protection, result: CohortResult, row: int, idle: str | None) -> Message:
    request, context = protection.requests[row], protection.contexts[row]
    if row in result.failures:
        return _failure(message, context, result.failures[row])
    vector: Tensor = protection.update(result.updates[row], row)
    if is_masked(message):
        return _masked_reply(message, protection, result, vector, row, idle)
    if _update_form(request) == "model":
        vector = request.vector + vector
    judged = configuration_loss(request, context, result, row)
    keep_personal(result.personal[row], context)
    metrics = protection.metrics({name: float(values[row]) for name, values in result.metrics.items()}, row) | judged
    told = config_record(_told(request, idle))
    content = RecordDict({ARRAYS: vector_record(vector), METRICS: metric_record(metrics), CONFIG: told})
    return Message(content, reply_to=message)


def _told(request: Request, idle: str | None) -> dict[str, str]:
    """What a reply says of itself."""
    told = {"spec-hash": request.workload.spec.hash, "update-form": _update_form(request)}
    return told if idle is None else {**told, IDLE: idle}


def _masked_reply(
    message: Message, protection: Protection, result: CohortResult, vector: Tensor, row: int, idle: str | None
) -> Message:
    """The update `[D]`, always a delta, with weight and metrics under the mask."""
    request, context = protection.requests[row], protection.contexts[row]
    metrics = protection.metrics({name: float(values[row]) for name, values in result.metrics.items()}, row)
    weight = metrics.pop(WEIGHT)
    settings = message.content.config_records[RECORD]
    reply = masked(
        message,
        context,
        lambda bits: encode(request, context, settings, bits, vector, weight, metrics),
        config_record(_told(request, idle)),
    )
    keep_personal(result.personal[row], context)
    return reply


def _failure(message: Message, context: Context, error: BaseException) -> Message:
    """Why there is no update; under secure aggregation as content, so that the Context without its secrets is kept."""
    return refusal(message, context, error) if is_masked(message) else error_reply(message, error)


def _check_masked(request: Request, message: Message, context: Context) -> None:
    """Never send in the clear what is to be masked.

    Raises:
        MalformedRecord: a message that asks for an update without masks, which experiment or node do not allow.
    """
    if is_masked(message):
        return
    if request.workload.experiment.secagg.enabled or is_required(context):
        raise MalformedRecord(
            "this client gives its update under the masks of secure aggregation only, and the message asks for none: "
            "wrap the server's grid in SecureAggregationGrid"
        )
