# `make demo` and `make test` set up all that they need (see setup/prepare.py), on a fresh Debian with root.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SESSION := $(BIN)/python -m tests.support.isolation --
SIDE_BY_SIDE = $(BIN)/python -m tests.support.sidebyside $(if $(JOBS),--jobs $(JOBS))
ORDINARY := -m 'not peers and not soak and not vm'
KEEP ?=
JOBS ?=

.PHONY: help demo test test-unit test-engine test-fleet test-vm test-peers soak lint bench clean packages image \
	image-for-tests
.DEFAULT_GOAL := help

help: ## what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

packages:
	@$(PYTHON) setup/prepare.py packages

$(STAMP): pyproject.toml setup/prepare.py
	@$(PYTHON) setup/prepare.py venv $(VENV)
	@touch $@

image: packages $(STAMP)
	@$(BIN)/python -m tests.support.guestbook

demo: packages $(STAMP) image ## the main job, on three test hosts that it makes itself (KEEP=1 leaves them up)
	@KEEP='$(KEEP)' $(SESSION) $(BIN)/python -m tests.support.demo

image-for-tests: packages $(STAMP)
	@$(BIN)/python -m tests.support.guestbook || echo "no image of the demo: its test is skipped"

test: packages $(STAMP) image-for-tests lint ## everything that CI runs, JOBS files of tests at a time
	@$(SIDE_BY_SIDE) tests/fleet tests/unit tests/contract tests/engine -- $(ORDINARY)

lint: $(STAMP) ## ruff and mypy
	@$(BIN)/ruff check --quiet agent controller tests bench setup
	@$(BIN)/ruff format --check --quiet agent controller tests bench setup
	@$(BIN)/mypy --no-error-summary

test-unit: $(STAMP)
	@$(BIN)/python -m pytest -q tests/unit tests/contract

test-engine: packages $(STAMP)
	@$(SIDE_BY_SIDE) tests/engine -- $(ORDINARY)

test-fleet: packages $(STAMP) image-for-tests
	@$(SIDE_BY_SIDE) tests/fleet -- $(ORDINARY)

test-peers: packages $(STAMP) ## comparisons that need dockerd
	@$(PYTHON) setup/prepare.py packages peers
	@$(SESSION) $(BIN)/python -m pytest -q -m peers tests

soak: packages $(STAMP) ## the full counts
	@$(SESSION) $(BIN)/python -m pytest -q -m soak tests

test-vm: packages $(STAMP) ## boots a virtual machine with systemd and cgroup v2
	@$(PYTHON) setup/prepare.py packages vm
	@$(BIN)/python -m pytest -q -m vm tests/vm

bench: packages $(STAMP) ## side by side with the peers that are installed
	@$(PYTHON) setup/prepare.py packages peers
	@$(PYTHON) setup/prepare.py bench $(VENV)
	@$(SESSION) $(BIN)/python -m bench

clean: ## remove .venv and caches
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache
