# Everything here works from a fresh clone: the first target that needs it makes the environment.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export FLWR_TELEMETRY_ENABLED := 0
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: help install demo test slow lint bench clean

help:
	@echo "make demo   set up, then run a federated meta-learning simulation on real glyph images"
	@echo "make test   set up, then run the test suite"
	@echo "make slow   the tests that take minutes"
	@echo "make lint   ruff, mypy, import contracts"
	@echo "make bench  the benchmarks (ratios measured in one run)"

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("fedmeta needs Python >= 3.11; this is " + sys.version.split()[0] + "; name another with make PYTHON=...") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/fedmeta simulate simulations/configs/demo.toml

# A file's tests stay in one process, for what they share; each process starts its own Ray.
test: $(STAMP)
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/python -m simulations.benchmarks.engine_overhead
	$(BIN)/python -m simulations.benchmarks.scaling
	$(BIN)/python -m simulations.benchmarks.executions
	$(BIN)/python -m simulations.benchmarks.memory
	$(BIN)/python -m simulations.benchmarks.aggregation
	$(BIN)/python -m simulations.benchmarks.secure_aggregation --shapes 10x1e5 10x1e6 100x1e5 100x1e6

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
