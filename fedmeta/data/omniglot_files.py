"""Where Omniglot's images come from: the packed file, the extracted folders, the official zips, or the download."""

import hashlib
import io
import json
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedmeta.data.cache import cache_dir
from fedmeta.errors import DataError

FORMAT = 1
"""Changes whenever prepared images would: part of the cache key."""

SETS = ("images_background", "images_evaluation")
OFFICIAL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python"
SIDE, DRAWERS = 28, 20
REMEDY = (
    "set data.path (or FEDMETA_OMNIGLOT) to the packed omniglot28.npz, to a folder with images_background/ and "
    "images_evaluation/, or to one with images_background.zip and images_evaluation.zip"
)


@dataclass(frozen=True)
class Characters:
    """The 1,623 characters: background alphabets first, alphabets and characters in alphabetical order.

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


def find(path: Path | None) -> Path:
    """The place to read from, downloaded first where no path is given.

    Raises:
        DataError: nothing there, or no network.
    """
    if path is None:
        return _download()
    if not path.exists():
        raise DataError(f"there is no Omniglot at '{path}': {REMEDY}")
    return path


def fingerprint(place: Path) -> str:
    """What tells one source from another: kind, file names and sizes, and the content of a single file."""
    if place.is_file():
        with place.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = sorted(path for path in place.rglob("*") if path.suffix in (".zip", ".png"))
    listed = [(path.relative_to(place).as_posix(), path.stat().st_size) for path in files]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def read(place: Path) -> Characters:
    """Describe the characters at a place.

    Raises:
        DataError: the place is none of the known forms, or incomplete.
    """
    if place.is_file():
        return _packed(place)
    root = next((root for root in (place, place / "omniglot-py", place / "python") if (root / SETS[0]).is_dir()), None)
    if root is not None:
        names = [path.relative_to(root).as_posix() for path in root.rglob("*.png")]
        return _listed(names, lambda name: (root / name).read_bytes(), place)
    if all((place / f"{name}.zip").is_file() for name in SETS):
        return _zipped(place)
    raise DataError(f"'{place}' holds no Omniglot in a known form: {REMEDY}")


def _packed(place: Path) -> Characters:
    description = place.with_suffix(".json")
    try:
        alphabets = json.loads(description.read_text(encoding="utf-8"))
        names = [entry["name"] for entry in alphabets]
        alphabet_of = [code for code, entry in enumerate(alphabets) for _ in range(entry["first"], entry["stop"])]
        background = [alphabets[code]["set"] == "background" for code in alphabet_of]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise DataError(f"'{description}' does not describe the packed file beside it ({error}): {REMEDY}") from error

    def images() -> np.ndarray:
        try:
            with np.load(place, allow_pickle=False) as archive:
                packed = archive["images"]
            bits = np.unpackbits(packed, axis=-1)
            return bits.reshape(len(alphabet_of), DRAWERS, SIDE, SIDE) * np.uint8(255)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
            raise DataError(f"'{place}' is damaged ({error}): get it again, or {REMEDY}") from error

    return Characters(names, alphabet_of, background, images)


def _zipped(place: Path) -> Characters:
    try:
        archives = {name: zipfile.ZipFile(place / f"{name}.zip") for name in SETS}
        names = [entry for archive in archives.values() for entry in archive.namelist() if entry.endswith(".png")]
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"a zip in '{place}' is damaged ({error}): delete it and get it again") from error
    return _listed(names, lambda name: archives[name.split("/")[0]].read(name), place)


def _listed(names: list[str], content: Callable[[str], bytes], place: Path) -> Characters:
    """Characters from names such as `images_background/Greek/character01/0394_01.png`."""
    names = sorted(name for name in names if name.split("/")[0] in SETS and name.count("/") == 3)
    characters = sorted({name.rsplit("/", 1)[0] for name in names})
    if len(characters) != 1623 or len(names) != 1623 * DRAWERS:
        raise DataError(
            f"'{place}' holds {len(characters)} characters and {len(names)} images where Omniglot has 1623 and "
            f"{1623 * DRAWERS}: {REMEDY}"
        )
    keys = list(dict.fromkeys(tuple(character.split("/")[:2]) for character in characters))
    alphabet_of = [keys.index((character.split("/")[0], character.split("/")[1])) for character in characters]

    def images() -> np.ndarray:
        return np.stack([_small(content(name), name) for name in names]).reshape(-1, DRAWERS, SIDE, SIDE)

    return Characters([key[1] for key in keys], alphabet_of, [keys[code][0] == SETS[0] for code in alphabet_of], images)


def _small(png: bytes, name: str) -> np.ndarray:
    """A 105x105 picture of black ink on white, as 28x28 with ink 255 and nothing between 0 and 255."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(png)) as picture:
            grey = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"the picture '{name}' is damaged ({error}): get Omniglot again") from error
    return np.where(np.asarray(grey) < INK, 255, 0).astype(np.uint8)


INK = 216
"""A small pixel is ink when its 3.75 x 3.75 source pixels are darker than this on average."""


def _download() -> Path:
    folder = cache_dir() / "omniglot"
    for name in SETS:
        target = folder / f"{name}.zip"
        if target.exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        temporary = target.with_suffix(".part")
        try:
            with urllib.request.urlopen(f"{OFFICIAL}/{name}.zip", timeout=30) as response:
                temporary.write_bytes(response.read())
        except (urllib.error.URLError, OSError) as error:
            raise DataError(
                f"Omniglot cannot be downloaded from {OFFICIAL} ({error}). Without a network, {REMEDY}"
            ) from error
        temporary.replace(target)
    return folder
