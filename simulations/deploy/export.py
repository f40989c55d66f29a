"""Clients of a simulation as folders of files, to try a deployment with: the same tasks, so the same result."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fedmeta.data.base import ClientInfo
from fedmeta.data.class_dataset import ClassFederation
from fedmeta.errors import ConfigurationError, DataError, FedmetaError
from fedmeta.workload import Workload


def export_clients(workload: Workload, folder: Path, clients: Sequence[int] = ()) -> dict[ClientInfo, Path]:
    """Write the shares of clients into folders of their own, named by id and name.

    Images become `class/*.png`, whose folder names begin with the class id; other arrays `data.npz` with `x` and `y`.

    Args:
        workload: of the experiment that divides the data.
        folder: where the clients' folders go.
        clients: their ids; none: all clients.

    Returns:
        The data-path of each client.

    Raises:
        ConfigurationError: no such client.
        DataError: data without examples to write down.
        FedmetaError: a folder that is there already or cannot be written.
    """
    federation = workload.federation
    if not isinstance(federation, ClassFederation):
        raise DataError(
            f"data.name = '{workload.experiment.data.name}' draws its tasks from a formula: there is nothing to "
            "export. Start its nodes with partition-id"
        )
    unknown = [client for client in clients if not 0 <= client < len(federation.clients)]
    if unknown:
        raise ConfigurationError(
            f"--client = {unknown[0]}: the partition makes clients 0 to {len(federation.clients) - 1}"
        )
    chosen = [federation.clients[client] for client in clients or range(len(federation.clients))]
    names = federation.dataset.names.get("class", ())
    paths = {info: folder / f"{info.id}-{_file_name(info.name)}" for info in chosen}
    there = [str(path) for path in paths.values() if path.exists()]
    if there:
        raise FedmetaError(f"'{there[0]}' is there already: choose another folder with -o, or move it away")
    try:
        return {info: _write(federation, info, path, names) for info, path in paths.items()}
    except OSError as error:
        raise FedmetaError(
            f"cannot write into '{folder}': {error.strerror or error}. Choose another folder with -o"
        ) from error


def node_config(info: ClientInfo, path: Path) -> str:
    """What `flower-supernode --node-config` takes for an exported client."""
    return f'data-path="{path.resolve()}" client-id={info.id} name="{info.name}" role="{info.role}"'


def _write(federation: ClassFederation, info: ClientInfo, path: Path, names: Sequence[str]) -> Path:
    """One client's files; returns its data-path."""
    source = federation.source(info.id)
    examples = source.examples
    path.mkdir(parents=True)
    if examples.dtype == np.uint8 and (examples.ndim == 3 or examples.shape[1] in (1, 3)):
        _write_images(path, examples, source.rows, names)
        return path
    rows = np.concatenate(list(source.rows.values()))
    labels = np.repeat(list(source.rows), [len(found) for found in source.rows.values()])
    np.savez(path / "data.npz", x=examples[rows], y=labels)
    return path / "data.npz"


def _write_images(path: Path, examples: np.ndarray, classes: Mapping[int, np.ndarray], names: Sequence[str]) -> None:
    from PIL import Image

    for c, rows in classes.items():
        folder = path / (f"{c}-{_file_name(names[c])}" if names else str(c))
        folder.mkdir()
        digits = len(str(len(rows)))
        for position, row in enumerate(rows):
            picture = examples[row]
            if picture.ndim == 3:
                picture = np.moveaxis(picture, 0, -1)
                picture = picture[..., 0] if picture.shape[-1] == 1 else picture
            # Names sort as the rows lie: an episode is drawn by positions.
            Image.fromarray(picture).save(folder / f"{position:0{digits}}.png")


def _file_name(name: str) -> str:
    """A name as one part of a path.

    >>> _file_name("Greek/glyph 003 (test)")
    'Greek_glyph_003_test'
    """
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("_.-")
