# PYTHON chooses the interpreter that .venv is made with: make quickstart PYTHON=/usr/bin/python3.12
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: help quickstart test test-all fuzz chaos chaos-short lint types clean
.NOTPARALLEL:

help:  ## This list
	@sed -n 's/^\([a-z-]*\):.*##/  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

quickstart: $(INSTALLED)  ## Distil the embedded log, search on the set, compare with full training
	@$(BIN)/python jobs/distill.py --config configs/quickstart.yaml
	@$(BIN)/python jobs/sweep.py --config configs/quickstart.yaml

# A folder of tests stays together: its tests share a session of Ray and what was trained for them.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadgroup

test: $(INSTALLED)  ## The test suite; ARGS are pytest's: make test ARGS="-k config"
	@$(PYTEST) $(ARGS)

test-all: $(INSTALLED)  ## The slow tests too
	@$(PYTEST) -m "" $(ARGS)

fuzz: $(INSTALLED)  ## Damaged inputs, CASES of each kind: make fuzz CASES=1000
	@FUZZ_CASES=$(or $(CASES),1000) $(BIN)/python -m pytest tests/fuzz --timeout=0 $(ARGS)

chaos: $(INSTALLED)  ## Distillations whose processes and nodes are killed, N kills from SEED on
	@PYTHONPATH=. RAY_worker_niceness=0 $(BIN)/python -m tests.chaos.campaign --kills $(or $(N),100) --seed $(or $(SEED),1) $(ARGS)

chaos-short: $(INSTALLED)  ## One small distillation that loses one of each, as continuous integration has it
	@$(BIN)/python -m pytest -m "" -k a_short_run tests/chaos/test_run.py

lint: $(INSTALLED)  ## Style and layout of the code
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(INSTALLED)  ## Static types
	@$(BIN)/mypy

clean:  ## Remove the environment, caches and results
	rm -rf .venv build dist results *.egg-info .hypothesis .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	@echo "Installing the pinned packages into .venv (minutes, once)"
	@test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
