# What people and CI share. `make` alone lists the targets.
#
# State lives in two folders that git ignores: .venv (Python) and .cluster (the local Kubernetes, its tools and images).
# CLUSTER=local     the two-node cluster that tools/cluster builds on this machine (default)
# CLUSTER=kind      a kind cluster, where Docker is there
# CLUSTER=existing  the cluster of the current kubeconfig; asks for its name (or reads TRAINYARD_CONTEXT) before it touches
#                   it. Images: TRAINYARD_REGISTRY to build and push, or OPERATOR_IMAGE and TRAINER_IMAGE that are there

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

CLUSTER ?= local
export CLUSTER
PYTHON3 ?= python3
UV := $(or $(shell command -v uv),$(CURDIR)/.cluster/uv/bin/uv)
PATH := $(dir $(UV)):$(CURDIR)/.cluster/bin:$(PATH)
export PATH
ifneq ($(CLUSTER),existing)
export KUBECONFIG := $(CURDIR)/.cluster/kubeconfig
endif

# A machine may forbid Python to keep compiled modules; then each worker and each process of a test compiles them anew.
export PYTHONDONTWRITEBYTECODE :=

PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest
DRIVER := $(PYTHON3) tools/cluster
CHART := charts/trainyard
# At the same time; most tests against the cluster wait, and the cluster's two nodes are this machine.
WORKERS ?= 2
# Images that are there already need not be built.
IMAGES := $(if $(OPERATOR_IMAGE),,images)
APART := trainer-image/requirements-converter.lock trainer-image/requirements-harness.lock
LOCKS := requirements-dev.lock trainer-image/requirements-cpu.lock $(APART)
COMPILE := uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11

##@ Start here

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: venv ## From nothing to a trained model: cluster, images, operator, a first run, its result
	@$(PYTHON) tools/demo.py

.PHONY: demo-agent
demo-agent: venv ## A runbook becomes an agent that answers: real weights, MLflow, a bucket, git, Ollama (built at first use)
	@$(PYTHON) tools/demo_agent.py

.PHONY: test
test: venv cluster $(IMAGES) install ## All tests: unit, then API server, then end to end
	$(PYTEST) tests -m "not load and not servers" -n $(WORKERS)

.PHONY: test-fast
test-fast: venv ## What needs neither cluster nor long training: the daily selection
	$(PYTEST) tests/unit tests/chart -m "not slow and not api and not e2e and not servers and not load" -n auto

.PHONY: test-servers
test-servers: venv cluster $(IMAGES) install ## Against real Prometheus, Loki, MLflow and others, kept in .cluster/servers
	$(PYTEST) tests -m "servers and not load"

##@ Parts

.PHONY: venv
venv: .venv/.stamp ## The Python environment in .venv, from the lock files
.venv/.stamp: $(LOCKS) pyproject.toml trainer-image/cpu/install.py trainer-image/cpu/stubs.py
	@$(PYTHON3) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$(PYTHON3) is older than Python 3.11: make venv PYTHON3=python3.12"; exit 1; }
	@command -v uv > /dev/null || { echo "installing uv"; \
	  $(PYTHON3) -m ensurepip --version &> /dev/null || { apt-get update -qq; apt-get install -qq -y python3-venv; }; \
	  $(PYTHON3) -m venv .cluster/uv; .cluster/uv/bin/pip install --quiet uv; }
	@test -x $(PYTHON) || uv venv --quiet --python "$$(command -v $(PYTHON3))" .venv
	$(PYTHON3) trainer-image/cpu/install.py .venv --quiet
	uv pip install --quiet --python $(PYTHON) --no-deps --require-hashes --requirement requirements-dev.lock
	for part in converter harness; do uv pip install --quiet --python $(PYTHON) --target .venv/$$part --no-deps \
	  --require-hashes --requirement trainer-image/requirements-$$part.lock; done
	uv pip install --quiet --python $(PYTHON) --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: cluster
cluster: ## The local two-node Kubernetes (built once, then started in seconds)
	$(DRIVER) up

.PHONY: images
images: cluster ## Build the operator's and the trainer's image and push them to the cluster's registry
	$(DRIVER) images

.PHONY: install
install: venv $(IMAGES) ## Install or upgrade the operator with Helm in the current cluster
	$(PYTHON) tools/deploy.py

.PHONY: cluster-down
cluster-down: ## Stop the local cluster and remove what it put on the machine
	$(DRIVER) down

##@ Work on Trainyard

.PHONY: bench
bench: venv cluster $(IMAGES) install ## Measure: burst of runs, time to first step, memory
	$(PYTHON) tools/bench.py
	$(PYTEST) tests -m "load and not servers" --durations=0

.PHONY: generate
generate: venv ## CRDs and reference pages from the models
	$(PYTHON) tools/generate.py

.PHONY: lint
lint: venv ## Style, types, layers, structure, drift of generated files
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	.venv/bin/lint-imports
	$(PYTHON) tools/structure.py
	$(PYTHON) tools/generate.py --check

.PHONY: format
format: venv ## Rewrite the code to the common style
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

.PHONY: lock
lock: ## Resolve the dependencies anew; the locks carry hashes
	$(COMPILE) --extra operator pyproject.toml -o operator/requirements.lock
	cd trainer-image && $(COMPILE) requirements.in -o requirements.lock
	cd trainer-image && $(COMPILE) --excludes cpu/excludes.txt requirements.in -o requirements-cpu.lock
	cd trainer-image && $(COMPILE) --no-deps requirements-converter.in -o requirements-converter.lock
	cd trainer-image && $(COMPILE) --no-deps requirements-harness.in -o requirements-harness.lock
	$(COMPILE) -c trainer-image/requirements-cpu.lock --overrides requirements-dev.overrides \
	  --extra operator --extra cli --group dev pyproject.toml -o requirements-dev.lock

.PHONY: lock-supply
lock: lock-supply
lock-supply: ## The same for what builds and checks the images
	cd tools/supply && $(COMPILE) uv.in -o uv.lock && $(COMPILE) checks.in -o checks.lock

##@ Release

SUPPLY := .cluster/supply
$(SUPPLY)/.stamp: tools/supply/checks.lock | venv
	uv venv --quiet --clear --python $(PYTHON) $(SUPPLY)
	uv pip install --quiet --python $(SUPPLY)/bin/python --no-deps --require-hashes --requirement $<
	@touch $@

.PHONY: sbom
sbom: venv $(SUPPLY)/.stamp ## Bill of materials of each image (CycloneDX), from the locks, in build/sbom
	$(PYTHON) tools/supply.py sbom

.PHONY: audit
audit: venv $(SUPPLY)/.stamp ## Known vulnerabilities of the locked packages; asks a service on the internet
	$(PYTHON) tools/supply.py audit

.PHONY: release
release: sbom ## Build and push the images: BASE=NAME@sha256:... REGISTRY=... [VERSION=... SOURCE=... ENGINE=docker]
	$(PYTHON) tools/release.py
