# Every target uses .venv, which is built from the lock, and rebuilt when the lock has changed.
SHELL := /bin/bash
PYTHON ?= python3
# Relative, so that the path of a checkout may contain spaces.
BIN := .venv/bin
STAMP := .venv/.built
# Of `make conformance` alone: it adds the second servers to .venv, which `setup` removes when a lock has changed.
CONFORMANCE_STAMP := .venv/.built-conformance

comma := ,

# Compiled modules are kept, whatever the caller's shell says: tests start hundreds of processes, and each worker of
# pytest would compile every test again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo dev test test-fast test-slow test-browser verifier simulate conformance conformance-java conformance-witness rollout rollout-render matrix check format docs docs-serve deploy-files audit release lambda soak campaign mutants rehearse-migration rehearse-night rehearse-campaign bench lock

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## build .venv from the lock

$(STAMP): requirements.lock pyproject.toml fairdraw/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@# uv, with its hashes, is one block of the lock.
	@awk '/^[^ ]/ { found = /^uv==/ } found' requirements.lock > .venv/uv.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement .venv/uv.txt
	$(BIN)/uv pip sync --quiet --require-hashes --compile-bytecode --python $(BIN)/python requirements.lock
	@# What a build left there would hide the entry points of this installation.
	rm -rf regworkers.egg-info
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable fairdraw --editable .
	@touch $(STAMP)

$(CONFORMANCE_STAMP): requirements.conformance.lock $(STAMP)
	$(BIN)/uv pip install --quiet --require-hashes --python $(BIN)/python --requirements requirements.conformance.lock
	@touch $(CONFORMANCE_STAMP)

demo: $(STAMP) ## replicate 20,000 entries on the embedded stack (KEEP=1 keeps it running, DEMO_FLAGS="--entries 2000"; SERVERS=java: Kafka and SQS are Apache Kafka and ElasticMQ)
	@$(BIN)/python -m $(if $(SERVERS),tests.conformance --$(SERVERS) --demo,tools.demo demo) $(DEMO_FLAGS)

dev: $(STAMP) ## run the stack and Dagster with sensors on, until Ctrl-C
	@$(BIN)/python -m tools.demo dev

# More workers than a small machine has cores: a third of the time is waiting for leases and time-outs. `worksteal` keeps
# the tests of a module on one worker, where they share costly fixtures.
test: $(STAMP) ## run the suite without slow tests (SHUFFLE=7 in another order, by that seed)
	$(BIN)/python -m pytest -n 4 --dist worksteal -m "not slow" $(addprefix --shuffle=,$(SHUFFLE))

# Without what costs most: pages and proofs of draws, properties, real clocks, fresh interpreters.
SLOWER = analytics dagster docs e2e faults local support selection/public selection/report fairdraw/proof fairdraw/verifier \
	infrastructure/deploy infrastructure/test_extras.py operations/health operations/test_template.py \
	operations/alerts/test_channels.py replication/reconcile replication/enqueue/test_discovery.py \
	fairdraw/maths/test_invariants.py fairdraw/maths/test_both_engines.py

test-fast: $(STAMP) ## run most of the tests that need no server, in under a minute
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow" --no-servers \
		$(addprefix --ignore tests/,$(SLOWER))

test-slow: $(STAMP) ## run the tests that take more than 20 s each
	@# Each worker imports the modules that it gets: 60 of 590.
	$(BIN)/python -m pytest -n 4 --dist worksteal -m "slow and not night and not browser" \
		$(addprefix --shuffle=,$(SHUFFLE)) $$(grep -rl --include='test_*.py' 'mark\.slow' tests | sort)

test-browser: $(STAMP) ## open the page that checks receipts in Chromium, which is installed if this is root on Debian
	$(BIN)/python -m pytest -n 0 -m browser tests/browser $(FLAGS)

verifier: $(STAMP) ## build the page that checks receipts in build/verifier/ (TRUST=file: with your keys inside; FLAGS=--check)
	@$(BIN)/python -m tools.build_verifier $(FLAGS) $(if $(TRUST),--trust "$(TRUST)")

