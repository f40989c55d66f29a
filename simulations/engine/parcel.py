"""What an actor on another machine needs: the driver's code, its settings, and its data.

Code travels as a zip of the packages' files, so that every machine runs the driver's version, whatever it has
installed. Data travel through Ray's object store, which keeps one copy a machine, mapped by all its actors.
"""

import importlib.util
import io
import os
import sysconfig
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

SUFFIXES = (".py", ".toml")
"""What travels, as in a Flower bundle."""

LIBRARIES = tuple({sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")})


def make_parcel(
    packages: Sequence[str], app: object, datasets: Mapping[str, Any], *, everywhere: bool = False
) -> dict[str, Any]:
    """Put code and data into the object store; see `simulations.engine.bootstrap` for how they are taken out.

    Args:
        packages: top-level names that always travel.
        app: where it is `"package.module:attribute"` outside installed libraries, its top level travels too.
        datasets: `data_key` -> loaded data set.
        everywhere: whether actors of this machine take the data too, since they lie in no file.
    """
    names = list(packages)
    if isinstance(app, str):
        top = app.partition(":")[0].partition(".")[0]
        names += [top] if top not in names and top != "__main__" else []
    return {
        "home": ray.get_runtime_context().get_node_id(),
        "environment": {key: value for key, value in os.environ.items() if key.startswith(("FEDMETA_", "FLWR_TEL"))},
        "code": [ray.put(_zipped(names))],
        "everywhere": everywhere,
        "datasets": [ray.put(dict(datasets))] if datasets else [],
    }


def _zipped(names: Sequence[str]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            for root, path in _files(name):
                # A fixed date, so that equal code gives equal bytes and lands in the same folder.
                entry = zipfile.ZipInfo(path.relative_to(root).as_posix())
                archive.writestr(entry, path.read_bytes(), compress_type=zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def _files(name: str) -> Iterator[tuple[Path, Path]]:
    """(folder on the path, file) of a top-level module or package; libraries are expected on every machine."""
    spec = importlib.util.find_spec(name)
    if spec is None or (name not in _OURS and (spec.origin or "").startswith(LIBRARIES)):
        return
    if spec.submodule_search_locations is None:
        if spec.origin is not None:
            yield Path(spec.origin).parent, Path(spec.origin)
        return
    for folder in map(Path, spec.submodule_search_locations):
        for path in _sources(folder):
            yield folder.parent, path


def _sources(folder: Path) -> Iterator[Path]:
    """Code and experiment files of a package, never what may lie beside them: keys, runs, an environment."""
    if (folder / "pyvenv.cfg").exists():
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _sources(path)
        elif path.suffix in SUFFIXES:
            yield path


_OURS = ("fedmeta", "clients", "server", "strategies", "simulations")
