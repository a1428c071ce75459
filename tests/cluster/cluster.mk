# The two-node test cluster and the images; see tests/cluster.
.PHONY: cluster-build cluster-up cluster-down cluster-status images
cluster-build: ## Build the test cluster's binaries (cached)
	@$(python) python -m tests.cluster build > /dev/null
cluster-up: cluster-build ## Start the two-node cluster on this machine
	@$(python) python -m tests.cluster up
cluster-down: ## Stop it; nothing is left
	@$(python) python -m tests.cluster down
cluster-status: ## Its processes, nodes and pods
	@$(python) python -m tests.cluster status
images: cluster-build ## Build the operator's and the trainer's image (cached)
	@$(python) python -m tests.cluster images
