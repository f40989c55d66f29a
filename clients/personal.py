"""Personal parameters: trained on the client, kept in its Context, never sent."""

from flwr.app import Context
from torch import Tensor

from clients.request import Request
from fedmeta.params import Params
from fedmeta.wire import read_vector, vector_record
from fedmeta.workload import Workload

PERSONAL = "personal"


def personal_vector(workload: Workload, context: Context, shared: Tensor) -> Tensor:
    """The client's personal parameters `[P]`: as it last trained them, at first what the learner starts them with.

    Args:
        workload: of the experiment.
        context: of the client.
        shared: `[D]`, the model that it is sent.
    """
    size = workload.spec.size("personal")
    if size and PERSONAL in context.state:
        return read_vector(context.state.array_records[PERSONAL], size)
    return workload.first_personal(shared)


def keep_personal(vector: Tensor, context: Context) -> None:
    """Keep trained personal parameters for the client's next turn; where they diverged, those before stay."""
    if vector.numel() and vector.isfinite().all():
        context.state[PERSONAL] = vector_record(vector)


def complete_params(request: Request, context: Context) -> Params:
    """The whole model of this client: the shared vector it was sent, its personal entries, and the frozen ones."""
    workload = request.workload
    spec, device = workload.spec, request.vector.device
    personal = personal_vector(workload, context, request.vector).to(device)
    merged = {
        **{name: value.to(device) for name, value in workload.initial.items()},
        **spec.unflatten(request.vector),
        **(spec.unflatten(personal, "personal") if personal.numel() else {}),
    }
    return {entry.name: merged[entry.name] for entry in spec.entries}
