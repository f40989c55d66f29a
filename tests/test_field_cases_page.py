"""docs/field-cases.md: eighteen kinds, each looked for in two places at least, and every test that it names exists."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROWS = [
    [cell.strip() for cell in line.strip().strip("|").split("|")]
    for line in (ROOT / "docs" / "field-cases.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| kind")
]


def test_eighteen_kinds_with_two_places_each() -> None:
    places: dict[str, int] = {}
    for kind, *_ in ROWS:
        found = re.match(r"\*\*(F\d\d)\*\*", kind)
        name = found[1] if found else list(places)[-1]
        places[name] = places.get(name, 0) + 1
    assert list(places) == [f"F{number:02}" for number in range(1, 19)]
    assert min(places.values()) >= 2


def test_every_test_that_is_named_exists() -> None:
    missing = []
    for *_, shown in ROWS:
        path = ""
        for where, name in re.findall(r"`([\w/]*(?:\.py)?)::(\w+)`", shown):
            path = where or path
            if not re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.MULTILINE):
                missing.append(f"{path}::{name}")
        assert path, shown
    assert missing == []
