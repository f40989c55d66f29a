"""One frozen episode of a test client, adapted to and predicted: what the report shows as pictures."""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedmeta.data.base import ClientInfo
from fedmeta.errors import DataError
from fedmeta.tasks import Episode
from fedmeta.workload import Workload

log = logging.getLogger("fedmeta.server")


@dataclass(frozen=True)
class EpisodePicture:
    """An episode with what a model made of it.

    Attributes:
        client: whose it is.
        episode: support and query.
        before, after: outputs on the query, before and after adaptation.
        steps: adaptation steps of `after`.
        curve: for regression of one number: x `[100]`, and the outputs before and after along it; else None.
    """

    client: ClientInfo
    episode: Episode
    before: np.ndarray
    after: np.ndarray
    steps: int
    curve: tuple[np.ndarray, np.ndarray, np.ndarray] | None


def draw_episode(workload: Workload, vector: Tensor) -> EpisodePicture | None:
    """The first frozen episode of the first test client; None where its data are not on this machine.

    Args:
        workload: data and learner.
        vector: `[D]`, the shared parameters.
    """
    try:
        federation = workload.federation
        client = next((client for client in federation.clients if client.role == "test"), None)
        if client is None:
            return None
        episode = workload.frozen_episodes(client.id, 1)[0]
    except DataError as error:
        log.info("the report shows no episode, since the data are not here: %s", error)
        return None
    learner = workload.learner
    spec = workload.spec
    # As the client that is drawn would begin: it never trained.
    own = spec.unflatten(workload.first_personal(vector), "personal")
    params = {**workload.initial, **spec.unflatten(vector), **own}
    steps = learner.default_steps
    ways = max(1, episode.classes.shape[-1])
    adapted = list(learner.trajectory(params, episode.support, ways, (0, steps) if steps else (0,)))
    with torch.no_grad():
        before, after = (learner.predict(state, episode.query.x) for state in (adapted[0], adapted[-1]))
        curve = None
        if (
            learner.task.kind == "regression"
            and episode.query.x.shape[1:] == (1,)
            and episode.query.x.is_floating_point()
        ):
            known = torch.cat([episode.support.x, episode.query.x])
            x = torch.linspace(float(known.min()), float(known.max()), 100).unsqueeze(1)
            along = [learner.predict(state, x)[:, 0].numpy() for state in (adapted[0], adapted[-1])]
            curve = (x[:, 0].numpy(), along[0], along[1])
    return EpisodePicture(client, episode, before.numpy(), after.numpy(), steps, curve)
