"""Cells that choose, in a federated run: alphas are sent and aggregated, and the choice is a network of its own."""

from pathlib import Path

import torch

from fedmeta.models.cells import strongest
from server.rundir import RunDir
from simulations.launch import open_run, play

GLYPHS = {
    "data": {"name": "hershey", "writers": 2, "examples_per_writer": 2},
    "task": {"ways": 2, "shots": 1, "queries": 1},
    "model": {"name": "cells", "filters": 2, "cells": 2, "nodes": 1, "normalisation": "none"},
    "learner": {"name": "protonet"},
    "client": {"steps": 1, "tasks_per_step": 1, "execution": "loop", "optimiser": {"name": "adam", "lr": 0.01}},
    "server": {"rounds": 2, "sampling": {"name": "fixed", "clients": 2}, "aggregator": {"name": "median"}},
    "evaluation": {"every": 2, "episodes": 1, "pooled_episodes": 2, "validation_episodes": 1},
}


def test_alphas_travel_and_their_choice_trains(tmp_path: Path) -> None:
    play(open_run(GLYPHS, out=tmp_path / "searched"), "inline", draw=False, judge=False)
    params = RunDir.open(tmp_path / "searched", exclusive=False).load("last").params
    alphas = [value for name, value in params.items() if ".alpha." in name]
    assert len(alphas) == 2 and all(torch.unique(alpha).numel() > 1 for alpha in alphas), "the server moved them"
    chosen = list(strongest(params))
    opened = open_run(GLYPHS, {"model.chosen": chosen}, tmp_path / "chosen")
    result = play(opened, "inline", draw=False, judge=False)
    assert result.vector.numel() < sum(value.numel() for value in params.values()) and not result.failed_rounds
