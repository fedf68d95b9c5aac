# Everything a person does with this repository. Each target sets up what it needs by itself.
#
#   make demo     two registries and a helper on this machine: one suppressed, noised table
#   make test     the tests              make check    style, types, layers, generated code
#   make faults   the whole fault matrix (kills, signals, disks; four minutes)
#   make bench    the benchmarks         make lock     renew requirements.lock
#
# Another interpreter: make test PYTHON=python3.12 (after `make clean`, when .venv exists already).

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --no-input
WORKERS := $$($(BIN)/python -c 'import os; print(1 + len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 3)')
SOURCES := mpc_engine protos tests benchmarks scenarios data

# A stamp stands for work done; it is renewed when what it depends on has changed.
LOCKED    := $(VENV)/.locked
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv demo test faults check bench lock clean

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

venv: $(INSTALLED)

$(LOCKED): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed; say which with: make PYTHON=python3.11 ..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the locked dependencies into $(VENV) (once; about a minute)"
	@$(PIP) install --quiet --require-hashes --requirement requirements.lock
	@touch $@

# --no-build-isolation: the build backend comes from the lock file too, checked by its hash.
$(INSTALLED): $(LOCKED) pyproject.toml
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: venv
	$(BIN)/mpc-engine simulate scenarios/wilms.toml --out out/wilms --overwrite

# A process more than there are cores, five at most, since many tests wait for parties; to see what a test
# prints: make test PYTEST_ARGS="-n 0 -s"
test: venv
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses=5 --dist worksteal $(PYTEST_ARGS)

# All faults that befall real processes, everywhere: kills, signals, disks. `make test` plays some of them.
faults: venv
	$(BIN)/python -m pytest -n 4 --dist worksteal --whole-matrix tests/faults $(PYTEST_ARGS)

check: venv
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/python -m mypy --strict
	$(BIN)/lint-imports
	$(BIN)/python protos/generate.py --check

bench: venv
	$(BIN)/python -m benchmarks.run

# Resolves for every Python from 3.11 on and writes hashes, no index and no path. The index is the
# one that uv finds in its own configuration or environment (UV_DEFAULT_INDEX).
lock:
	@test -x .lock-venv/bin/uv || { $(PYTHON) -m venv .lock-venv && \
	  .lock-venv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.8'; }
	.lock-venv/bin/uv pip compile pyproject.toml --extra test --extra build --quiet --upgrade \
	  --universal --python-version 3.11 --generate-hashes --no-annotate \
	  --no-emit-index-url --no-emit-find-links \
	  --custom-compile-command 'make lock' --output-file requirements.lock

clean:
	rm -rf $(VENV) .lock-venv out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf .import_linter_cache benchmarks/out
	find mpc_engine protos tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
