# make demo   sets up, then runs the whole loop on a small real model
# make test   sets up, then lints, type-checks and tests everything
# make up     sets up, then runs what .env configures
# make audit  asks whether a version in constraints.txt is known to be vulnerable
#
# PYTHON          the interpreter to build the environment with (3.11 or newer)
# TORCH_INDEX_URL where torch is taken from; by default its CPU build where there is no NVIDIA GPU
# PIP_INDEX_URL   pip's own variable, for a mirror

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
export HF_HUB_DISABLE_TELEMETRY := 1
export OMP_WAIT_POLICY := PASSIVE

GPU := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 && echo yes)
ifndef TORCH_INDEX_URL
ifneq ($(GPU),yes)
TORCH_INDEX_URL := https://download.pytorch.org/whl/cpu
endif
endif
TORCH_INDEX := $(if $(TORCH_INDEX_URL),--extra-index-url $(TORCH_INDEX_URL) --retries 1)
TORCH := $(shell sed -n 's/^\(torch==[0-9.]*\).*/\1/p' constraints.txt)

.PHONY: setup demo test lint up audit clean

setup: $(VENV)/.ready

# pip takes no newer torch than the constraints name; installed first, so that trl pulls no CUDA build of its own.
$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Huigan needs Python 3.11 or newer: make PYTHON=python3.11 $(MAKECMDGOALS)") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "venv is missing: sudo apt-get install python3-venv"; exit 1; }
	$(PIP) install --quiet $(TORCH_INDEX) $(TORCH)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[engine,train,dev]'
	@touch $@

demo: setup
	$(BIN)/huigan demo $(ARGS)

test: setup lint
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(ARGS)

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/mypy

up: setup
	$(BIN)/huigan up

# In an environment of its own: it needs nothing of ours, and nothing of ours needs it.
audit:
	@test -x .venv-audit/bin/python || $(PYTHON) -m venv .venv-audit
	@.venv-audit/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt pip-audit
	@.venv-audit/bin/python .ci/audit

clean:
	rm -rf $(VENV) .venv-audit .mypy_cache .ruff_cache .pytest_cache .hypothesis
