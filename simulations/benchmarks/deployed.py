"""A whole deployment on this machine: a SuperLink and SuperNodes as processes of their own, with TLS and node keys.

What benchmarks and tests of deployed runs stand on. Every process is started here, and ended here by its own id.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from fedmeta.code_hash import code_path
from fedmeta.experiment import Experiment
from server.rundir import CONFIG, RunDir
from simulations.benchmarks.processes import Process, wait_until
from simulations.deploy.certificates import make_certificates
from simulations.deploy.flower import Flower, FlowerRun
from simulations.deploy.key_folder import Layout
from simulations.deploy.run import run_configuration

NAME = "test-link"
"""The SuperLink's name in Flower's configuration."""
JOINED = "SuperNode ID"
"""What a SuperNode says when the SuperLink has taken it."""
ENDED = "push-task-output"
"""What a SuperLink says when a ServerApp ends."""
SELDOM = 30.0
"""Between two questions whether a run has ended that said nothing [seconds]."""


@dataclass
class Deployment:
    """A SuperLink and its SuperNodes under one folder; a context manager that ends all of them.

    Attributes:
        folder: for keys, state, logs and Flower's homes, one for each node.
        options: environment variables for all processes, beside the quiet ones.
        address: of the SuperLink.
        host: name of a process (`superlink`, or a node's) -> what to put before its command, such as
            `ip netns exec HOST`.
    """

    folder: Path
    options: Mapping[str, str] = field(default_factory=dict)
    address: str = "127.0.0.1"
    host: Callable[[str], list[str]] = lambda name: []
    nodes: dict[str, Process] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port, self.ends = free_port(), 0
        self.keys = Layout(self.folder / "keys")
        make_certificates(self.keys.folder, [self.address], days=1, authority_days=2)
        self.home = self.folder / "operator"
        self.home.mkdir(exist_ok=True)
        (self.home / "config.toml").write_text(
            f'[superlink]\ndefault = "{NAME}"\n\n[superlink.{NAME}]\naddress = "{self.address}:{self.port}"\n'
            f'root-certificates = "{self.keys.authority}"\n'
        )
        self.superlink = self._process(
            "superlink",
            "flower-superlink",
            *("--ssl-ca-certfile", str(self.keys.authority)),
            *("--ssl-certfile", str(self.keys.server), "--ssl-keyfile", str(self.keys.server_key)),
            *("--enable-supernode-auth", "--host", self.address, "--port", str(self.port)),
            *("--database", str(self.folder / "state.db")),
        )

    def __enter__(self) -> "Deployment":
        self.start_superlink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in [*self.nodes.values(), self.superlink]:
            process.send(signal.SIGCONT)  # one that a test stopped would not end
        for process in [*self.nodes.values(), self.superlink]:
            process.end()

    def start_superlink(self) -> None:
        """Start the SuperLink, or start it again on its database, and wait until it answers.

        Raises:
            TimeoutError: it does not.
        """
        before = len(self.superlink.said())
        self.superlink.start()

        def answers() -> bool:
            if not self.superlink.alive:
                raise RuntimeError(f"the SuperLink ended:\n{self.superlink.said()[-2000:]}")
            return "Uvicorn running" in self.superlink.said()[before:]

        wait_until(answers, f"the SuperLink answers (see {self.superlink.log})", 60)

    def add_node(self, name: str, config: str, *, key: str | None = None, register: bool = True) -> Process:
        """Start a SuperNode.

        Args:
            name: of its folder, key and log.
            config: its `--node-config`.
            key: name of the key that it shows; None for its own.
            register: whether the SuperLink is told of the key.
        """
        owner = name if key is None else key
        private, public = self.keys.node(owner), self.keys.node_public(owner)
        if not private.exists():
            make_certificates(self.keys.folder, nodes=[owner])
        if register:
            done = self.flwr("supernode", "register", str(public), NAME)
            if done.returncode:
                raise RuntimeError(f"the key of {name} was not registered: {done.stdout}{done.stderr}")
        command = ["flower-supernode", "--root-certificates", str(self.keys.authority)]
        command += ["--superlink", f"{self.address}:{self.port}", "--host", "127.0.0.1", "--port", str(free_port())]
        command += ["--auth-supernode-private-key", str(private), "--node-config", config]
        node = self.nodes[name] = self._process(name, *command)
        node.start()
        return node

    def wait_for_nodes(self, timeout: float = 120) -> None:
        """Wait until all nodes that were added are online.

        Raises:
            TimeoutError: some are not.
        """
        for name, node in self.nodes.items():
            wait_until(lambda node=node: JOINED in node.said(), f"{name} is online (see {node.log})", timeout)  # type: ignore[misc]

    def online(self) -> int:
        """How many nodes the SuperLink holds for online."""
        return sum(node.status == "online" for node in self.flower.nodes())

    def restart_node(self, name: str, timeout: float = 120) -> None:
        """Start a node that ended, again and again while the SuperLink still holds it for online.

        Raises:
            TimeoutError: it does not come back.
        """
        node, before = self.nodes[name], len(self.nodes[name].said())

        def back() -> bool:
            if not node.alive:
                node.start()
                time.sleep(2)
            return JOINED in node.said()[before:]

        wait_until(back, f"{name} is back", timeout, pause=1.0)

    def submit(self, experiment: Experiment, out: Path) -> str:
        """Submit an experiment into a run directory, and return the run's id."""
        self.ends = self.superlink.said().count(ENDED)
        run_config = self.folder / f"run-{time.monotonic_ns()}.toml"
        run_config.write_text(run_configuration(experiment, out))
        return self.flower.submit(Path(code_path()), run_config)

    def finish(self, run_id: str, timeout: float = 600) -> FlowerRun:
        """The run when it has ended, well or not.

        Raises:
            TimeoutError: it has not.
        """

        asked = time.monotonic()

        def ended() -> FlowerRun | None:
            nonlocal asked
            # Asking takes a second of a core, which the run needs more.
            if self.superlink.said().count(ENDED) <= self.ends and time.monotonic() < asked + SELDOM:
                return None
            asked = time.monotonic()
            found = self.flower.run(run_id)
            return found if found.finished else None

        found: FlowerRun = wait_until(ended, f"run {run_id} ends", timeout, pause=0.5)
        return found

    @property
    def flower(self) -> Flower:
        """Its command line for an operator."""
        return Flower(NAME, environment=self.environment("operator"), command=(*self.host("superlink"), "flwr"))

    def flwr(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Any command of `flwr` as its operator gives it."""
        return subprocess.run(
            [*self.host("superlink"), "flwr", *words],
            env=self.environment("operator"),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def environment(self, name: str) -> dict[str, str]:
        """Variables of one of its processes: a Flower home and caches as if it had a machine of its own."""
        binaries = str(Path(sys.executable).parent)
        return {
            **os.environ,
            "PATH": os.pathsep.join([binaries, os.environ["PATH"]]),
            "FLWR_HOME": str(self.folder / name),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FEDMETA_LEDGERS": str(self.folder / name / "ledgers"),
            "FEDMETA_CACHE": str(self.folder / name / "cache"),
            "OMP_NUM_THREADS": "1",
            **self.options,
        }

    def _process(self, name: str, *command: str) -> Process:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return Process([*self.host(name), *command], self.folder / f"{name}.log", self.environment(name), folder)


def finished_rounds(path: Path) -> int:
    """Rounds that stand in a run directory, which need not be there yet."""
    return len(RunDir.open(path, exclusive=False).metrics()) if (path / CONFIG).exists() else 0


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
