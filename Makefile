# Everything starts from the lock: the first target that needs it builds .venv, and again when the lock changed.
SHELL := /bin/bash
PYTHON ?= python3
# Relative, so that a checkout in a folder with a space in its name works.
BIN := .venv/bin
STAMP := .venv/.built
UV_VERSION := $(shell sed -n 's/^uv==//p' requirements.lock)

.DEFAULT_GOAL := help
.PHONY: help setup demo dev test test-fast test-slow check format docs deploy-files audit soak bench-replication bench-selection bench-analytics bench-eligibility lock

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## build .venv from the lock and nothing else

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --no-deps --python $(BIN)/python --editable .
	@touch $(STAMP)

demo: $(STAMP) ## replicate 20,000 entries end to end on the embedded stack (KEEP=1 leaves it running)
	@$(BIN)/python -m regworkers_local.demo demo $(DEMO_FLAGS)

dev: $(STAMP) ## the stack and Dagster with sensors on, until Ctrl-C
	@$(BIN)/python -m regworkers_local.demo dev

# More workers than the two cores of a small machine: a third of a run is waiting for leases and time-outs. Stealing
# leaves each worker its modules in one piece, whose tests share what is costly to set up.
test: $(STAMP) ## the whole suite but for the slow tests
	$(BIN)/python -m pytest -n 4 --dist worksteal -m "not slow"

test-fast: $(STAMP) ## the tests that need no server, in under a minute
	$(BIN)/python -m pytest -n 4 --dist worksteal -m "not slow" --no-servers \
		--ignore tests/dagster --ignore tests/e2e --ignore tests/faults --ignore tests/local

test-slow: $(STAMP) ## the tests that take more than 20 s each
	$(BIN)/python -m pytest -n 4 --dist worksteal -m slow

check: $(STAMP) ## lint, format, strict types, import rules, words, definitions load
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_words.py
	$(BIN)/dagster definitions validate -w workspace.yaml

format: $(STAMP) ## fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

deploy-files: $(STAMP) ## write what Terraform reads, and the release archive in dist/
	$(BIN)/python -m regworkers_core.infrastructure.deploy_files

docs: $(STAMP) ## write docs/cli.md from the commands
	$(BIN)/python tools/write_cli_docs.py

soak: $(STAMP) ## every kill point twenty times over, with a table of what was lost and doubled
	$(BIN)/python -m tests.faults.soak --write

bench-replication: $(STAMP) ## replication against its floor and against what it replaces
	$(BIN)/python -m benchmarks.replication --write

bench-selection: $(STAMP) ## the draw against bare DuckDB, its memory and growth, root and receipts
	$(BIN)/python -m benchmarks.selection --write

bench-eligibility: $(STAMP) ## checks, a campaign's judgement and invites against their bare calls
	$(BIN)/python -m benchmarks.eligibility --write

bench-analytics: $(STAMP) ## the export against bare SQS and a bare producer, its memory
	$(BIN)/python -m benchmarks.analytics --write

audit: $(STAMP) ## outdated and vulnerable packages of the lock; who cannot be asked is a note
	@$(BIN)/regworkers dependencies

lock: ## resolve the dependencies anew into requirements.lock
	$(BIN)/uv pip compile --quiet --universal --all-extras --no-emit-index-url --no-annotate --no-header \
		--python-version 3.11 --upgrade pyproject.toml --output-file requirements.lock
