"""The ledger: reserved before released, whole after a kill, unchanged by reading; and the budget that stops in time."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fedmeta.privacy import Event, Gaussian, NoAmplification, Poisson, TwoStage, Unit, bounds, calibrate, tightest
from fedmeta.privacy.ledger import Budget, Entry, Ledger, LedgerError

ROUND = Event(Gaussian(1.0), Poisson(0.01))


def entry(round, client=None, event=ROUND):
    return Entry(round, Unit.CLIENT, event, client)


def test_what_is_written_is_read_back(tmp_path):
    ledger = Ledger(tmp_path / "privacy.jsonl")
    assert ledger.entries == () and not ledger.path.exists()
    numbers = ledger.reserve(
        [entry(1, client=4), entry(1, client=7, event=Event(Gaussian(2.0), TwoStage(0.1, 0.2, 3)))]
    )
    ledger.release(numbers)
    ledger.reserve([entry(2, client=4)])
    again = Ledger(ledger.path)
    assert again.entries == ledger.entries and again.unreleased == 1
    assert again.clients(Unit.CLIENT) == [4, 7] and again.events(Unit.CLIENT, 4) == (replace(ROUND, count=2),)
    assert again.events(Unit.TASK, 4) == () == again.events(Unit.CLIENT)


KILLED = """
import os, signal, sys
from fedmeta.privacy import Event, Gaussian, Poisson, Unit
from fedmeta.privacy.ledger import Entry, Ledger
ledger = Ledger(sys.argv[1])
for round in (1, 2, 3):
    numbers = ledger.reserve([Entry(round, Unit.CLIENT, Event(Gaussian(1.0), Poisson(0.01)))])
    if round == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    ledger.release(numbers)
"""


def test_killed_between_reserve_and_release_counts_as_spent(tmp_path):
    path = tmp_path / "privacy.jsonl"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=Path(__file__).parents[3], check=False)
    assert done.returncode == -signal.SIGKILL
    ledger = Ledger(path)
    assert [e.round for e in ledger.entries] == [1, 2, 3] and ledger.unreleased == 1
    spent = tightest(ledger.events(Unit.CLIENT), 1e-5, "rdp").epsilon
    assert spent == tightest([Event(Gaussian(1.0), Poisson(0.01), count=3)], 1e-5, "rdp").epsilon
    ledger.release(ledger.reserve([entry(3)]))  # the round is played again: four releases, not three
    assert [event.count for event in Ledger(path).events(Unit.CLIENT)] == [4]


def test_a_line_cut_short_is_mended_by_the_next_one(tmp_path):
    path = tmp_path / "privacy.jsonl"
    Ledger(path).reserve([entry(1)])
    with path.open("ab") as file:
        file.write(b'{"kind": "reserve", "id": 1, "rou')
    ledger = Ledger(path)
    assert len(ledger.entries) == 1 and path.read_bytes().endswith(b"rou"), "reading mends nothing"
    ledger.reserve([entry(2)])
    assert [e.round for e in Ledger(path).entries] == [1, 2]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace('"rate": 0.01', '"rate": 7'),
        lambda text: text.replace("poisson", "poisonous"),
        lambda text: "\n".join(text.splitlines()[1:]) + "\n",
        lambda text: text[:40] + "\n" + text[40:],
    ],
)
def test_damage_within_is_refused(tmp_path, damage):
    path = tmp_path / "privacy.jsonl"
    ledger = Ledger(path)
    for round in (1, 2):
        ledger.reserve([entry(round)])
    path.write_text(damage(path.read_text()))
    with pytest.raises(LedgerError, match=r"damaged.*do not train"):
        Ledger(path)


def test_two_writers_share_one_ledger(tmp_path):
    one, other = Ledger(tmp_path / "l"), Ledger(tmp_path / "l")
    one.reserve([entry(1)])
    assert other.reserve([entry(2)]) == [1]
    assert one.reserve([entry(3)]) == [2]
    assert [json.loads(line)["id"] for line in (tmp_path / "l").read_text().splitlines()] == [0, 1, 2]


SPENDER = """
import sys
from fedmeta.privacy import Event, Gaussian, Poisson, Unit
from fedmeta.privacy.ledger import Budget, Entry, Ledger
ledger, found = Ledger(sys.argv[1]), 0
print("ready", flush=True)
sys.stdin.readline()
for round in range(1, 41):
    entry = Entry(round, Unit.CLIENT, Event(Gaussian(1.0), Poisson(0.01)), int(sys.argv[2]))
    found += ledger.reserve_within(entry, Budget(float(sys.argv[3]), 1e-5, "rdp")) is not None
print(found)
"""


def test_processes_that_share_a_budget_do_not_exceed_it(tmp_path):
    most = tightest([replace(ROUND, count=20)], 1e-5, "rdp").epsilon
    command = [sys.executable, "-c", SPENDER, str(tmp_path / "l")]
    spenders = [
        subprocess.Popen(
            [*command, str(client), str(most)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
        )
        for client in (1, 2)
    ]
    for spender in spenders:
        assert spender.stdout.readline() == "ready\n"
    for spender in spenders:
        spender.stdin.write("\n")
        spender.stdin.flush()
    counts = [int(spender.communicate(timeout=60)[0]) for spender in spenders]
    ledger = Ledger(tmp_path / "l")
    assert sum(counts) == len(ledger.entries) == 20
    assert ledger.reserve_within(entry(99), Budget(most, 1e-5, "rdp")) is None and len(ledger.entries) == 20


def test_what_cannot_be_written_is_said(tmp_path):
    with pytest.raises(LedgerError, match="Nothing is released without it"):
        Ledger(tmp_path / "nowhere" / "l").reserve([entry(1)])


def test_asking_changes_nothing(tmp_path):
    """F08."""
    ledger = Ledger(tmp_path / "l")
    for round in range(1, 11):
        ledger.release(ledger.reserve([entry(round, event=Event(Gaussian(1.0), Poisson(0.01), count=100))]))
    before = ledger.path.read_bytes()
    events = ledger.events(Unit.CLIENT)
    first = {v.accountant: v.bound for v in bounds(events, 1e-5)}
    assert first["rdp"].epsilon == pytest.approx(2.1014, abs=1e-3)
    for delta in (1e-5, 1e-5, 1e-7):
        bounds(events, delta)
    Budget(3.0, 1e-5).exceeded_by(events, [ROUND])
    calibrate(lambda z: [Event(Gaussian(z), Poisson(0.01), count=1000)], 2.0, 1e-5, "rdp")
    assert {v.accountant: v.bound for v in bounds(Ledger(ledger.path).events(Unit.CLIENT), 1e-5)} == first
    assert ledger.path.read_bytes() == before


@pytest.mark.parametrize("accountant", ["rdp", "prv", "auto"])
def test_a_budget_stops_before_the_round_that_would_exceed_it(accountant):
    budget = Budget(1.0, 1e-5, accountant)
    one, spent = Event(Gaussian(2.0), Poisson(0.1)), []
    while not budget.exceeded_by(spent, [one]):
        spent.append(one)
    assert (
        spent and tightest(spent, 1e-5, accountant).epsilon <= 1.0 < tightest([*spent, one], 1e-5, accountant).epsilon
    )


def test_a_budget_for_events_without_amplification():
    one = Event(Gaussian(10.0), NoAmplification())
    assert not Budget(1.0, 1e-5).exceeded_by([], [one]) and Budget(1.0, 1e-5).exceeded_by([one] * 20, [one])
