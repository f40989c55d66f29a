"""The sections of the report page: every figure that a run directory gives, with its title and caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedmeta.experiment import Experiment
from fedmeta.statistics import SCORES, Evaluation
from server.attack import in_words, persistence_in_words, successes
from server.findings import finding
from server.report import plots
from server.report.calibration import calibration_caption, reliability_figure
from server.report.episode import EpisodePicture
from server.report.examinations import examination_figures
from server.report.explain import Drawn, explanation_figures
from server.report.glyphs import glyph_figure
from server.report.headline import SPLITS
from server.rundir import RunDir

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EPISODE = "An episode"
"""Title of the section of a picture of an episode."""


@dataclass(frozen=True)
class Section:
    """One figure of the page; a narrow one keeps its own width."""

    title: str
    svg: str
    caption: str
    narrow: bool = True


def draw_sections(
    rundir: RunDir, metrics: list[dict[str, Any]], results: dict[str, Any], picture: EpisodePicture | None
) -> list[Section]:
    """Draw all figures there are, in their order on the page, and write each into the run directory's plots, too.

    Args:
        rundir: of a run that may have ended early.
        metrics: its records, one a round.
        results: its final evaluations; empty where there are none yet.
        picture: an episode to show; None for none.
    """
    figures = [
        *_learning_figures(rundir.experiment, metrics, results),
        ("episode", EPISODE, _episode(picture), _episode_caption(picture), _has_glyphs(picture)),
        *explanation_figures(finding(rundir, "explain")),
        *examination_figures(rundir),
        *_client_figures(metrics, results),
    ]
    sections = []
    for name, title, figure, caption, narrow in figures:
        if figure is not None:
            plots.save_png(figure, rundir.plots / f"{name}.png")
            sections.append(Section(title, plots.themed_svg(figure, f"{title}: {caption}"), caption, narrow))
    return sections


def _learning_figures(experiment: Experiment, metrics: list[dict[str, Any]], results: dict[str, Any]) -> list[Drawn]:
    """How the model got better: over the rounds, over the steps of adaptation, and in its confidence."""
    last = results.get("last") or {}
    judged = [Evaluation.from_json(last[split]) for split in SPLITS if last.get(split)]
    score_name = judged[0].score_name if judged else _score_name(metrics)
    bars = "Bands and bars: 95 % intervals."
    learning = bars if any(record["validation"] for record in metrics) else "Means over the clients of a round."
    curves = plots.learning_curves(metrics, score_name, _kinds_of_tasks(experiment, metrics))
    return [
        ("learning", "Learning", curves, learning, False),
        ("adaptation", "Adaptation", plots.adaptation_curve(judged), bars + _dotted(judged), False),
        ("calibration", "Calibration", reliability_figure(judged), calibration_caption(judged), False),
    ]


def _dotted(judged: Sequence[Evaluation]) -> str:
    """What the dotted line is, as a sentence after another; empty where there is none."""
    baselines = list(dict.fromkeys(name for evaluation in judged for name in evaluation.baselines))
    if not baselines:
        return ""
    return f" Dotted: {baselines[0]}." if len(baselines) == 1 else f" Dotted: the best of {', '.join(baselines)}."


def _client_figures(metrics: list[dict[str, Any]], results: dict[str, Any]) -> list[Drawn]:
    """What attackers reached, who looked like one, and how each client fared."""
    found: list[Drawn] = []
    attacked = successes(results)
    if attacked:
        lasting = persistence_in_words(results.get("attack_persistence") or {})
        words = "; ".join(part for part in (in_words(attacked[0][1].protocol), lasting) if part)
        found.append(("attack", "Attack", plots.success_curve(attacked), words, False))
    words = "The aggregator's own scores: higher is more suspicious."
    found.append(("scores", "Who looked suspicious", plots.scores_chart(metrics), words, False))
    last = results.get("last") or {}
    if last.get("test"):
        chart = plots.clients_chart(Evaluation.from_json(last["test"]), last.get("names", {}))
        found.append(("clients", "Clients", chart, "Mean over a client's episodes.", False))
    return found


def _kinds_of_tasks(experiment: Experiment, metrics: list[dict[str, Any]]) -> tuple[str, str]:
    """The episodes of training and of validation in words; empty where they are alike, or there are none."""
    task = experiment.task
    judged: dict[str, Any] = next((record["validation"]["protocol"] for record in metrics if record["validation"]), {})
    alike = (judged.get("ways"), judged.get("shots")) == (task.ways, task.shots)
    if "ways" not in judged or task.kind != "episodes" or alike:
        return "", ""
    return f"{task.ways}-way {task.shots}-shot", f"{judged['ways']}-way {judged['shots']}-shot"


def _episode(picture: EpisodePicture | None) -> Figure | None:
    """Pictures for images, curves for one number of one number, nothing for other tasks."""
    if picture is None:
        return None
    if picture.curve is not None:
        return plots.curve_figure(picture)
    return glyph_figure(picture) if _has_glyphs(picture) else None


def _has_glyphs(picture: EpisodePicture | None) -> bool:
    query = picture.episode.query if picture is not None else None
    return query is not None and query.x.dim() == 4 and not query.y.is_floating_point()


def _episode_caption(picture: EpisodePicture | None) -> str:
    if picture is None:
        return ""
    steps = plots.steps_in_words(picture.steps)
    return f"The first frozen episode of test client {picture.client.name}, adapted in {steps}."


def _score_name(metrics: list[dict[str, Any]]) -> str:
    told = [key for record in metrics for key in record["train"] if key in SCORES]
    return next(iter(told), "accuracy")
