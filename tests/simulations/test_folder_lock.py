"""A folder that one process holds."""

from pathlib import Path

import pytest

from fedmeta.errors import FedmetaError
from simulations.folder_lock import held


def test_a_folder_that_cannot_be_made_is_named_with_a_remedy_that_the_command_has(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    text = r"cannot write the folder '.*file/x' of the search: .* another with --out$"
    with pytest.raises(FedmetaError, match=text), held(tmp_path / "file" / "x", "search"):
        pass
