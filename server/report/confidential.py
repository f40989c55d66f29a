"""The report's section on privacy: the claim, whom it holds against, and what it does not cover."""

from typing import Any

from server.privacy import privacy_statement
from server.rundir import RunDir
from server.words import counted


def privacy_facts(rundir: RunDir, metrics: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What the page shows, in words; None for a run without privacy.

    Args:
        rundir: with the ledger, from which all figures come.
        metrics: the records of the rounds.
    """
    said = privacy_statement(rundir)
    if not said:
        return None
    other = said["other_unit"]
    return {
        "title": said["title"],
        "warnings": _warnings(said),
        "label": f"epsilon of one {said['unit']}"
        + (f" (client {said['client']})" if said["client"] is not None else ""),
        "epsilon": _epsilon(said["epsilon"]),
        "delta": f"at delta {said['delta']:g}"
        + ("" if said["no_bound"] else f", by {said['accountant'].upper()} ({said['version']})"),
        "other": {
            "label": f"epsilon of one {other['unit']}",
            "epsilon": _epsilon(other["epsilon"]),
            "why": other["why"],
        },
        "rows": _rows(said, metrics),
    }


def _warnings(said: dict[str, Any]) -> list[str]:
    found = []
    if said["simulated"]:
        found.append("Simulated: no privacy was needed or given.")
    if said["no_bound"]:
        found.append(f"No guarantee: {said['no_bound']}.")
    if said["delta_too_large"]:
        found.append(f"Delta {said['delta']:g} is not below one over the number of clients, and so promises nothing.")
    return found


def _rows(said: dict[str, Any], metrics: list[dict[str, Any]]) -> list[tuple[str, str]]:
    empty = sum(not record["sampled"] for record in metrics)
    at_first = " at first" if said["clipping"] == "adaptive" else ""
    rows = [
        ("unit", said["unit_in_words"]),
        ("neighbours", said["adjacency"]),
        ("who is trusted", said["trust"]),
        ("mechanism", f"{said['mechanism']}, {said['placement']} noise; {said['exactness']}"),
        ("clipping", f"{said['clipping']}, norm {said['clip_norm']:g}{at_first}"),
        ("sampling", f"{said['sampler']}; {said['enforced']}"),
        ("releases", _releases(said)),
        ("bounds", _bounds(said)),
        ("not covered", "; ".join(said["not_covered"])),
    ]
    if said["survivors"] is not None:
        rows.insert(4, ("survivors", _survivors(said, metrics)))
    if empty:
        manner = "released noise and count" if said["placement"] == "central" else "released nothing"
        rows.insert(-2, ("empty rounds", f"{empty} of {len(metrics)} rounds drew no client: they {manner}"))
    if said["audit"]:
        rows.insert(-1, ("audited", audit_in_words(said["audit"])))
    if said["budget"] is not None:
        rows.append(("budget", f"epsilon {said['budget']:g}"))
    return rows


def _survivors(said: dict[str, Any], metrics: list[dict[str, Any]]) -> str:
    sizes = [len(group["clients"]) for record in metrics for group in record.get("groups", [])]
    seen = f"{min(sizes)} in the smallest sum of this run" if sizes else "no sum was released"
    return f"at least {said['survivors']} of a group, or its masks stay on; {seen}"


def audit_in_words(found: dict[str, Any]) -> str:
    """What an audit found, in one sentence each."""
    one_run = found["one_run"]
    guessed = f"{one_run['correct']} of {one_run['guesses']} guesses about {found['canaries']} canaries were right"
    if not one_run["guesses"]:
        guessed = f"no share of the guesses about {found['canaries']} canaries proves more; more rounds or canaries may"
    return (
        f"at least epsilon {_epsilon(one_run['epsilon'])} by the one-run audit ({guessed}); at least "
        f"{_epsilon(found['by_rates'])} if the trade-off is Gaussian; about {_epsilon(found['estimate'])} by the "
        f"one-shot estimate, which is no bound; claimed {_epsilon(found['claim'])}; confidence "
        f"{100 * (1 - one_run['beta']):g} %"
    )


def _releases(said: dict[str, Any]) -> str:
    text = f"{said['releases']} in {counted(said['rounds'], 'round')}"
    if said["unreleased"]:
        text += f"; {said['unreleased']} reserved and never confirmed, after a crash: counted as spent"
    return text


def _epsilon(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _bounds(said: dict[str, Any]) -> str:
    source = [f"by {said['analysis']}"] if said["analysis"] else []
    return "; ".join([*source, *(f"{name.upper()}: {_bound(value)}" for name, value in said["bounds"].items())])


def _bound(value: Any) -> str:
    return value if isinstance(value, str) else _epsilon(value)
