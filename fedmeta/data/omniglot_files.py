"""Where Omniglot's images come from: the packed file, the extracted folders, or the official zips."""

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedmeta.errors import DataError

FORMAT = 2
"""Changes whenever prepared images would: part of the cache key."""

SETS = ("images_background", "images_evaluation")
CHARACTERS, DRAWERS, SIDE = 1623, 20, 28
FOLDERS = ("", "omniglot-py", "python")
"""Where under a path the two sets may lie: there, where torchvision extracts them, or as in a clone of the original."""

INK = 159
"""A small grey value below this is ink. With Pillow's Lanczos filter it gives every picture of images_background_small1
and images_background_small2 bit for bit as the packed file has it."""

REMEDY = (
    "set data.path (or FEDMETA_OMNIGLOT) to the packed omniglot28.npz, to a folder with images_background/ and "
    "images_evaluation/, or to one with images_background.zip and images_evaluation.zip"
)


@dataclass(frozen=True)
class Characters:
    """The 1,623 characters in the order of the official file numbers, background alphabets first.

    Attributes:
        alphabets: names, by code.
        alphabet_of: `[1623]` code of each character's alphabet.
        background: `[1623]`, whether it belongs to the background set.
        images: reads uint8 `[1623, 20, 28, 28]`, ink 255; called only when no prepared copy exists.
    """

    alphabets: list[str]
    alphabet_of: list[int]
    background: list[bool]
    images: Callable[[], np.ndarray]


def fingerprint(place: Path) -> str:
    """What tells one source from another: the content of a packed file or of zips, else names, sizes and times."""
    roots = [place] if place.is_file() else [place / folder for folder in FOLDERS]
    files = [place] if place.is_file() else [root / f"{name}.zip" for root in roots for name in SETS]
    digest = hashlib.sha256()
    for path in files:
        if path.is_file():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    for path in sorted(png for root in roots for name in SETS for png in (root / name).rglob("*.png")):
        status = path.stat()
        digest.update(f"{path.relative_to(place).as_posix()}|{status.st_size}|{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def read(place: Path) -> Characters:
    """Describe the characters at a place.

    Raises:
        DataError: nothing is there, the place is none of the known forms, or it is incomplete.
    """
    if not place.exists():
        raise DataError(f"there is no Omniglot at '{place}': {REMEDY}")
    if place.is_file():
        return _packed(place)
    for root in (place / folder for folder in FOLDERS):
        if any((root / name).is_dir() for name in SETS):
            return _extracted(root)
        if any((root / f"{name}.zip").is_file() for name in SETS):
            return _zipped(root)
    raise DataError(f"'{place}' holds no Omniglot in a known form: {REMEDY}")


def _packed(place: Path) -> Characters:
    description = place.with_suffix(".json")
    try:
        alphabets = json.loads(description.read_text(encoding="utf-8"))
        names = [entry["name"] for entry in alphabets]
        alphabet_of = [code for code, entry in enumerate(alphabets) for _ in range(entry["first"], entry["stop"])]
        background = [alphabets[code]["set"] == "background" for code in alphabet_of]
        if len(alphabet_of) != CHARACTERS:
            raise ValueError(f"{len(alphabet_of)} characters where Omniglot has {CHARACTERS}")
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise DataError(f"'{description}' does not describe the packed file beside it ({error}): {REMEDY}") from error

    def images() -> np.ndarray:
        try:
            with np.load(place, allow_pickle=False) as archive:
                packed = archive["images"]
            bits = np.unpackbits(packed, axis=-1)
            return bits.reshape(CHARACTERS, DRAWERS, SIDE, SIDE) * np.uint8(255)
        except (OSError, ValueError, KeyError, IndexError, TypeError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"'{place}' is damaged ({error}): get it again, or {REMEDY}") from error

    return Characters(names, alphabet_of, background, images)


def _extracted(root: Path) -> Characters:
    def content(name: str) -> bytes:
        try:
            return (root / name).read_bytes()
        except OSError as error:
            raise DataError(f"'{root / name}' cannot be read ({error.strerror}): get Omniglot again") from error

    return _listed([path.relative_to(root).as_posix() for path in root.rglob("*.png")], content, root)


def _zipped(root: Path) -> Characters:
    archives: dict[str, zipfile.ZipFile] = {}
    for name in SETS:
        try:
            archives[name] = zipfile.ZipFile(root / f"{name}.zip")
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(
                f"'{root / name}.zip' is missing or damaged ({error}): delete it and get it again, or {REMEDY}"
            ) from error

    def content(name: str) -> bytes:
        set_name = name.split("/")[0]
        try:
            return archives[set_name].read(name)
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise DataError(
                f"'{root / set_name}.zip' is damaged at {name} ({error}): delete it and get it again"
            ) from error

    names = [entry for archive in archives.values() for entry in archive.namelist() if entry.endswith(".png")]
    return _listed(names, content, root)


def _listed(names: list[str], content: Callable[[str], bytes], place: Path) -> Characters:
    """Characters from names such as `images_background/Greek/character01/0394_01.png`, by those file numbers."""
    names = [name for name in names if name.split("/")[0] in SETS and name.count("/") == 3]
    names.sort(key=lambda name: name.rsplit("/", 1)[1])
    characters = list(dict.fromkeys(name.rsplit("/", 1)[0] for name in names))
    if len(characters) != CHARACTERS or len(names) != CHARACTERS * DRAWERS:
        raise DataError(
            f"'{place}' holds {len(characters)} characters and {len(names)} images where Omniglot has {CHARACTERS} and "
            f"{CHARACTERS * DRAWERS}: {REMEDY}"
        )
    keys = list(dict.fromkeys(tuple(character.split("/")[:2]) for character in characters))
    alphabet_of = [keys.index((character.split("/")[0], character.split("/")[1])) for character in characters]

    def images() -> np.ndarray:
        return np.stack([_small(content(name), name) for name in names]).reshape(-1, DRAWERS, SIDE, SIDE)

    return Characters([key[1] for key in keys], alphabet_of, [keys[code][0] == SETS[0] for code in alphabet_of], images)


def _small(png: bytes, name: str) -> np.ndarray:
    """A 105x105 picture of black ink on white, as 28x28 with ink 255 and nothing between 0 and 255."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(png)) as picture:
            grey = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's own, for files of different damage
        raise DataError(f"the picture '{name}' is damaged ({error}): get Omniglot again") from error
    return np.where(np.asarray(grey) < INK, 255, 0).astype(np.uint8)
