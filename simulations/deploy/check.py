"""`fedmeta deploy check`: what a SuperNode would meet on this machine, one line a subject, before it is started."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fedmeta.experiment import Experiment
from simulations.deploy.connection import INSECURE, Clock, greet, judge_clock, knock, parse_address, reach
from simulations.deploy.findings import Failed, Finding
from simulations.deploy.machine import check_data, check_secure_aggregation, check_versions, describe_key, read_key
from simulations.deploy.supernode import PROGRAMS, read_node_config, sign_in


@dataclass(frozen=True)
class Options:
    """The options of `flower-supernode` that matter here, and the experiment.

    Attributes:
        superlink: `host:port`.
        authority: file of the authority's certificate; None with `insecure`.
        key: file of the SuperNode's private key; None: an unauthenticated node.
        node_config: as flower-supernode takes it; None: not checked.
        experiment: that the data are to serve; None: not checked.
        insecure: no TLS.
    """

    superlink: str
    authority: Path | None = None
    key: Path | None = None
    node_config: str | None = None
    experiment: Experiment | None = None
    insecure: bool = False


def check(options: Options) -> Iterator[Finding]:
    """Check subject after subject; what rests on one that failed is not checked."""
    yield from _check_connection(options)
    yield _finding("versions", lambda: check_versions(PROGRAMS))
    data = _check_data(options)
    yield data
    if options.node_config is not None and "secagg" in options.node_config:
        text = options.node_config
        yield _finding("secagg", lambda: check_secure_aggregation(read_node_config(text)))


def _check_connection(options: Options) -> Iterator[Finding]:
    """Address, TLS, SuperLink, clock, key, registration."""
    yield (address := _finding("address", lambda: reach(parse_address(options.superlink))))
    tls = _tls(options, address)
    yield tls
    superlink, clock = _superlink(options, (address, tls))
    yield superlink
    yield clock
    key = _key(options)
    yield key
    yield _registration(options, (address, tls, superlink, clock, key))


def _tls(options: Options, address: Finding) -> Finding:
    if options.insecure:
        return Finding("tls", "warning", INSECURE, "give --root-certificates in place of --insecure")
    if options.authority is None:
        return Finding(
            "tls",
            "failed",
            "no authority to trust",
            "name ca.crt, from the folder of `fedmeta certs`, with --root-certificates",
        )
    authority = options.authority
    return _after((address,), "tls", lambda: greet(parse_address(options.superlink), authority))


def _superlink(options: Options, before: tuple[Finding, ...]) -> tuple[Finding, Finding]:
    """The service and its clock, from one answer."""
    authority = None if options.insecure else options.authority
    told: list[Clock] = []

    def ask() -> str:
        told.append(knock(parse_address(options.superlink), authority))
        return "it is healthy"

    superlink = _after(before, "superlink", ask)
    return superlink, _after((*before, superlink), "clock", lambda: judge_clock(told[0]))


def _key(options: Options) -> Finding:
    if options.key is None:
        return Finding(
            "key",
            "warning",
            "none: a SuperLink with --enable-supernode-auth refuses this node, and others may claim to be it",
            "make one with `fedmeta certs --node NAME`, and name it with --auth-supernode-private-key",
        )
    path = options.key
    return _finding("key", lambda: describe_key(path))


def _registration(options: Options, before: tuple[Finding, ...]) -> Finding:
    if options.key is None or options.insecure or options.authority is None:
        return Finding("registration", "not checked", "authentication needs TLS and a key")
    authority, key = options.authority, options.key
    return _after(before, "registration", lambda: sign_in(parse_address(options.superlink), authority, read_key(key)))


def _check_data(options: Options) -> Finding:
    if options.node_config is None or options.experiment is None:
        return Finding("data", "not checked", "give --node-config and an experiment file")
    text, experiment = options.node_config, options.experiment
    return _finding("data", lambda: check_data(read_node_config(text), experiment))


def _finding(subject: str, find: Callable[[], str]) -> Finding:
    try:
        return Finding(subject, "ok", find())
    except Failed as failed:
        return Finding(subject, "failed", failed.text, failed.remedy)


def _after(before: tuple[Finding, ...], subject: str, find: Callable[[], str]) -> Finding:
    failed = [finding.subject for finding in before if finding.status == "failed"]
    if failed:
        return Finding(subject, "not checked", f"mend {failed[0]} first")
    return _finding(subject, find)
