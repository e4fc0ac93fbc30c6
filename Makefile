# Everything a newcomer needs: `make demo` and `make test`. `make help` lists the rest.
PYTHON ?= python3
BIN    := .venv/bin
LIVEKIT_VERSION := v1.13.5
LIVEKIT_SERVER  := .cache/livekit/$(LIVEKIT_VERSION)/livekit-server
GO := $(shell command -v go 2>/dev/null || ls /usr/local/go/bin/go 2>/dev/null)

# Without bytecode every process that a test starts compiles all that it imports: 9 s in place of 2.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test torture fuzz lint bench lock docs golden clean

help: ## List what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

.venv/ready: requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "speech-relay needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 …"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

setup: .venv/ready ## Make the virtual environment with every dependency, by hash

demo: .venv/ready ## Real speech → real VAD and STT → outbox → signed webhooks, on this machine, with no key
	$(BIN)/speech-relay demo

lint: .venv/ready ## ruff, mypy --strict and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# A real LiveKit server for the tests, from its Go module. Without Go those tests skip and say so (in CI they fail).
$(LIVEKIT_SERVER):
	@mkdir -p $(@D)
	CGO_ENABLED=0 GOBIN=$(abspath $(@D)) $(GO) install -ldflags='-s -w' github.com/livekit/livekit-server/cmd/server@$(LIVEKIT_VERSION)
	@mv $(@D)/server $@

test: lint $(if $(GO),$(LIVEKIT_SERVER)) ## The whole suite: lint, then every test
	LIVEKIT_SERVER=$(abspath $(LIVEKIT_SERVER)) $(BIN)/pytest --durations=20

torture: .venv/ready ## 20,000 events to five bad endpoints while the dispatcher is killed 140 times, reconciled one by one
	$(BIN)/python -m tests.torture

fuzz: .venv/ready ## 10,000 mutated configurations, at start, at reload and through the command line
	FUZZ_FILES=10000 $(BIN)/pytest --timeout=1800 tests/property/test_config_fuzz.py

bench: .venv/ready $(if $(GO),$(LIVEKIT_SERVER)) ## Measure throughput, latency and CPU; docs/benchmarks.md explains the figures
	LIVEKIT_SERVER=$(abspath $(LIVEKIT_SERVER)) $(BIN)/python -m bench

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-header --no-annotate --upgrade
lock: .venv/ready ## Resolve the dependencies anew into the hashed lock files
	$(BIN)/pip install --quiet uv
	$(COMPILE) pyproject.toml -o requirements.lock
	$(COMPILE) pyproject.toml --extra moonshine -o requirements-moonshine.lock
	$(COMPILE) pyproject.toml --extra assemblyai --extra cartesia --extra moonshine --extra openai --extra dev -o requirements-dev.lock
	echo hatchling | $(COMPILE) - -o requirements-build.lock

docs: .venv/ready ## Write the reference pages anew from the models, and the pictures from the golden timelines
	$(BIN)/python -m docs.generate

golden: .venv/ready ## Write the golden event files anew after a deliberate change of the wire
	$(BIN)/python -m tests.golden.write

clean: ## Remove what these targets made
	rm -rf .venv .cache dist
