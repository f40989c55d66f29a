"""The report page: one self-contained HTML file, drawn from what the run directory holds, finished or not."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

from fedmeta.statistics import Evaluation
from server.detection import detection_of_run, detection_rows
from server.report.confidential import privacy_facts
from server.report.deployment import deployment_rows
from server.report.episode import EpisodePicture
from server.report.headline import SPLITS, Row, format_score, headline
from server.report.sections import EPISODE, Section, draw_sections
from server.report.template import TEMPLATE
from server.report.troubles import troubles
from server.rundir import RunDir
from server.secure_aggregation import secure_rows
from server.summary import in_one_line
from server.words import counted, why_unknown

SHOWN_TROUBLES = 20


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
    lines = troubles(metrics, results or {})
    sections = draw_sections(rundir, metrics, results or {}, picture)
    text = page.render(
        title=experiment.name,
        subtitle=_subtitle(rundir),
        facts=_facts(metrics, rundir.environment()),
        finished=results is not None,
        rounds=metrics[-1]["round"] if metrics else 0,
        total_rounds=experiment.server.rounds,
        groups=_groups(results or {}),
        interval=_interval,
        best=_best(results or {}),
        privacy=privacy_facts(rundir, metrics),
        secure=secure_rows(results or {}),
        detection=_detection(metrics),
        deployment=deployment_rows(results or {}),
        sections=sections,
        no_episode=_why_no_episode(results is not None, picture, sections),
        troubles=lines[:SHOWN_TROUBLES],
        more_troubles=max(0, len(lines) - SHOWN_TROUBLES),
        configuration=json.dumps(experiment.model_dump(mode="json"), indent=2),
        environment=json.dumps(rundir.environment(), indent=2),
    )
    rundir.write_report(text)
    return rundir.report


def _subtitle(rundir: RunDir) -> str:
    experiment = rundir.experiment
    server = experiment.server
    return (
        f"{in_one_line(experiment)}; clients by {experiment.partition.name}; {counted(server.rounds, 'round')}, "
        f"{server.sampling.name} sampling; seed {experiment.seed}."
    )


def _facts(metrics: list[dict[str, Any]], sessions: list[dict[str, Any]]) -> list[str]:
    """When, how long and with what, in a few words each."""
    facts = []
    if sessions:
        first = sessions[0]
        packages = first["packages"]
        facts += [first["started"][:16].replace("T", " ") + " UTC", f"Python {first['python']}"]
        facts += [f"{name} {packages[name]}" for name in ("torch", "flwr", "ray") if packages.get(name)]
        if first["git"]:
            facts.append(f"commit {first['git']['commit'][:10]}" + (" with changes" if first["git"]["changed"] else ""))
        if len(sessions) > 1:
            facts.append(f"{len(sessions)} sessions")
    seconds = sum(record.get("seconds") or 0.0 for record in metrics)
    if seconds:
        facts.append(f"rounds took {seconds:.1f} s" if seconds < 120 else f"rounds took {seconds / 60:.1f} min")
    return facts


def _groups(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Headline rows by what they were judged on: the last model's, and the best model's where it is another."""
    rows = headline(results) if results else []
    found = []
    for split, members in groupby(sorted(rows, key=lambda row: list(SPLITS.values()).index(row.split)), key=_split):
        own = list(members)
        last = [row for row in own if not row.model.startswith("best")]
        best = [row for row in own if row.model.startswith("best")]
        key = next(name for name, words in SPLITS.items() if words == split)
        found.append(
            {
                "split": split,
                "model": (last or best)[-1].model,
                "rows": last or best,
                "best": best[0] if last and best else None,
                "protocol": _protocol(Evaluation.from_json(results["last" if last else "best"][key])),
            }
        )
    return found


def _interval(row: Row) -> str:
    if not row.estimate.known:
        return why_unknown([row.estimate])
    return f"95 %: {row.format(row.estimate.low).partition(' ')[0]} to {row.format(row.estimate.high)}"


def _split(row: Row) -> str:
    return row.split


def _protocol(evaluation: Evaluation) -> str:
    """What must stand beside a number."""
    facts, after = evaluation.protocol, evaluation.after
    pooled = evaluation.split == "pooled"
    whose = "one pooled client" if pooled else f"each of {counted(len(evaluation.clients), 'client')}"
    manner = "transductive: a query set is judged together" if facts.get("transductive") else "inductive"
    return (
        f"{_task_in_words(facts)}; {counted(facts.get('episodes', 0), 'frozen episode')} of {whose}, "
        f"seed {facts.get('seed')}; {manner}; intervals over {counted(after.count, after.unit.removesuffix('s'))}."
    )


def _task_in_words(facts: dict[str, Any]) -> str:
    if "support-fraction" in facts:
        return f"a client's own data, {100 * facts['support-fraction']:g} % of it support"
    if "ways" in facts:
        return f"{facts['ways']}-way {facts['shots']}-shot, {counted(facts['queries'], 'query')} a class"
    return f"{facts.get('shots')} support and {facts.get('queries')} query points"


def _best(results: dict[str, Any]) -> dict[str, Any] | None:
    best = results.get("best")
    if not best:
        return None
    judged = (best.get("test") or results["last"].get("test") or {}).get("score_name", "accuracy")
    return {"round": best["round"], "score": format_score(judged, best["score"])}


def _detection(metrics: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    found = detection_of_run(metrics)
    return [] if found is None else detection_rows(found)


def _why_no_episode(finished: bool, picture: EpisodePicture | None, sections: list[Section]) -> str:
    if any(section.title == EPISODE for section in sections):
        return ""
    if picture is not None:
        return "Tasks of this kind have no picture."
    if not finished:
        return "An episode is drawn when the run ends."
    return "The data of the test clients were not at hand when this page was drawn."
