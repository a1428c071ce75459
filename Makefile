# `make help` lists what there is. Everything built or downloaded is cached outside the checkout, by version.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:

export LLM_OPERATOR_CACHE ?= $(HOME)/.cache/llm-operator
export PYTHONPATH := $(CURDIR)/operator:$(CURDIR)/trainer_image:$(CURDIR)/app_image:$(CURDIR)/kubectl_plugin:$(CURDIR)/client:$(CURDIR)
PYTHON ?= python3# of a machine with a GPU, whose torch is its own
# A recipe that needs Python starts with $(python): it makes the environment when it isn't there.
python = python3 -m tests.cluster build environment; venv=$$(tools/environment.sh); export PATH=$$venv/bin:$$PATH;

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

LANES = -n 2 --dist loadscope# tests/lanes.py

.PHONY: demo
demo: $(if $(REGISTRY),images,build) ## The main job, or EXAMPLE=…, on the built-in cluster, or on yours with KUBECONFIG=… REGISTRY=…
	@$(python) python -m demo $(if $(EXAMPLE),--example $(EXAMPLE)) $(if $(REGISTRY),--kubeconfig $(KUBECONFIG) --registry $(REGISTRY) $(if $(STORAGE_CLASS),--storage-class $(STORAGE_CLASS)))

.PHONY: test test-all
test: build lint ## What every change must pass
	@export LLM_OPERATOR_BUILD_SECONDS=$$(cat $(LLM_OPERATOR_CACHE)/build-seconds)
	$(python) python -m pytest tests $(LANES) --durations=30 $(ARGS)
test-all: build lint ## That and every example and family on the cluster, before a release; a table of what was seen
	@export LLM_OPERATOR_BUILD_SECONDS=$$(cat $(LLM_OPERATOR_CACHE)/build-seconds)
	$(python)
	python -m tests.cluster build policy-engine prometheus-operator
	python -m pytest tests $(LANES) --durations=30 -m "" --hypothesis-profile=release $(ARGS)

.PHONY: lint
lint: cluster-build ## ruff, mypy, import-linter, generated files, helm lint, checkov on the chart, the site's links
	@$(python)
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	python -m llm_operator.api.schema --check
	python -m tools.reference --check
	helm="$$(python -m tests.cluster folder)/helm"
	"$$helm" lint --strict charts/llm-operator
	tools/checkov.sh "$$helm"
	tools/site.sh build

.PHONY: site
site: ## The documentation, at an address that it tells; it follows your edits
	@tools/site.sh serve

.PHONY: scan licences
scan: ## Known vulnerabilities in the locks, where a database can be reached; ARGS=--required where it must be
	@environment=$$(tools/environment.sh --scan); python3 tools/scan.py "$$environment" $(ARGS)
licences: build ## Write docs/licences.md from what the images hold
	@$(python) python -m tests.cluster bills $(LLM_OPERATOR_CACHE)/bills
	python tools/licences.py $(LLM_OPERATOR_CACHE)/bills/*.json

.PHONY: generate
generate: ## Write crds/, the chart's copies, the reference pages and the dashboards from the code
	@$(python)
	python -m llm_operator.api.schema
	python -m tools.reference
	python tools/metrics_page.py
	python tools/dashboards.py

.PHONY: requirements
requirements: ## Resolve pyproject.toml's extras into requirements/, with hashes
	@$(python) tools/requirements.sh

.PHONY: test-unit test-api test-trainer test-e2e test-gpu
test-unit: ## No I/O, no clock
	@$(python) python -m pytest tests/unit tests/app $(ARGS)
test-api: cluster-build ## Against a real API server
	@$(python) python -m pytest tests/api $(ARGS)
test-trainer: ## Real torch, DeepSpeed and TRL on two processes
	@$(python) python -m pytest tests/trainer $(ARGS)
test-e2e: build ## On the two-node cluster
	@$(python) python -m pytest tests/e2e $(ARGS)

test-gpu: ## The stages on a machine with a GPU, by the python3 there: PYTHON=…
	@$(PYTHON) -m pytest tests/gpu $(ARGS)

.PHONY: bench bench-trainer bench-start bench-digests bench-app bench-fetch bench-seen bench-checkpoint bench-gpu bench-large gpu-check
bench: cluster-build ## Figures of the operator on a real API server
	@$(python) python -m tests.bench
bench-trainer: ## Our stages against TRL's and transformers' own trainers, side by side
	@$(python) python -m tests.bench trainer $(ARGS)
bench-gpu: ## Speed and memory of pretraining and attention on a GPU, by the python3 there: PYTHON=…
	@$(PYTHON) -m tests.bench gpu $(ARGS)
gpu-check: ## In ten minutes on a machine with a GPU what no test on CPU can show, as rows of docs/figures.md: PYTHON=…
	@$(PYTHON) -m tests.bench check $(ARGS)
bench-large: ## Memory of a process while a model of 1 B weights is made, written and read by two
	@$(python) python -m tests.bench large
bench-start: ## CPU seconds of a stage before its first step, and where they go
	@$(python) python -m tests.bench start $(ARGS)
bench-digests: ## What it costs a start to compare a model of 1 GB with its digest
	@$(python) python -m tests.bench digests $(ARGS)
bench-fetch: ## Fetching from a bucket and a hub against aws s3 cp and hf download: ARGS="--aws PROGRAM"
	@$(python) python -m tests.bench fetch $(ARGS)
bench-app: ## What the server of an app adds to the first token, and its memory
	@$(python) python -m tests.bench app $(ARGS)
bench-seen: ## What metrics, history, report and trackers cost, beside a step of the example's model
	@$(python) python -m tests.bench seen
bench-checkpoint: ## For how long the training stands still for a checkpoint: ARGS="--parameters 1e9"
	@$(python) python -m tests.bench checkpoint $(ARGS)

-include tests/cluster/cluster.mk
