"""Reading what the server asks: the experiment, the model, and the client whose turn it is."""

from dataclasses import dataclass
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from torch import Tensor

from clients.node import client_id, workload_on
from fedmeta.device import device_of
from fedmeta.fedex import draw
from fedmeta.privacy.secagg_names import RECORD
from fedmeta.wire import ARRAYS, CONFIGURATION, LAST_UPDATE, PROBABILITIES, MalformedRecord, only, read_vector
from fedmeta.workload import Workload


@dataclass(frozen=True)
class Request:
    """A train or evaluate message, read.

    Attributes:
        client: the stable client id.
        workload: data, learner and specification of the experiment in the message, in the client's configuration.
        vector: `[D]`, the global model; clients of a cohort may share it, so that nobody may write to it.
        round: of the run, counted from 1; 0 outside one.
        config: the scalars that came along.
        last_update: `[D]`, what the last round did to the model; None where it is not told, as it is to attackers.
        workload_of_run: before its configuration was chosen; None where there are no configurations.
    """

    client: int
    workload: Workload
    vector: Tensor
    round: int
    config: dict[str, Any]
    last_update: Tensor | None = None
    workload_of_run: Workload | None = None


def _model_record(content: RecordDict) -> ArrayRecord:
    """The record of the global model: the only one, or among several the one called as our strategy calls it."""
    records = content.array_records
    return records[ARRAYS] if len(records) > 1 and ARRAYS in records else only(content, "array")


def _config_record(content: RecordDict) -> ConfigRecord:
    """The record of the experiment: the only one beside that of secure aggregation."""
    found: ConfigRecord = only(RecordDict({name: kept for name, kept in content.items() if name != RECORD}), "config")
    return found


def workload_of(message: Message, context: Context) -> tuple[Workload, dict[str, Any]]:
    """The workload on this node of the experiment that a message carries, and the message's scalars."""
    config = dict(_config_record(message.content))
    if "experiment" not in config:
        raise MalformedRecord("the message carries no experiment: pass train_config=ConfigRecord({'experiment': ...})")
    workload = workload_on(str(config.pop("experiment")), context)
    announced = str(config.get("experiment-hash", workload.experiment.hash))
    if announced != workload.experiment.hash:
        raise MalformedRecord(f"an experiment of hash {workload.experiment.hash[:12]} under the hash {announced[:12]}")
    # On purpose: actors times threads must not exceed the cores, and small nets are slower on more.
    torch.set_num_threads(workload.experiment.engine.threads)
    return workload, config


def read_request(message: Message, context: Context, known: dict[int, Tensor] | None = None) -> Request:
    """Read a message that carries a model.

    Args:
        message: train or evaluate.
        context: of the client.
        known: models on their device by the identity of their record, for messages that share one; is added to.

    Raises:
        MalformedRecord: no experiment, a model of another specification, or an array that is not the flat vector.
    """
    workload, config = workload_of(message, context)
    expected = config.get("spec-hash", workload.spec.hash)
    if expected != workload.spec.hash:
        raise MalformedRecord(
            f"the server's model has spec {str(expected)[:12]}, this client's {workload.spec.hash[:12]}"
        )
    device = device_of(workload.experiment)
    vector = _vector(_model_record(message.content), workload.spec.size(), device, {} if known is None else known)
    # Flower's own strategies call it by another name.
    round = int(config.get("round", config.get("server-round", 0)))
    told = message.content.array_records.get(LAST_UPDATE)
    last_update = None if told is None else read_vector(told, workload.spec.size())
    client = client_id(context)
    chosen = _configured(workload, config, round, client)
    of_run = None if chosen is workload else workload
    return Request(client, chosen, vector, round, config, last_update, of_run)


def _vector(record: ArrayRecord, size: int, device: torch.device, known: dict[int, Tensor]) -> Tensor:
    found = known.get(id(record))
    if found is None or len(found) != size or found.device.type != device.type:
        found = known[id(record)] = read_vector(record, size).to(device)
    return found


def _configured(workload: Workload, config: dict[str, Any], round: int, client: int) -> Workload:
    """The workload in the configuration that the client draws, or that is settled on; as it is where there is none."""
    known = len(workload.experiment.fedex.configurations)
    if PROBABILITIES in config:
        probabilities = [float(value) for value in config[PROBABILITIES]]
        if len(probabilities) != known:
            raise MalformedRecord(f"{len(probabilities)} probabilities for {known} configurations")
        return workload.configured(draw(probabilities, workload.experiment.seed, round, client))
    if CONFIGURATION in config:
        index = int(config[CONFIGURATION])
        if not 0 <= index < known:
            raise MalformedRecord(f"configuration {index} of {known}")
        return workload.configured(index)
    return workload
