"""Reading labelled examples from a folder of class folders of images, or from an .npz; prepared once, then mapped.

The prepared copy lies in the cache folder, readable by its owner alone, and is made again when a file changes.
"""

import hashlib
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedmeta.data.cache import cached_array
from fedmeta.data.episodes import input_shape_of
from fedmeta.errors import DataError

FORMAT = 1
"""Changes whenever prepared arrays would: part of the cache key."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")

MODES = {1: ("L", "1"), 3: ("RGB", "P")}
"""Channels -> Pillow's modes that are taken for so many; nothing is turned into grey, or scaled, in silence."""


@dataclass(frozen=True)
class Examples:
    """Labelled examples of one owner.

    Attributes:
        examples: see `fedmeta.data.episodes.examples_to_inputs`.
        rows: class id -> its rows, in ascending order of class; rows in the order of file names or of the array.
        names: class id -> the class as its owner calls it.
        numbered: whether ids were told (labels, or numbers that folder names begin with) and not just counted.
    """

    examples: np.ndarray
    rows: Mapping[int, np.ndarray]
    names: Mapping[int, str]
    numbered: bool

    def check_shared(self, classes: int) -> None:
        """Refuse classes that are not those of an experiment whose clients share them.

        Raises:
            DataError: ids that are counted, or not below `classes`.
        """
        if not self.numbered:
            raise DataError(
                "the experiment's clients share one numbering of classes, and these folders have no numbers: begin "
                "each folder's name with the class's number, such as 12-cat"
            )
        beyond = [name for c, name in self.names.items() if c >= classes]
        if beyond:
            raise DataError(
                f"class {beyond[0]} is beyond the experiment's {classes} classes, numbered from 0: mend its number, or "
                "the experiment's data"
            )


def read_examples(place: str, input_shape: tuple[int, ...]) -> Examples:
    """Read a folder `class/*.png`, or an .npz with `x` and `y`.

    Args:
        place: an absolute path; `~` is the home folder.
        input_shape: of one input: `(channels, height, width)`, or that of the rows of `x`.

    Raises:
        DataError: nothing to read there, damaged files, or another shape.
    """
    path = Path(place).expanduser()
    if not path.is_absolute():
        raise DataError("a node's processes work in folders of their own: give an absolute path")
    if path.is_dir():
        return _folder(path, input_shape)
    if path.is_file() and path.suffix == ".npz":
        return _arrays(path, input_shape)
    what = "is neither a folder nor an .npz" if path.exists() else "does not exist, or may not be read"
    raise DataError(f"it {what}: give a folder of class folders of images, or an .npz with x and y")


def _folder(path: Path, input_shape: tuple[int, ...]) -> Examples:
    if len(input_shape) != 3 or input_shape[0] not in MODES:
        raise DataError(
            f"the experiment's inputs have shape {input_shape}, and images have (1, height, width) or (3, height, "
            "width): give an .npz with x and y"
        )
    files = class_files(path)
    ids, numbered = _class_ids([folder.name for folder in files])
    order = sorted(zip(ids, files, strict=True))
    listed = [file for _, folder in order for file in files[folder]]
    specification = {
        "data": "node",
        "format": FORMAT,
        "files": _fingerprint(path, listed),
        "shape": list(input_shape),
    }
    examples = cached_array("node", specification, lambda: np.stack([read_image(file, input_shape) for file in listed]))
    rows, start = {}, 0
    for c, folder in order:
        rows[c] = np.arange(start, start + len(files[folder]))
        start += len(files[folder])
    return Examples(examples, rows, {c: folder.name for c, folder in order}, numbered)


def class_files(path: Path) -> dict[Path, list[Path]]:
    """Class folder -> its images, both sorted by name; what begins with a dot is left alone.

    Raises:
        DataError: no class folders, or one without images.
    """
    try:
        folders = sorted(found for found in path.iterdir() if found.is_dir() and not found.name.startswith("."))
        files = {
            folder: sorted(
                found
                for found in folder.iterdir()
                if found.suffix.lower() in SUFFIXES and not found.name.startswith(".")
            )
            for folder in folders
        }
    except OSError as error:
        raise DataError(
            f"'{error.filename}' cannot be read ({error.strerror}): let the user who runs the SuperNode read it"
        ) from error
    if not folders:
        raise DataError("it holds no folders: put the images of each class into a folder of its own")
    empty = [folder.name for folder, found in files.items() if not found]
    if empty:
        raise DataError(
            f"the class folder '{empty[0]}' holds no image ({', '.join(SUFFIXES)}): fill it, or take it away"
        )
    return files


