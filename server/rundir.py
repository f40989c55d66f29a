"""A run directory: configuration, environment, metrics, checkpoints, results; written so that a crash loses nothing."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from fedmeta.errors import CheckpointError, FedmetaError
from fedmeta.experiment import Experiment
from fedmeta.privacy.ledger import Ledger
from server.checkpoint import Checkpoint, read_checkpoint
from server.environment import add_session
from server.files import CannotWrite, finite, read_json, store, write_atomically, writing
from server.run_folder import clear_unstarted, fresh, leftovers, locked, remove

log = logging.getLogger("fedmeta.server")

CONFIG, METRICS, RESULTS = "config.json", "metrics.jsonl", "results.json"
ENVIRONMENT, REPORT = "environment.json", "report.html"
LEDGER, PRIVACY, AUDIT = "privacy.jsonl", "privacy.json", "audit.json"
LEAK, DETECTION, EVASION = "leak.json", "detection.json", "evasion.json"
CLIENTS, NODE_KEYS = "clients.json", "node-keys.json"
UNSTARTED = (CONFIG, ENVIRONMENT, REPORT, METRICS, PRIVACY, CLIENTS, NODE_KEYS, "plots", "tensorboard", "wandb")
"""What a run may leave that never finished a round: a ledger, a checkpoint or a finding is more."""


@dataclass(frozen=True)
class RunDir:
    """A run directory, held by this process alone until it ends or closes it.

    Attributes:
        path: the directory.
        experiment: as resolved when the run began.
        made: whether it was made for a new run, and not opened.
    """

    path: Path
    experiment: Experiment
    _lock: IO[str] | None = field(default=None, repr=False)
    made: bool = False

    @classmethod
    def create(cls, path: Path | None, experiment: Experiment) -> "RunDir":
        """Make a new run directory; None makes `runs/<name>-<time>`.

        Raises:
            FedmetaError: the directory holds something already, or cannot be written.
        """
        place = path if path is not None else fresh(experiment.name)
        try:
            place.mkdir(parents=True, exist_ok=True)
            if any(place.iterdir()) and not clear_unstarted(place, UNSTARTED):
                raise FedmetaError(
                    f"'{place}' is not empty: resume the run in it with --resume, or choose another folder"
                )
            lock = locked(place)
            try:
                (place / "checkpoints").mkdir(exist_ok=True)
                write_atomically(place / CONFIG, json.dumps(experiment.model_dump(mode="json"), indent=2).encode())
            except BaseException:
                lock.close()
                raise
        except OSError as error:
            raise FedmetaError(
                f"cannot write the run directory '{place}' (out): {error.strerror or error}. Choose another with --out"
            ) from error
        return cls(place, experiment, lock, made=True)

    @classmethod
    def open(cls, path: Path | str, *, exclusive: bool = True) -> "RunDir":
        """Open the directory of an earlier run.

        Args:
            path: the directory.
            exclusive: hold it against other processes; not needed to look at a run that is under way.

        Raises:
            CheckpointError: there is no run, or its configuration is damaged.
            FedmetaError: another process holds it.
        """
        place = Path(path)
        try:
            text = (place / CONFIG).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:  # no file, no text, or no path
            raise CheckpointError(
                f"'{place}' is not a run directory: it has no readable {CONFIG}. `fedmeta status FOLDER` lists the "
                "runs in a folder"
            ) from error
        try:
            experiment = Experiment.model_validate_json(text)
        except ValidationError as error:
            raise CheckpointError(
                f"'{place / CONFIG}' is damaged or of another version ({error.error_count()} faults): "
                "start a new run from the experiment file"
            ) from error
        return cls(place, experiment, locked(place) if exclusive else None)

    @property
    def report(self) -> Path:
        """The report page."""
        return self.path / REPORT

    @property
    def plots(self) -> Path:
        """The folder of pictures."""
        return self.path / "plots"

    def close(self) -> None:
        """Let another process write here."""
        if self._lock is not None:
            self._lock.close()

    @property
    def unstarted(self) -> bool:
        """Whether it was made for a run of which no round, no checkpoint and nothing spent is written down yet."""
        return self.made and not self.metrics() and leftovers(self.path, UNSTARTED) is not None

    def discard(self, why: FedmetaError) -> None:
        """Take an unstarted directory away; one that was begun, opened, or cannot be written, stays as it is."""
        left = leftovers(self.path, UNSTARTED) if self.unstarted else None
        if left is None or isinstance(why, CannotWrite):
            return
        remove(left)
        try:
            self.path.rmdir()
        except OSError:  # the working directory of somebody, or another one wrote in it: an empty folder does no harm
            log.debug("the folder '%s' stays", self.path)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one record to the metrics; NaN and infinity become null, since JSON has neither.

        Raises:
            FedmetaError: the disk is full or the directory is gone; so for all that is written here.
        """
        line = json.dumps(finite(dict(record)), allow_nan=False)
        path = self.path / METRICS
        with writing(path), path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def metrics(self) -> list[dict[str, Any]]:
        """All records; a last line that a crash cut short is left out."""
        path = self.path / METRICS
        if not path.exists():
            return []
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        records = []
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                record["round"]
                records.append(record)
            except (ValueError, TypeError, KeyError) as error:
                if number < len(lines) or not isinstance(error, json.JSONDecodeError):
                    raise CheckpointError(
                        f"line {number} of '{path}' is damaged ({error}): take the line away, or start a new run"
                    ) from error
                log.warning("the last line of %s was cut short by a crash and is left out", path)
        return records

    def truncate(self, after_round: int) -> None:
        """Drop the records of rounds after `after_round`, which the checkpoint does not hold."""
        kept = [record for record in self.metrics() if record["round"] <= after_round]
        text = "".join(json.dumps(record) + "\n" for record in kept)
        store(self.path / METRICS, text.encode())

    def has(self, name: str) -> bool:
        """Whether there is a checkpoint `last` or `best`."""
        return self._checkpoint_path(name).exists()

    def save(self, name: str, checkpoint: Checkpoint) -> None:
        """Write a checkpoint as one safetensors file, atomically."""
        store(self._checkpoint_path(name), checkpoint.to_bytes())

    def load(self, name: str) -> Checkpoint:
        """Read a checkpoint.

        Raises:
            CheckpointError: missing or damaged.
        """
        return read_checkpoint(self._checkpoint_path(name))

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Write the final evaluations."""
        store(self.path / RESULTS, json.dumps(finite(dict(results)), indent=2).encode())

    def results(self) -> dict[str, Any] | None:
        """The final evaluations; None for a run that is not finished."""
        return read_json(self.path / RESULTS, "resume the run, which judges the model again")

    def write_environment(self) -> None:
        """Add what this session runs with to what earlier sessions of the run did; a difference is a warning."""
        sessions = add_session(self.environment(), self.experiment)
        store(self.path / ENVIRONMENT, json.dumps(sessions, indent=2).encode())

    def environment(self) -> list[dict[str, Any]]:
        """What each session of the run was run with, the first first; empty where it is not known."""
        return read_json(self.path / ENVIRONMENT, "delete it; the run itself is whole") or []

    def ledger(self) -> Ledger:
        """The privacy ledger. A directory that holds one is never cleared: what it says was spent stays spent."""
        return Ledger(self.path / LEDGER)

    def write_clients(self, clients: Sequence[Mapping[str, Any]]) -> None:
        """Write who took part in this session of the run: `client`, `name` and `role` of each."""
        store(self.path / CLIENTS, json.dumps(list(clients), indent=2).encode())

    def clients(self) -> int:
        """How many clients took part in the last session; 0 before the first."""
        return len(read_json(self.path / CLIENTS, "delete it; the run itself is whole") or [])

    def write_node_keys(self, keys: Mapping[int, str]) -> None:
        """Write to which node key each client id belongs."""
        store(self.path / NODE_KEYS, json.dumps({str(client): key for client, key in keys.items()}, indent=2).encode())

    def node_keys(self) -> dict[int, str]:
        """Client id -> the node key to which it belongs; empty where nodes are not authenticated."""
        found = read_json(self.path / NODE_KEYS, "delete it; clients are then bound to the keys they come with")
        return {int(client): str(key) for client, key in (found or {}).items()}

    def write_privacy(self, facts: Mapping[str, Any]) -> None:
        """Write what the run's privacy claims rest on, known when it starts."""
        store(self.path / PRIVACY, json.dumps(finite(dict(facts)), indent=2).encode())

    def privacy(self) -> dict[str, Any] | None:
        """What `write_privacy` wrote; None for a run without privacy."""
        found: dict[str, Any] | None = read_json(self.path / PRIVACY, "resume the run, which writes it again")
        return found

    def write_audit(self, found: Mapping[str, Any]) -> None:
        """Write what an audit of this run's privacy found."""
        store(self.path / AUDIT, json.dumps(finite(dict(found)), indent=2).encode())

    def audit(self) -> dict[str, Any] | None:
        """What the last audit found; None where there was none."""
        found: dict[str, Any] | None = read_json(self.path / AUDIT, "audit the run again")
        return found

    def write_leak(self, found: Mapping[str, Any]) -> None:
        """Write what a leak check read off one update of this run."""
        store(self.path / LEAK, json.dumps(finite(dict(found))).encode())

    def leak(self) -> dict[str, Any] | None:
        """What the last leak check found; None where there was none."""
        found: dict[str, Any] | None = read_json(self.path / LEAK, "delete it, and check again")
        return found

    def write_detection(self, found: Mapping[str, Any]) -> None:
        """Write what an examination of this run's model for a backdoor found."""
        store(self.path / DETECTION, json.dumps(finite(dict(found))).encode())

    def detection(self) -> dict[str, Any] | None:
        """What the last examination found; None where there was none."""
        found: dict[str, Any] | None = read_json(self.path / DETECTION, "delete it, and examine the model again")
        return found

    def write_evasion(self, record: Mapping[str, Any]) -> None:
        """Add what an evasion attack on this run's models found, in place of an earlier one like it."""
        kept = [one for one in self.evasion() if not _alike(one, record)]
        store(self.path / EVASION, json.dumps([*kept, finite(dict(record))]).encode())

    def evasion(self) -> list[dict[str, Any]]:
        """What evasion attacks found, the first first: one record for a model, a norm and what was moved."""
        return read_json(self.path / EVASION, "delete it, and attack the model again") or []

    def write_report(self, text: str) -> None:
        """Write the report page."""
        store(self.report, text.encode())

    def _checkpoint_path(self, name: str) -> Path:
        return self.path / "checkpoints" / f"{name}.safetensors"


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two evasion attacks moved the same part of the same model in the same norm."""
    key = [(record["model"], record["protocol"]["norm"], record["protocol"]["on"]) for record in (one, other)]
    return key[0] == key[1]
