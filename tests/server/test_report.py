"""The report: self-contained, complete with what there is, and honest about what there is not."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from fedmeta.data.base import ClientInfo
from fedmeta.estimates import Estimate
from fedmeta.statistics import Evaluation
from fedmeta.tasks import Batch, Episode
from server.report import EpisodePicture, headline, plots, write_report
from server.report.glyphs import glyph_figure
from server.report.troubles import troubles
from server.rundir import RunDir
from simulations import simulate
from simulations.result_tables import calibration_table

VOID = {"meta", "br", "hr", "img", "link", "input", "path", "use", "rect", "image"}


class Page(HTMLParser):
    """Checks that tags close, and gathers what would leave the page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and value and not value.startswith(("#", "data:")):
                self.outside.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"


def read(path: Path) -> str:
    text = path.read_text()
    page = Page()
    page.feed(text)
    assert not page.open and not page.outside
    assert "@import" not in text and "<script" not in text
    ids = re.findall(r'id="([^"]+)"', text)
    assert len(ids) == len(set(ids)), "figures' ids collide"
    return text


WAVES = {
    "name": "waves",
    "data": {"name": "sinusoid"},
    "partition": {"name": "iid", "clients": 3, "validation_clients": 1, "test_clients": 2},
    "task": {"ways": 1, "shots": 5, "queries": 5},
    "model": {"name": "sinusoid"},
    "learner": {"name": "maml", "inner_lr": 0.01, "test_steps": 3},
    "client": {"steps": 1, "tasks_per_step": 1},
    "server": {"rounds": 3, "sampling": {"name": "fixed", "clients": 2}},
    "evaluation": {"every": 2, "episodes": 2, "validation_episodes": 2, "pooled_episodes": 2, "steps": [0, 1, 3]},
}
GLYPHS = {
    **WAVES,
    "name": "glyphs",
    "data": {"name": "hershey", "writers": 2, "examples_per_writer": 3},
    "partition": {"name": "alphabet", "validation_clients": 0},
    "task": {"ways": 5, "shots": 1, "queries": 3},
    "model": {"name": "mlp", "hidden": [8], "normalisation": "none"},
    "learner": {"name": "protonet"},
}


