# SPDX-License-Identifier: GPL-2.0-or-later
# Needs python3 (>= 3.11), pip and make. VENV=/elsewhere chooses another virtual environment.

VENV   ?= .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
READY  := $(VENV)/.physmem-ready

.DEFAULT_GOAL := help
.PHONY: help setup demo check lint test pure soak bench docs lock clean

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY)  ## make $(VENV): locked tools, editable install

# Made again when what it was made from changes. pip cannot verify the hash of a local project,
# hence two steps; the build backend comes from the lock, so the second needs no network.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY)  ## replay the recording that comes with physmem
	$(BIN)/physmem demo

lint: $(READY)  ## format, style, types, layers
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint  ## lint and the quick tests: under a minute, before every commit
	$(BIN)/python -m pytest -q -m "not slow and not soak"

test: lint docs pure  ## everything that CI runs
	$(BIN)/python -m pytest -m "not soak"

pure: $(READY)  ## the tests marked pure, in plain Python without Numba
	PHYSMEM_PURE=1 $(BIN)/python -m pytest -q -m "pure and not soak"

soak: $(READY)  ## 10^8 random operations with every invariant checked
	$(BIN)/python -m tests.soak

bench: $(READY)  ## measure the speed of replay
	$(BIN)/python bench/run.py

# Not --quiet: it would keep --strict from seeing the warnings.
docs: $(READY)  ## build the documentation into site/; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lock: $(READY)  ## resolve requirements.lock again, with the newest versions
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --output-file requirements.lock pyproject.toml requirements.in

clean:  ## remove what was built, not the virtual environment
	rm -rf site build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	rm -rf .coverage htmlcov
	find $(wildcard src tests bench) -name __pycache__ -type d -prune -exec rm -rf {} +
