"""`fedmeta privacy`: every accountant side by side, as a table and as JSON; bad input in words."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedmeta.errors import FedmetaError
from simulations.command import app


def call(*words):
    done = CliRunner().invoke(app, ["privacy", *words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def test_all_accountants_side_by_side():
    words = ["--noise-multiplier", "1", "--sampling-rate", "0.01", "--rounds", "1000", "--delta", "1e-5"]
    found = json.loads(call(*words, "--json"))
    by_name = {answer["accountant"]: answer for answer in found["answers"]}
    assert by_name["rdp"]["epsilon"] == pytest.approx(2.1014, abs=1e-3)
    assert by_name["prv"]["epsilon"] == pytest.approx(1.8282, abs=0.011)
    assert by_name["pld"]["epsilon"] == pytest.approx(1.8282, abs=1e-3) or "accounting" in by_name["pld"]["refusal"]
    table = call(*words)
    assert all(text in table for text in ("2.101", "prv", "Poisson, rate 0.01"))


def test_a_target():
    found = json.loads(
        call(*["--target-epsilon", "2", "--population", "1000", "--drawn", "50", "--rounds", "100", "--json"])
    )
    assert found["adjacency"] == "replace-one"
    rdp, prv, _ = found["answers"]
    assert 1.96 <= rdp["epsilon"] <= 2 and rdp["noise_multiplier"] > 1
    assert prv["epsilon"] is None and "PRV composes" in prv["refusal"]


def test_two_stages_and_no_sampling():
    two = call(*["--noise-multiplier", "1", "--sampling-rate", "0.1", "--task-rate", "0.2", "--rounds", "500"])
    assert "11.69" in two or "11.7" in two
    assert "no amplification" in call("--noise-multiplier", "5")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--noise-multiplier 0", "must be > 0"),
        ("--noise-multiplier -1", "must be > 0"),
        ("--noise-multiplier 1 --target-epsilon 1", "one of"),
        ("--rounds 3", "one of"),
        ("--target-epsilon 0", "must be > 0"),
        ("--noise-multiplier 1 --delta 1", "delta"),
        ("--noise-multiplier 1 --rounds -1", "rounds"),
        ("--noise-multiplier 1 --drawn 5", "population"),
        ("--noise-multiplier 1 --cap 5", "--sampling-rate"),
        ("--noise-multiplier 1 --sampling-rate 2", "rate"),
    ],
)
def test_bad_input(words, said):
    with pytest.raises(FedmetaError, match=said):
        call(*words.split())


def test_a_delta_too_large_for_the_population_is_warned_of():
    with pytest.warns(UserWarning, match="1 / 5"):
        call(*["--noise-multiplier", "1", "--sampling-rate", "0.1", "--delta", "0.5", "--population", "5"])


def test_the_readme_names_the_extra_that_an_accountant_needs() -> None:
    root = Path(__file__).resolve().parents[2]
    line = next(line for line in (root / "README.md").read_text().splitlines() if line.startswith("fedmeta privacy "))
    extra = re.search(r"pip install 'fedmeta\[(\w+)\]'", line)
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extra is not None and any("dp-accounting" in package for package in extras[extra[1]])