def _class_ids(names: Sequence[str]) -> tuple[list[int], bool]:
    """An id for each class folder: the numbers that all names begin with where these differ, else their order.

    >>> _class_ids(["12-cat", "7"]), _class_ids(["cat", "dog"]), _class_ids(["1-a", "1-b"])
    (([12, 7], True), ([0, 1], False), ([0, 1], False))
    """
    found = [re.match(r"(\d{1,9})(?=$|[-_ ])", name) for name in names]
    numbers = [int(match[1]) for match in found if match is not None]
    if len(set(numbers)) == len(names):
        return numbers, True
    return list(range(len(names))), False


def _fingerprint(root: Path, files: Sequence[Path]) -> str:
    """What tells one state of the files from another: their place, names, sizes and times of change."""
    digest = hashlib.sha256(f"{root.resolve()}\n".encode())
    for file in files:
        try:
            status = file.stat()
        except OSError as error:
            raise DataError(f"'{file}' cannot be read ({error.strerror}): mend or remove it") from error
        digest.update(f"{file.relative_to(root).as_posix()}|{status.st_size}|{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def read_image(file: Path, input_shape: tuple[int, ...]) -> np.ndarray:
    """uint8 `[height, width]`, or `[3, height, width]`."""
    from PIL import Image

    channels, height, width = input_shape
    try:
        with Image.open(file) as picture:
            mode, size = picture.mode, picture.size
            values = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's own, for files of different damage
        raise DataError(f"the image '{file}' cannot be read ({error}): mend or remove it") from error
    if mode not in MODES[channels] or size != (width, height):
        wanted = "grey" if channels == 1 else "RGB"
        raise DataError(
            f"the image '{file}' is {size[0]}x{size[1]} of mode {mode}, and the experiment's are {width}x{height} "
            f"{wanted}: convert the images, or name their shape in the experiment's data"
        )
    return values if channels == 1 else np.moveaxis(values, -1, 0)


def _arrays(path: Path, input_shape: tuple[int, ...]) -> Examples:
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in ("x", "y") if key not in archive]
            if missing:
                raise DataError(f"it has no array {' and no '.join(missing)}, only {', '.join(archive) or 'nothing'}")
            labels = archive["y"]
        specification = {
            "data": "node",
            "format": FORMAT,
            "files": _fingerprint(path.parent, [path]),
            "shape": list(input_shape),
        }
        examples = cached_array("node", specification, lambda: _inputs(path, input_shape))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"it cannot be read ({error}): write it again with numpy.savez(path, x=..., y=...)") from error
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != (len(examples),) or labels.min() < 0:
        raise DataError(
            f"y is {labels.dtype} {labels.shape} and x has {len(examples)} rows: y must be one class number of 0 or "
            "more for each row of x"
        )
    found = np.unique(labels)
    rows = {int(c): np.flatnonzero(labels == c) for c in found}
    return Examples(examples, rows, {int(c): str(c) for c in found}, True)


def _inputs(path: Path, input_shape: tuple[int, ...]) -> np.ndarray:
    """x, checked.

    Raises:
        DataError: no examples, neither uint8 nor floats, another shape, or values that are not finite.
    """
    with np.load(path, allow_pickle=False) as archive:
        x = archive["x"]
    if x.dtype != np.uint8 and not np.issubdtype(x.dtype, np.floating):
        raise DataError(f"x is {x.dtype}: store images as uint8 from 0 to 255, and other inputs as float32")
    if not x.ndim or not len(x) or input_shape_of(x) != input_shape:
        raise DataError(
            f"x is {x.dtype} {x.shape}, and the experiment's inputs have shape {input_shape}: bring x to it, or name "
            "its shape in the experiment's data"
        )
    if not np.isfinite(x).all():
        raise DataError("x holds values that are NaN or infinite: take these rows away")
    return x if x.dtype == np.uint8 else x.astype(np.float32)
