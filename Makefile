# `make help` lists what there is. Everything built or downloaded is cached outside the checkout, by version.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:

export LLM_OPERATOR_CACHE ?= $(HOME)/.cache/llm-operator
export PYTHONPATH := $(CURDIR)/operator:$(CURDIR)/trainer_image:$(CURDIR)
PYTHON ?= python3# of a machine with a GPU, whose torch is its own
# A recipe that needs Python starts with $(python): it makes the environment when it isn't there.
python = python3 -m tests.cluster build environment; venv=$$(tools/environment.sh); export PATH=$$venv/bin:$$PATH;

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

.PHONY: demo
demo: $(if $(REGISTRY),images,build) ## The main job, or EXAMPLE=…, on the built-in cluster, or on yours with KUBECONFIG=… REGISTRY=…
	@$(python) python -m demo $(if $(EXAMPLE),--example $(EXAMPLE)) $(if $(REGISTRY),--kubeconfig $(KUBECONFIG) --registry $(REGISTRY) $(if $(STORAGE_CLASS),--storage-class $(STORAGE_CLASS)))

.PHONY: test test-all
test: build lint ## What every change must pass
	@export LLM_OPERATOR_BUILD_SECONDS=$$(cat $(LLM_OPERATOR_CACHE)/build-seconds)
	$(python) python -m pytest tests --durations=30 $(ARGS)
test-all: build lint ## That and every example and family on the cluster, before a release; a table of what was seen
	@export LLM_OPERATOR_BUILD_SECONDS=$$(cat $(LLM_OPERATOR_CACHE)/build-seconds)
	$(python)
	python -m tests.cluster build policy-engine
	python -m pytest tests --durations=30 -m "" $(ARGS)

.PHONY: lint
lint: cluster-build ## ruff, mypy, import-linter, generated files, helm lint, checkov on the chart
	@$(python)
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	python -m llm_operator.api.schema --check
	helm="$$(python -m tests.cluster folder)/helm"
	"$$helm" lint --strict charts/llm-operator
	tools/checkov.sh "$$helm"

.PHONY: scan licences
scan: ## Known vulnerabilities in the locks, where a database can be reached
	@environment=$$(tools/environment.sh --scan); python3 tools/scan.py "$$environment"
licences: build ## Write docs/licences.md from what the images hold
	@$(python) python -m tests.cluster bills $(LLM_OPERATOR_CACHE)/bills
	python tools/licences.py $(LLM_OPERATOR_CACHE)/bills/*.json

.PHONY: generate
generate: ## Write crds/, the chart's copies and the reference pages from the models
	@$(python) python -m llm_operator.api.schema

.PHONY: requirements
requirements: ## Resolve pyproject.toml's extras into requirements/, with hashes
	@$(python) tools/requirements.sh

.PHONY: test-unit test-api test-trainer test-e2e test-gpu
test-unit: ## No I/O, no clock
	@$(python) python -m pytest tests/unit $(ARGS)
test-api: cluster-build ## Against a real API server
	@$(python) python -m pytest tests/api $(ARGS)
test-trainer: ## Real torch, DeepSpeed and TRL on two processes
	@$(python) python -m pytest tests/trainer $(ARGS)
test-e2e: build ## On the two-node cluster
	@$(python) python -m pytest tests/e2e $(ARGS)

test-gpu: ## The stages on a machine with a GPU, by the python3 there: PYTHON=…
	@$(PYTHON) -m pytest tests/gpu $(ARGS)

.PHONY: bench bench-trainer bench-start bench-gpu
bench: cluster-build ## Figures of the operator on a real API server
	@$(python) python -m tests.bench
bench-trainer: ## Our stages against TRL's and transformers' own trainers, side by side
	@$(python) python -m tests.bench trainer $(ARGS)
bench-gpu: ## Speed and memory of pretraining and attention on a GPU, by the python3 there: PYTHON=…
	@$(PYTHON) -m tests.bench gpu $(ARGS)
bench-start: ## CPU seconds of a stage before its first step, and where they go
	@$(python) python -m tests.bench start $(ARGS)

-include tests/cluster/cluster.mk
