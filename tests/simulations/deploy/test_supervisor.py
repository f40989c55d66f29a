"""Seeing a run through: what is submitted again, and what is not."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedmeta.errors import FedmetaError
from simulations.deploy.flower import Flower, FlowerNode, FlowerRun, UnknownRun, Unreachable
from simulations.deploy.run import run_deployed
from simulations.deploy.supervisor import Patience, supervise

LOST = FlowerRun("", "finished:failed", "No heartbeat received from the task")
KILLED = FlowerRun("", "finished:failed", "Task failed with unknown error.")
CUT_OFF = FlowerRun("", "finished:failed", "ServerApp failed with exception: lost the SuperLink: connection refused")
DONE = FlowerRun("", "finished:completed")
OWN_FAULT = FlowerRun("", "finished:failed", "ServerApp failed with exception: rounds [2] did not go well")
RUNNING = FlowerRun("", "running")

Step = FlowerRun | Exception


class Story:
    """A SuperLink that answers as a story tells, and a clock that moves when somebody sleeps."""

    def __init__(self, *steps: Step, submissions: tuple[Exception | None, ...] = ()) -> None:
        self.steps: Iterator[Step] = iter(steps)
        self.refusals = iter(submissions)
        self.submitted, self.now, self.said = 0, 0.0, list[str]()
        self.known = [FlowerNode("1", "online", "a")]

    def run(self, run_id: str) -> FlowerRun:
        step = next(self.steps)
        if isinstance(step, Exception):
            raise step
        return step

    def nodes(self) -> list[FlowerNode]:
        return self.known

    def submit(self) -> str:
        refusal = next(self.refusals, None)
        if refusal is not None:
            raise refusal
        self.submitted += 1
        return str(self.submitted)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def play(self, patience: Patience = Patience()) -> FlowerRun:
        return supervise(self, self.submit, patience, self.said.append, self.sleep, lambda: self.now)


@pytest.mark.parametrize(
    ("steps", "submissions", "status"),
    [
        ([RUNNING, DONE], 1, "finished:completed"),
        ([RUNNING, LOST, RUNNING, DONE], 2, "finished:completed"),
        ([LOST, LOST, DONE], 3, "finished:completed"),
        ([KILLED, CUT_OFF, DONE], 3, "finished:completed"),
        ([RUNNING, OWN_FAULT], 1, "finished:failed"),
        ([FlowerRun("", "finished:stopped")], 1, "finished:stopped"),
        ([RUNNING, Unreachable("silent"), Unreachable("silent"), LOST, DONE], 2, "finished:completed"),
        ([RUNNING, UnknownRun("Run ID not found"), DONE], 2, "finished:completed"),
    ],
    ids=[
        "well",
        "lost",
        "lost twice",
        "killed, then cut off",
        "own fault",
        "stopped by hand",
        "a silent while",
        "forgotten",
    ],
)
def test_a_run_is_submitted_again_when_it_was_lost_and_only_then(
    steps: list[Step], submissions: int, status: str
) -> None:
    story = Story(*steps)
    assert story.play().status == status and story.submitted == submissions


def test_there_is_a_limit_to_both() -> None:
    with pytest.raises(FedmetaError, match="lost 3 times"):
        Story(LOST, LOST, LOST, DONE).play(Patience(resubmissions=2))
    silent: Callable[[], Story] = lambda: Story(RUNNING, *[Unreachable("it is unavailable")] * 20, DONE)  # noqa: E731
    with pytest.raises(Unreachable):
        silent().play(Patience(silence=30, pause=5))
    assert silent().play(Patience(silence=300, pause=5)) == DONE


def test_a_superlink_that_is_not_up_yet_is_waited_for() -> None:
    story = Story(DONE, submissions=(Unreachable("no"), Unreachable("no")))
    assert story.play() == DONE and story.submitted == 1 and "does not answer" in story.said[0]


@pytest.mark.parametrize("status", ["pending", "starting"])
def test_a_run_that_does_not_begin_says_what_it_waits_for(status: str) -> None:
    waiting = FlowerRun("", status)
    story = Story(*[waiting] * 15, RUNNING, DONE)
    story.known = [FlowerNode("1", "offline", "a")]
    story.play(Patience(quiet=30, pause=5))
    told = [line for line in story.said if f"is still {status}: " in line]
    assert len(told) == 2, "after 30 s and after 60 s, of 75"
    assert "server process" in told[0] and "`" in told[0], "with the remedy"
    assert sum("no SuperNode is online, of 1 that the SuperLink knows" in line for line in story.said) == 3
    with_nodes = Story(waiting, RUNNING, DONE)
    with_nodes.play()
    assert not any("SuperNode" in line or "is still" in line for line in with_nodes.said)


def test_an_experiment_that_flower_refuses_is_not_submitted_for_ever() -> None:
    with pytest.raises(FedmetaError, match="Invalid run configuration"):
        Story(submissions=(FedmetaError("`flwr run` says: Invalid run configuration."),)).play()


def test_a_run_without_tls_is_loud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    monkeypatch.setattr("simulations.deploy.supervisor.supervise", lambda *_: DONE)
    assert not Flower().insecure, "nothing is known of it"
    (tmp_path / "config.toml").write_text(
        '[superlink]\ndefault = "trial"\n[superlink.trial]\naddress = "127.0.0.1:1"\ninsecure = true\n'
        '[superlink.mine]\naddress = "127.0.0.1:1"\nroot-certificates = "ca.crt"\n'
    )
    assert [Flower(name).insecure for name in (None, "trial", "mine", "other")] == [True, True, False, False]
    for name, loud in (("trial", True), ("mine", False)):
        assert run_deployed({}, {}, name, tmp_path / "out", None, 0) == 0
        assert ("INSECURE: without TLS" in capsys.readouterr().out) is loud
