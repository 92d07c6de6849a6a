# The everyday commands; `make help` lists them. Nothing is installed outside of .venv.

# The first Python that is new enough. To choose another: make setup PYTHON=/path/to/python
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 10))
PYTHON ?= $(shell for python in python3 python3.12 python3.11 python3.10; do \
	$$python -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# What is compiled is kept, also where the environment says otherwise: else every worker of the tests, and every process that
# a test starts, compiles it again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo quick test tests test-forks test-faults mutate lint docs check-docs format clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile

setup: $(STAMP)  ## make .venv with the package (editable) and all that the demo and the tests need

# Done again when what is to be installed has changed.
$(STAMP): setup.py pyproject.toml $(wildcard requirements/*)
	@$(or $(PYTHON),false) -c '$(NEW_ENOUGH)' || { echo "make setup needs Python >= 3.10, got '$(PYTHON)'. \
	Name one: make setup PYTHON=/path/to/python" >&2; exit 1; }
	@echo "Installing clipbert_mm and its dependencies into $(VENV): a few minutes and up to 7 GB the first time."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python requirements/install.py
	@touch $@

# Two processes with half of the cores each train faster than one with all of them. A GPU needs one.
PROCESSES ?= $(shell nvidia-smi -L > /dev/null 2>&1 && echo 1 || echo 2)

demo: setup  ## train and try a small model on the embedded Shapes world (options: ARGS="...")
	PATH="$(abspath $(BIN)):$$PATH" bash tools/dist_run.sh demo.py $(PROCESSES) $(ARGS)

# The core. After an edit elsewhere: make quick QUICK=tests/media
QUICK := tests/models tests/evaluation tests/retrieval

quick: lint  ## lint, types, and the tests of the folders QUICK, without slow ones: for each edit (options: ARGS="...")
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal -m 'not slow' $(QUICK) $(ARGS)

test: setup  ## at once: lint, the references of docs/, all tests and doctests (options: ARGS="...")
	$(MAKE) --no-print-directory --jobs 3 lint check-docs tests

tests: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal $(ARGS)

test-forks:  ## all tests beside the maintained forks of MMEngine, MMCV and MMPretrain, in an environment of their own
	$(MAKE) setup VENV=build/forks
	build/forks/bin/python -m pip uninstall -qq --yes mmengine mmcv-lite mmpretrain
	build/forks/bin/python -m pip install -qq --no-deps --requirement requirements/maintained_forks.txt
	OMP_NUM_THREADS=1 build/forks/bin/python -m pytest --numprocesses auto --dist worksteal $(ARGS)

# Of media N files, of each other kind three twentieths of that: 2,000 and 300.
N ?= 2000

test-faults: setup  ## feed N=2000 damaged media, and of each other kind 15 % of that, to the package; kill trainings
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python tests/damage/run.py --media-count $(N) \
	--count $$(( $(N) * 3 / 20 )) $(ARGS)
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -m faults

# Rooms of [tool.mutate] in pyproject.toml (none: all), and mutants per room. Nothing of this runs in CI: it takes hours.
ROOMS ?=
SAMPLE ?= 40

mutate: setup  ## mutation testing of ROOMS="models search ..." with SAMPLE=40 mutants each: list those that no test notices
	$(BIN)/python -m pip install --quiet --requirement requirements/mutation.txt
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python tools/mutation/mutate.py $(ROOMS) --sample $(SAMPLE) $(ARGS)

lint: setup  ## formatting, lint rules and types
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy clipbert_mm

SPHINX = $(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky --quiet --jobs auto

docs: setup  ## build the site of docs/ into build/docs; a warning is an error
	rm -rf docs/api build/docs
	$(SPHINX) docs build/docs

check-docs: setup  ## read docs/ and all docstrings as the site does, without writing pages; a warning is an error
	rm -rf docs/api
	$(SPHINX) --builder dummy docs build/docs-check

format: setup  ## format, and mend what ruff can mend
	$(BIN)/python -m ruff format .
	$(BIN)/python -m ruff check --fix .

clean:  ## remove .venv, builds and caches; keeps data and work_dirs
	rm -rf $(VENV) build dist docs/api *.egg-info clipbert_mm/.mim .mypy_cache .pytest_cache .ruff_cache
	find clipbert_mm configs tests tools -name __pycache__ -prune -exec rm -rf {} +