PLAYS = 2000
SEED = 1
simulate: $(STAMP) ## play the drains on simulated servers (PLAYS=2000 SEED=1): threads, clocks and faults from a seed
	$(BIN)/python -m tests.simulation --plays $(PLAYS) --seed $(SEED)

conformance: $(CONFORMANCE_STAMP) ## run adapters and flows against other servers (FLAGS=--write writes the table)
	$(BIN)/python -m tests.conformance $(FLAGS)

conformance-java: $(STAMP) ## run the suites against Apache Kafka and ElasticMQ (needs Java 17 and Maven; FLAGS=elasticmq)
	$(BIN)/python -m tests.conformance --java $(FLAGS)

# What litewitness needs; the go command downloads it.
GO = go1.27.3
conformance-witness: $(STAMP) ## run the log, its client and its witness against other implementations (needs Go)
	GOTOOLCHAIN=$(GO) GOBIN="$(CURDIR)/build/witness" go install filippo.io/torchwood/cmd/litewitness@v0.10.0
	cd tests/conformance/monitor && GOTOOLCHAIN=$(GO) go build -o "$(CURDIR)/build/witness/monitor" .
	REGWORKERS_TEST_WITNESS="$(CURDIR)/build/witness" $(BIN)/python -m pytest -n 0 tests/conformance/test_other_witness.py

# Dagster's chart: `published` at the version of dagster, a folder or an archive, or `none`.
CHART ?= published
KEDA = v2.21.0
# The version of deploy/kubernetes/proxy.yaml.
LOGIN = v7.8.1
ROLLOUT = env REGWORKERS_TEST_ROLLOUT="$(CURDIR)/build/rollout" REGWORKERS_TEST_CHART="$(CHART)" $(BIN)/python -m pytest -n 0 -rs

rollout-render: $(STAMP) ## hold every manifest and Dagster's chart against what a cluster takes (CHART=folder; needs Go)
	@command -v go > /dev/null || { echo "make $@ needs Go 1.26 or newer (https://go.dev/dl/)" >&2; exit 1; }
	cd tests/rollout/render && go build -o "$(CURDIR)/build/rollout/render" .
	go mod download -json github.com/kedacore/keda/v2@$(KEDA) > build/rollout/keda.json
	$(ROLLOUT) --no-servers tests/rollout/test_rendered.py

rollout: rollout-render ## then play every pod as a process, in the order of docs/kubernetes.md (as root on Linux; needs Go)
	@test "$$(uname) $$(id -u)" = "Linux 0" || { echo "make $@ plays pods as root on Linux" >&2; exit 1; }
	@# Ports and addresses of the cluster are free in a network of its own, and no process outlives this one.
	@# The login runs where nginx is, too.
	GOBIN="$(CURDIR)/build/rollout" go install github.com/oauth2-proxy/oauth2-proxy/v7@$(LOGIN)
	unshare --net --mount --pid --fork --kill-child --mount-proc sh -c 'ip link set lo up && exec "$$@"' sh $(ROLLOUT) tests/rollout/test_login.py tests/rollout/test_played.py

matrix: $(STAMP) ## plant every kind of failure in every dependency, and compare what the alerts say (FLAGS="--only s3")
	$(BIN)/python -m tests.faults.matrix $(FLAGS)

check: $(STAMP) ## check lint, format, types, import rules, words, style, size, definitions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_words.py
	$(BIN)/python tools/check_style.py
	$(BIN)/python tools/size.py
	$(BIN)/dg check defs

format: $(STAMP) ## fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

deploy-files: $(STAMP) ## write what Terraform reads, and the release archive in dist/
	$(BIN)/python -m tools.write_deploy_files

# What the image installs: the terminal and the code server need `draw`, runs of draws and reports `reports`, the quarterly
# review `reviews`. A host that only drains entries or events needs `production` alone.
EXTRAS ?= draw,reports,production,reviews

