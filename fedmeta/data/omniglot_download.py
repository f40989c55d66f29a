"""The official download of Omniglot, for where there is a network."""

import hashlib
import http.client
import os
import tempfile
import urllib.request
from pathlib import Path

from fedmeta.data.cache import cache_dir
from fedmeta.data.omniglot_files import REMEDY
from fedmeta.errors import DataError

OFFICIAL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python"
MD5 = {
    "images_background.zip": "68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation.zip": "6b91aef0f799c5bb55b94e3f2daec811",
}
"""Of the official zips, as torchvision checks them too: against damage on the way, not against malice."""


def download() -> Path:
    """The folder of the official zips in the cache, fetched on first use.

    Raises:
        DataError: no network, a damaged download, or a cache folder that cannot be written.
    """
    folder = cache_dir() / "omniglot"
    for name in MD5:
        if (folder / name).exists():
            continue
        content = _fetched(name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=folder, suffix=".part")
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.replace(temporary, folder / name)
        except OSError as error:
            raise DataError(
                f"cannot write '{folder}' ({error.strerror or error}): set FEDMETA_CACHE to another folder"
            ) from error
    return folder


def _fetched(name: str) -> bytes:
    try:
        with urllib.request.urlopen(f"{OFFICIAL}/{name}", timeout=30) as response:
            content: bytes = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise DataError(
            f"Omniglot cannot be downloaded from {OFFICIAL} ({error}). Without a network, {REMEDY}"
        ) from error
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != MD5[name]:
        raise DataError(f"what came from {OFFICIAL}/{name} is not the official file: try again, or {REMEDY}")
    return content
