"""Who this node's client is and whose data it uses: from the node's own configuration, never from the server."""

from flwr.app import Context

from fedmeta.data.node import DATA_PATH, PARTITION, node_data
from fedmeta.errors import ConfigurationError
from fedmeta.experiment import Experiment
from fedmeta.workload import Workload, workload_from_json

SIMULATED = "simulated"
"""Key of a node's own configuration that our engines set. A server cannot set it: it would learn the noise."""


def simulated(context: Context) -> bool:
    """Whether this client runs in an engine of ours, where no one's data are real."""
    return bool(context.node_config.get(SIMULATED, False))


def client_id(context: Context) -> int:
    """The stable id of the client: that of its own data, or the partition id of its node.

    Raises:
        ConfigurationError: the node was started with neither, or with one that cannot be.
    """
    node = node_data(context.node_config)
    if node is not None:
        return node.client
    partition = context.node_config.get(PARTITION)
    if partition is None:
        raise ConfigurationError(
            'the node has neither data-path nor partition-id: start it with --node-config \'data-path="..." '
            'name="..."\' for data of its own, or "partition-id=0 num-partitions=10" for a share of the experiment\'s'
        )
    return int(partition)


def workload_on(text: str, context: Context) -> Workload:
    """The workload of an experiment as JSON on this node.

    A path that came with the experiment counts in an engine of ours alone: a server does not choose what is read here.
    Beside a partition id, data-path says where this node has the experiment's data set.
    """
    if simulated(context):
        return workload_from_json(text)
    node = node_data(context.node_config)
    if node is not None:
        return workload_from_json(text, node)
    own_path = context.node_config.get(DATA_PATH)
    return workload_from_json(_with_path(text, None if own_path is None else str(own_path)))


def _with_path(text: str, path: str | None) -> str:
    """An experiment whose data lie at a path of this node, or where this node's environment says."""
    experiment = Experiment.model_validate_json(text)
    if path is None and "path" not in experiment.data.parameters:
        return text
    data = {**experiment.data.model_dump(mode="json"), "path": path}
    return Experiment.model_validate({**experiment.model_dump(mode="json"), "data": data}).to_json()