release: deploy-files verifier ## write wheels, hashes of the image's packages, bill of materials and archives into dist/
	@# What setuptools copied for an earlier wheel would be in this one.
	rm -rf dist/*.whl build/lib build/fairdraw
	$(BIN)/uv build --quiet --wheel --out-dir dist --python $(BIN)/python
	$(BIN)/uv build --quiet --wheel --out-dir dist --python $(BIN)/python fairdraw
	$(BIN)/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-annotate --no-header --no-emit-package fairdraw \
		--python-version 3.11 --python-platform x86_64-manylinux_2_34 $(foreach extra,$(subst $(comma), ,$(EXTRAS)),--extra $(extra)) \
		--constraint requirements.lock pyproject.toml --output-file dist/requirements.hashes.txt
	$(BIN)/python -m tools.write_sbom
	$(BIN)/python -m tools.build_site --archive

lambda: $(STAMP) ## build the package of the checkEligibility function in build/lambda/
	$(BIN)/python -m tools.build_lambda

docs: $(STAMP) ## write docs/cli.md and the tables of the docs from the code, and the site of all pages in build/site/
	$(BIN)/python -m tools.write_cli_docs
	$(BIN)/python -m tools.write_tables
	$(BIN)/python -m tools.build_site

DOCS_PORT ?= 8000

docs-serve: docs ## build the site and serve it to this machine, until Ctrl-C (DOCS_PORT=8000)
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory build/site $(DOCS_PORT)

soak: $(STAMP) ## kill drains at every point, twenty times, count losses and repeats; draw other examples for all properties; then play a million times, and compare programs on 20,000 receipts and folders
	$(BIN)/python -m tests.faults.soak --write
	$(BIN)/python -m pytest -n 4 --dist worksteal -m "not night and not browser" --hypothesis-profile=soak \
		$$(grep -rl --include='test_*.py' 'from hypothesis import' tests | sort)
	$(BIN)/python -m tests.simulation --plays 1000000 --seed 1000001
	$(BIN)/python -m tests.fairdraw.verifier.agreement --receipts 20000 --folders 20000 --seed $(SEED)

mutants: $(STAMP) ## plant defects in a copy, and see a test fail for each (FLAGS=--write writes the table)
	@$(BIN)/python -m tools.build_verifier
	$(BIN)/python -m tests.mutants $(FLAGS)

KILLS ?= 1000
HOURS ?= 4

campaign: $(STAMP) ## kill, pause and starve processes on real servers at random; the figures go to benchmarks/reliability.md
	$(BIN)/python -m tests.faults.campaign --kills $(KILLS) --hours $(HOURS) --write $(FLAGS)

rehearse-night: $(STAMP) ## work off a night of dead letters and every runbook over GraphQL alone (some minutes)
	$(BIN)/python -m pytest -n 0 -m night tests/e2e/test_a_night_without_a_shell.py

rehearse-migration: $(STAMP) ## move from legacy handlers to the workers and back under load; the report goes to docs/migration.md
	$(BIN)/python -m tests.replication.moving.rehearsal

bench: $(STAMP) ## measure on a quiet machine and append the figures (ONLY="draw export", or `steady=2` minutes)
	$(BIN)/python -m benchmarks --append $(ONLY)

ENTRIES ?= 3000000

rehearse-campaign: $(STAMP) ## rehearse a campaign of ENTRIES=3000000 on the embedded stack; goes on after an interruption
	$(BIN)/python -m benchmarks.rehearsal --entries $(ENTRIES) --append

audit: $(STAMP) ## list outdated and vulnerable packages of the locks
	@$(BIN)/regworkers dependencies
	@# Last, because the servers of the second lock may not be installable.
	@$(MAKE) --no-print-directory $(CONFORMANCE_STAMP)
	@$(BIN)/regworkers dependencies --lock requirements.conformance.lock

LOCKED = $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header \
	--no-emit-package fairdraw --python-version 3.11 $(UPGRADE)
UPGRADE = --upgrade

lock: ## resolve the newest versions into requirements.lock and requirements.conformance.lock (UPGRADE= keeps those that fit)
	$(LOCKED) --all-extras pyproject.toml --output-file requirements.lock
	$(LOCKED) --group conformance --constraint requirements.lock --output-file requirements.conformance.lock
