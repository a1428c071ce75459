# The two-node test cluster and the images; see tests/cluster.
.PHONY: build cluster-build images cluster-up cluster-down cluster-status
build: ## Build all that tests and demo need, at the same time: environment, cluster, images (cached)
	@SECONDS=0; python3 -m tests.cluster build; echo $$SECONDS > $(LLM_OPERATOR_CACHE)/build-seconds
cluster-build: ## Build the test cluster's binaries (cached)
	@python3 -m tests.cluster build binaries
images: ## Build the operator's and the trainer's image (cached)
	@python3 -m tests.cluster build images
cluster-up: cluster-build ## Start the two-node cluster on this machine
	@$(python) python -m tests.cluster up
cluster-down: ## Stop it; nothing is left
	@$(python) python -m tests.cluster down
cluster-status: ## Its processes, nodes and pods
	@$(python) python -m tests.cluster status
