"""The report page: one self-contained HTML file, drawn from what the run directory holds, finished or not."""

import json
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from fedmeta.statistics import Evaluation
from server.report import plots
from server.report.episode import EpisodePicture
from server.report.headline import SPLITS, format_score, headline
from server.report.template import TEMPLATE
from server.rundir import RunDir
from strategies.replies import group_reasons

SHOWN_TROUBLES = 20


@dataclass(frozen=True)
class Section:
    """One figure of the page."""

    title: str
    svg: str
    caption: str
    narrow: bool = True


def write_report(rundir: RunDir, picture: EpisodePicture | None) -> Path:
    """Draw plots and page into the run directory.

    Args:
        rundir: of a run that may have ended early.
        picture: an episode to show; None leaves it away, saying so.

    Returns:
        The path of the page.
    """
    from jinja2 import Environment, StrictUndefined

    metrics, results = rundir.metrics(), rundir.results()
    experiment = rundir.experiment
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(TEMPLATE)
    troubles = _troubles(metrics)
    text = page.render(
        title=experiment.name,
        subtitle=_subtitle(rundir),
        finished=results is not None,
        rounds=metrics[-1]["round"] if metrics else 0,
        total_rounds=experiment.server.rounds,
        groups=_groups(results or {}),
        best=_best(results or {}),
        sections=_sections(rundir, metrics, results or {}, picture),
        no_episode=""
        if picture is not None
        else "The data of the test clients were not at hand when this page was drawn.",
        troubles=troubles[:SHOWN_TROUBLES],
        more_troubles=max(0, len(troubles) - SHOWN_TROUBLES),
        configuration=json.dumps(experiment.model_dump(mode="json"), indent=2),
        environment=json.dumps(rundir.environment(), indent=2),
    )
    rundir.report.write_text(text, encoding="utf-8")
    return rundir.report


def _subtitle(rundir: RunDir) -> str:
    experiment = rundir.experiment
    server = experiment.server
    return (
        f"{experiment.learner.name} with {experiment.model.name} on {experiment.data.name}, divided by "
        f"{experiment.partition.name}; {server.rounds} rounds, "
        f"{server.sampling.name} sampling, {server.aggregator.name} aggregation; seed {experiment.seed}."
    )


def _groups(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Headline rows by what was judged and which model, with the protocol in words."""
    rows = headline(results) if results else []
    found = []
    for split, members in groupby(rows, key=lambda row: row.split):
        own = list(members)
        key = next(name for name, words in SPLITS.items() if words == split)
        model = own[-1].model
        which = "best" if model.startswith("best") else "last"
        found.append(
            {
                "split": split,
                "model": model,
                "rows": own,
                "protocol": _protocol(Evaluation.from_json(results[which][key])),
            }
        )
    return found


def _protocol(evaluation: Evaluation) -> str:
    """What must stand beside a number."""
    facts = evaluation.protocol
    whose = "one pooled client" if evaluation.split == "pooled" else f"each of {len(evaluation.clients)} clients"
    manner = "transductive: a query set is judged together" if facts.get("transductive") else "inductive"
    return (
        f"{_task_in_words(facts)}; {facts.get('episodes')} frozen episodes of {whose}, seed {facts.get('seed')}; "
        f"{manner}; intervals over {evaluation.after.count} {evaluation.after.unit}."
    )


def _task_in_words(facts: dict[str, Any]) -> str:
    if "support-fraction" in facts:
        return f"a client's own data, {100 * facts['support-fraction']:g} % of it support"
    if "ways" in facts:
        return f"{facts['ways']}-way {facts['shots']}-shot, {facts['queries']} queries a class"
    return f"{facts.get('shots')} support and {facts.get('queries')} query points"


def _best(results: dict[str, Any]) -> dict[str, Any] | None:
    best = results.get("best")
    if not best:
        return None
    judged = (best.get("test") or results["last"].get("test") or {}).get("score_name", "accuracy")
    return {"round": best["round"], "score": format_score(judged, best["score"])}


def _sections(
    rundir: RunDir, metrics: list[dict[str, Any]], results: dict[str, Any], picture: EpisodePicture | None
) -> list[Section]:
    last = results.get("last") or {}
    judged = [Evaluation.from_json(last[split]) for split in SPLITS if last.get(split)]
    score_name = judged[0].score_name if judged else _score_name(metrics)
    baseline = any(evaluation.baseline is not None for evaluation in judged)
    figures: list[tuple[str, str, Any, str, bool]] = [
        ("learning", "Learning", plots.learning_curves(metrics, score_name), "Band: 95 % interval.", False),
        (
            "adaptation",
            "Adaptation",
            plots.adaptation_curve(judged),
            "Bands: 95 % intervals." + (" Dotted: pixel nearest neighbour." if baseline else ""),
            True,
        ),
    ]
    if picture is not None:
        count = f"{picture.steps} step{'s' if picture.steps != 1 else ''}"
        words = f"The first frozen episode of test client {picture.client.name}, adapted in {count}."
        figures.append(("episode", "An episode", plots.episode_figure(picture), words, True))
    own = [evaluation for evaluation in judged if evaluation.split == "test"]
    if own:
        names = last.get("names", {})
        figures.append(
            ("clients", "Clients", plots.clients_chart(own[0], names), "Mean over a client's episodes.", True)
        )
    sections = []
    for name, title, figure, caption, narrow in figures:
        if figure is not None:
            plots.save_png(figure, rundir.plots / f"{name}.png")
            sections.append(Section(title, plots.themed_svg(figure), caption, narrow))
    return sections


def _score_name(metrics: list[dict[str, Any]]) -> str:
    return "mse" if any("mse" in record["train"] for record in metrics) else "accuracy"


def _troubles(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line for each kind of failure of a round."""
    found = []
    for record in metrics:
        lines = [f"the model stayed as it was: {record['event']}"] if record["event"] else []
        for kind in ("failed", "refused"):
            reasons = {int(client): reason for client, reason in record[kind].items()}
            lines += [f"{kind}: {line}" for line in group_reasons(reasons)]
        found += [{"round": record["round"], "text": line} for line in lines]
    return found