def test_a_run_on_glyphs_with_every_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDMETA_CACHE", str(tmp_path / "cache"))
    result = simulate(GLYPHS, engine="inline", out=tmp_path / "run")
    text = read(result.path / "report.html")
    rows = headline(result.results)
    assert [row.label for row in rows[:3]] == [
        "pixel nearest neighbour",
        "before adaptation",
        "after adaptation (1 step)",
    ]
    for row in rows:
        said = row.format(row.estimate.mean)
        assert said in text and said.endswith(" points" if row.signed else " %")
    for name in ("learning", "adaptation", "calibration", "episode", "clients"):
        assert (result.path / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    judged = result.evaluation("test")
    assert judged is not None and judged.ece_after is not None and judged.brier_after is not None
    figures = (f"NLL {judged.loss_after.mean:.3f}", f"Brier {judged.brier_after.mean:.3f}", f"{judged.ece_after:.3f}")
    assert all(words in text for words in figures) and "ECE, 15 bins" in text
    assert sum(judged.bins[judged.steps.index(judged.adapted)][0]) == 15 * 2 * len(judged.clients)
    table = calibration_table(result.results)
    assert table is not None and table.row_count == 2
    assert "no model was chosen" in text and "5-way 1-shot, 3 queries a class" in text and "inductive" in text


def test_a_regression_run_shows_best_and_last(tmp_path: Path) -> None:
    result = simulate(WAVES, engine="inline", out=tmp_path / "run")
    text = read(result.path / "report.html")
    best = result.results["best"]["round"]
    assert f"Best on validation: round {best}" in text and "The last round is 3" in text
    assert calibration_table(result.results) is None and "Calibration" not in text
    assert "pixel nearest" not in text and " %" not in headline(result.results)[0].format(0.5)
    models = {row.model for row in headline(result.results)}
    assert models == ({"last and best (round 3)"} if best == 3 else {"last (round 3)", f"best (round {best})"})


def test_an_unfinished_run_has_a_report_too(tmp_path: Path) -> None:
    def stop(record) -> None:
        if record["round"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(WAVES, engine="inline", out=tmp_path / "run", observers=[stop])
    assert "2 of 3 rounds are done" in read(tmp_path / "run" / "report.html")


def test_a_run_of_no_rounds_and_troubles_in_words(tmp_path: Path) -> None:
    result = simulate(WAVES, engine="inline", out=tmp_path / "run", overrides={"server.rounds": 0})
    read(result.path / "report.html")
    rundir = RunDir.open(result.path)
    failed = {str(client): "ValueError: <b>age</b>" for client in range(12)}
    rundir.append(
        {
            "round": 1,
            "sampled": list(range(12)),
            "train": {},
            "failed": failed,
            "refused": {},
            "event": "nobody",
            "validation": None,
        }
    )
    text = read(write_report(rundir, None))
    assert "12 clients (0, 1, 2, 3, 4, ...): ValueError: &lt;b&gt;age&lt;/b&gt;" in text
    assert "the model stayed as it was: nobody" in text and "not at hand" in text


def pictured(support: list[int], query: list[int], ways: int, channels: int = 1) -> EpisodePicture:
    parts = [
        Batch(torch.rand(len(slots), channels, 28, 28), torch.tensor(slots, dtype=torch.int64))
        for slots in (support, query)
    ]
    outputs = np.eye(ways)[query]
    return EpisodePicture(ClientInfo(0, "mine", "test"), Episode(*parts, torch.arange(ways)), outputs, outputs, 1, None)


@pytest.mark.parametrize(
    ("picture", "shown"),
    [
        (pictured([0], [0], 1), 2),
        (pictured([0] * 9 + [1, 2], [0, 1, 1, 3], 4), 5 + 1 + 1 + 1 + 2 + 1),
        (pictured(list(range(20)), list(range(20)), 20), 20),
        (pictured(list(range(5)) * 20, list(range(5)), 5, channels=3), 30),
    ],
    ids=["one of all", "unbalanced, and classes without support or query", "many ways", "many shots, in colour"],
)
def test_episodes_of_any_make_have_a_picture(picture: EpisodePicture, shown: int) -> None:
    figure = glyph_figure(picture)
    assert len(figure.axes) == 1 and len(figure.axes[0].images) == shown
    assert max(figure.get_size_inches()) < 15
    words = [text.get_text() for text in figure.axes[0].texts]
    assert not any("✗" in word for word in words) and any("✓" in word for word in words)


def judged(clients: dict[str, float]) -> Evaluation:
    whole = Estimate(0.9, 0.85, 0.95, len(clients), "clients")
    return Evaluation("test", "accuracy", (0, 1), (whole, whole), (whole, whole), {}, clients, {}, 1)


def test_thousands_of_clients_take_no_more_room_than_a_hundred() -> None:
    hundred, thousands = (
        plots.clients_chart(judged({str(i): i / count for i in range(count)}), {}) for count in (100, 5000)
    )
    assert hundred is not None and thousands is not None
    assert tuple(hundred.get_size_inches()) == tuple(thousands.get_size_inches())
    assert plots.clients_chart(judged({"0": 0.5}), {}) is None
    few = plots.clients_chart(judged({"0": 0.5, "1": 0.25, "2": float("nan")}), {"0": "Greek"})
    assert few is not None and [t.get_text() for t in few.axes[0].get_yticklabels()] == ["client 1", "Greek"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [1, 3, 301])
def test_learning_curves_of_few_rounds_many_rounds_and_rounds_without_numbers(count: int) -> None:
    records = [{"round": 1 + i, "train": {"loss": 1.0, "accuracy": 0.5}, "validation": None} for i in range(count)]
    assert len(plots.learning_curves(records, "accuracy").axes) == 2  # type: ignore[union-attr]
    empty = {"round": count + 1, "train": {}, "validation": None}
    null = {"round": count + 2, "train": {"loss": None, "accuracy": None}, "validation": None}
    assert plots.learning_curves([*records, empty, null], "accuracy") is not None
    assert plots.learning_curves([empty], "accuracy") is None
    only_loss = [{"round": 1, "train": {"loss": 1.0}, "validation": None}]
    assert len(plots.learning_curves(only_loss, "accuracy").axes) == 1  # type: ignore[union-attr]


def test_a_picture_of_two_kinds_of_tasks_says_so() -> None:
    """On one axis 5-way validation looks better than 10-way training, whatever the model."""
    found = judged({"0": 0.5}).to_json()
    records = [{"round": 1, "train": {"loss": 1.0, "accuracy": 0.5}, "validation": found}]
    figure = plots.learning_curves(records, "accuracy", ("10-way 1-shot", "5-way 1-shot"))
    assert figure is not None
    legend = figure.axes[1].get_legend()
    assert legend is not None
    assert [t.get_text() for t in legend.get_texts()] == [
        "training clients, 10-way 1-shot",
        "validation clients, 5-way 1-shot",
    ]


def test_alike_troubles_are_told_once_and_none_is_left_out() -> None:
    quiet = {"failed": {}, "refused": {}, "event": None}
    metrics = [{**quiet, "round": 1 + i, "failed": {str(i % 3): "ValueError: age"}} for i in range(6)]
    metrics[3] = {**quiet, "round": 4, "event": "nobody", "validation_failed": {"7": "busy"}}
    results = {"last": {"round": 6, "failed": {"8": "gone"}}, "best": {"round": 6, "failed": {"8": "gone"}}}
    assert troubles(metrics, results) == [
        {"rounds": "1 to 3, 5 to 6", "text": "failed: 3 clients (0, 1, 2): ValueError: age"},
        {"rounds": "4", "text": "the model stayed as it was: nobody"},
        {"rounds": "4", "text": "failed at validation: 1 client (7): busy"},
        {"rounds": "end", "text": "failed at the final evaluation of the last model: 1 client (8): gone"},
    ]
