"""The tutorial on one's own data, snippet after snippet in one namespace, as a newcomer runs it."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "your-own-data.md"


def test_every_snippet_of_the_tutorial_runs(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(snippets) == 7
    names: dict[str, object] = {}
    sizes = []
    for number, snippet in enumerate(snippets, 1):
        exec(compile(snippet, f"snippet {number} of {PAGE.name}", "exec"), names)
        if "data = " in snippet:
            sizes.append(len(names["data"].labels))  # type: ignore[attr-defined]
    assert sizes == [1200, 1200, 240, 600, 200]
    assert (tmp_path / "runs" / "mine" / "report.html").exists()
    assert re.search(r"after adaptation \(1 step\) \d+\.\d %", capsys.readouterr().out)
