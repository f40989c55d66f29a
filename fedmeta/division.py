"""Who holds what: an experiment's data set divided among clients, or a node's own data as one client's."""

from dataclasses import replace
from typing import Any

from fedmeta.data import PARTITIONS
from fedmeta.data.base import Federation
from fedmeta.data.class_dataset import ClassDataset
from fedmeta.data.episodes import ClassSource
from fedmeta.data.node import NodeData, node_federation
from fedmeta.errors import ConfigurationError, DataError
from fedmeta.experiment import Experiment


def divide(experiment: Experiment, dataset: Any) -> Federation:
    """A loaded data set among the clients that the experiment's partition makes.

    Raises:
        DataError: data that do not fit the experiment.
        ConfigurationError: a partition, or `task.kind = "own"`, that these data cannot have.
    """
    own = experiment.task.kind == "own"
    if own and isinstance(dataset, ClassDataset):
        dataset = replace(dataset, shared_classes=True)
    partition = PARTITIONS.make(experiment.partition.name, **experiment.partition.parameters)
    seed = getattr(partition, "seed", None)  # a plug-in's partition may have none
    found: Federation = dataset.federate(partition, experiment.seed if seed is None else seed)
    if own and not isinstance(found.source(found.clients[0].id), ClassSource):
        reason = getattr(dataset, "no_own", "its clients draw tasks and hold no examples of classes")
        raise ConfigurationError(
            f"task.kind = 'own' splits a client's examples into support and query, which data "
            f"'{experiment.data.name}' cannot have: {reason}. Set task.kind to episodes"
        )
    return found


def federation_of_node(experiment: Experiment, node: NodeData, declared: Any, shares_classes: bool) -> Federation:
    """The federation of a node with data of its own, that node alone.

    Args:
        experiment: whose partition says how little is too little.
        node: where the data are.
        declared: the experiment's data set without its files, which these data must be like.
        shares_classes: whether all clients number their classes alike.

    Raises:
        DataError: data that are missing, damaged, or unlike what the experiment declares.
    """
    if declared.task.kind != "classification":
        raise DataError(
            f"node {node.name}, data-path = '{node.path}' holds classes, and the experiment's data "
            f"'{experiment.data.name}' are of kind {declared.task.kind}: take data-path away, or change data.name"
        )
    partition = PARTITIONS.make(experiment.partition.name, **experiment.partition.parameters)
    return node_federation(
        node,
        declared.input_shape,
        shared=declared.classes if shares_classes else None,
        min_examples=partition.min_examples,
        min_classes=partition.min_classes,
    )
