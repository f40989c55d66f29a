"""The client's machine itself: its key, its versions, and its data against an experiment."""

import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key
from flwr.app import Context, RecordDict
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from clients.identity import unfit
from clients.node import client_id, workload_on
from clients.secagg_policy import is_required, node_identity, node_policy
from fedmeta.data.episodes import ClassSource
from fedmeta.device import device_of
from fedmeta.errors import FedmetaError
from fedmeta.experiment import Experiment
from fedmeta.privacy.secagg.identities import public_bytes
from simulations.deploy.findings import Failed

NAMED = ("flwr", "torch", "numpy")
"""Versions that are said also where they are right."""


def read_key(path: Path) -> EllipticCurvePrivateKey:
    """A SuperNode's key, which its owner alone may read.

    Raises:
        Failed: a file that is missing, others may read, or is not an ECDSA key on P-384 in OpenSSH's form; or whose
            public half beside it belongs to another.
    """
    again = "make one with `fedmeta certs --node NAME`, or ssh-keygen -t ecdsa -b 384 -N ''"
    try:
        content, mode = path.read_bytes(), path.stat().st_mode & 0o777
    except OSError as error:
        raise Failed(f"the key '{path}' cannot be read ({error.strerror})", again) from error
    # Before the mode: of a public half, everybody may read it, and closing it would mend nothing.
    if content.startswith((b"ecdsa-", b"ssh-")):
        raise Failed(f"'{path}' is the public half of a key", f"name the private one: '{path.with_suffix('')}'")
    if mode & 0o077:
        raise Failed(f"the key '{path}' has mode {mode:04o}: others may read it", f"chmod 600 '{path}'")
    try:
        key = load_ssh_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Failed(f"'{path}' is no private key in OpenSSH's form without a password ({error})", again) from error
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP384R1):
        raise Failed(f"the key '{path}' is of another kind than ECDSA on P-384, which Flower wants", again)
    public = path.with_name(f"{path.name}.pub")
    if public.exists():
        try:
            same = load_ssh_public_key(public.read_bytes()) == key.public_key()
        except (ValueError, UnsupportedAlgorithm):
            same = False
        if not same:
            raise Failed(
                f"'{public}' is not the public half of '{path}'",
                f"ssh-keygen -y -f '{path}' > '{public}', and register it",
            )
    return key


def describe_key(path: Path) -> str:
    """What a key is, after `read_key` has passed it."""
    read_key(path)
    return f"'{path}': ECDSA on P-384, readable by its owner alone"


def check_versions(programs: tuple[str, ...]) -> str:
    """Python and packages against what fedmeta asks for, and programs that a SuperNode starts.

    Raises:
        Failed: one is missing or of another version.
    """
    try:
        package = metadata.metadata("fedmeta")
    except metadata.PackageNotFoundError as error:
        raise Failed("fedmeta is not installed", "pip install -c constraints.txt . in a checkout of fedmeta") from error
    wrong = []
    python, wanted = platform.python_version(), package["Requires-Python"]
    if wanted and not SpecifierSet(wanted).contains(python, prereleases=True):
        wrong.append(f"python {python} where {wanted} is needed")
    for text in metadata.requires("fedmeta") or []:
        needed = Requirement(text)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        found = _version(needed.name)
        if found is None or not needed.specifier.contains(found, prereleases=True):
            wrong.append(f"{needed.name} {found or 'missing'} where {needed.specifier or 'any'} is needed")
    if wrong:
        raise Failed("; ".join(wrong), "pip install -c constraints.txt . in a checkout of fedmeta")
    absent = [program for program in programs if shutil.which(program) is None]
    if absent:
        raise Failed(
            f"{' and '.join(absent)} not found on PATH",
            "start the SuperNode with the environment's bin folder on PATH (systemd: Environment=PATH=...)",
        )
    others = ", ".join(f"{name} {_version(name)}" for name in NAMED)
    return f"fedmeta {package['Version']}, python {python}, {others}"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_secure_aggregation(config: dict[str, Any]) -> str:
    """The node's own conditions for secure aggregation, and the keys that they name.

    Raises:
        Failed: values out of bounds, files that hold no keys, or a list of trusted keys without this node's own.
    """
    context = Context(run_id=0, node_id=0, node_config=config, state=RecordDict(), run_config={})
    try:
        required, policy, identity = is_required(context), node_policy(context), node_identity(context)
    except (FedmetaError, ValueError) as error:
        raise Failed(str(error), "mend the node's configuration, or the file that it names") from error
    if policy.trusted is not None and (identity is None or public_bytes(identity.public_key()) not in policy.trusted):
        raise Failed(
            "secagg-trusted does not hold this node's own key, so that nodes with the same list mask without it",
            "name the node's key with secagg-identity, and make one list of all nodes' *.pub for every node",
        )
    trusted = "any key" if policy.trusted is None else f"{len(policy.trusted)} keys"
    signs = "signs nothing" if identity is None else "signs its keys"
    return f"masks are {'required' if required else 'allowed'}; this node {signs} and trusts {trusted}"


def check_data(config: dict[str, Any], experiment: Experiment) -> str:
    """The node's data against an experiment, as its ClientApp would read them; prepares their copy in the cache.

    Raises:
        Failed: a configuration, data or device that do not serve.
    """
    context = Context(run_id=0, node_id=0, node_config=config, state=RecordDict(), run_config={})
    try:
        client = client_id(context)
        workload = workload_on(experiment.to_json(), context)
        known = workload.federation.clients
        if workload.node is None and not 0 <= client < len(known):
            raise Failed(
                f"partition-id = {client}: the experiment's partition makes clients 0 to {len(known) - 1}",
                "start the node with one of these",
            )
        why = unfit(workload, client)
        if why:
            raise Failed(why, "mend the data, or ask the operator for an experiment that they can serve")
        device, source, info = device_of(experiment), workload.federation.source(client), workload.info(client)
    except FedmetaError as error:
        raise Failed(str(error), "mend the node's configuration or its data") from error
    said = f"client {client} ({info.name}, {info.role}) on {device}"
    if isinstance(source, ClassSource):
        count = sum(len(rows) for rows in source.rows.values())
        shape = "x".join(map(str, workload.spec_of_data.input_shape))
        said += f": {len(source.rows)} classes, {count} examples of {shape}"
    return said
