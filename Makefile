# Every target needs Python 3.11 or newer; the frontend's need Node 20 as well. Nothing is
# installed outside .venv and frontend/node_modules.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

export PYTHON ?= python3
# Without bytecode every process compiles all it imports again: 7 s of a start instead of 2.
unexport PYTHONDONTWRITEBYTECODE
BIN := .venv/bin
SOURCES := gateway services notifier
ARGS ?=

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "%-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: run
run: ## Serve this checkout on 127.0.0.1:8080; the first call sets up .venv
	@exec ./scripts/serve.sh $(ARGS)

.PHONY: dev
dev: dev-set node-set ## Serve with restart on change, and the dashboard's dev server beside it
	@exec ./scripts/dev.sh

.PHONY: test
test: dev-set ## Run the tests, in two processes; ARGS="-k cache" picks some, ARGS="-n 0" takes one process
	@echo "==> pytest"
	@$(BIN)/python -m pytest -m "not bench" -n 2 --dist loadfile $(ARGS)

.PHONY: check
check: ## Run what CI runs: static checks, frontend, conformance, tests
	@$(MAKE) static
	@$(MAKE) frontend
	@$(MAKE) conformance
	@$(MAKE) test

.PHONY: static
static: lint types imports dependencies dead-code manifests ## Run the checks that start nothing

.PHONY: bench
bench: bench-set ## Run the benchmarks; ARGS="-k cache" picks some
	@$(BIN)/python -m pytest -m bench -s --timeout 1800 tests/bench $(ARGS)

.PHONY: chaos
chaos: dev-set ## Break real replicas and judge what clients saw; CHAOS_DATABASE, _SECONDS, _FAULTS; ARGS=--usual
	@$(BIN)/python -m tests.chaos $(ARGS)

.PHONY: chaos-push
chaos-push: dev-set ## Kill replicas under clients that hop between transports; ARGS="--seconds 60 --clients 200"
	@$(BIN)/python -m tests.chaos.push $(ARGS)

.PHONY: conformance
conformance: dev-set ## Run the public MCP suites against a real service; ARGS="2026" picks some
	@npm --prefix tests/conformance ci --no-audit --no-fund --ignore-scripts --loglevel=error
	@$(BIN)/python -m tests.conformance $(ARGS)

.PHONY: lint
lint: dev-set
	@echo "==> ruff"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

.PHONY: format
format: dev-set ## Format the Python code and fix what ruff can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: types
types: dev-set
	@echo "==> mypy"
	@$(BIN)/mypy
	@$(BIN)/mypy scripts

.PHONY: imports
imports: dev-set
	@echo "==> lint-imports"
	@$(BIN)/lint-imports

.PHONY: dependencies
dependencies: dev-set
	@echo "==> deptry"
	@$(BIN)/deptry $(SOURCES)

# Parameters of callbacks, whose names asyncio, click and pydantic choose. In the tests, unused
# parameters are fixtures.
.PHONY: dead-code
dead-code: dev-set
	@echo "==> vulture"
	@$(BIN)/vulture --min-confidence 80 --ignore-names "ctx,exc,dotenv_settings,file_secret_settings" $(SOURCES) scripts

.PHONY: manifests
manifests: dev-set
	@echo "==> hadolint, compose, kustomize, kubernetes-validate"
	@$(BIN)/hadolint deploy/*Containerfile
	@$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml
	@for folder in k8s/base k8s/migrate k8s/overlays/*/; do \
		$(BIN)/kubectl kustomize "$$folder" | $(BIN)/kubernetes-validate --strict --quiet -; \
	done

.PHONY: frontend
frontend: node-set ## Check the frontend and that gateway/dashboard is its build
	@echo "==> npm run check"
	@npm --prefix frontend run check
	@echo "==> npm run build"
	@npm --prefix frontend run build
	@git diff --exit-code -- gateway/dashboard || { echo "gateway/dashboard is not what the sources build: commit it"; exit 1; }
	@extra=$$(git ls-files --others -- gateway/dashboard); \
		[ -z "$$extra" ] || { echo "not committed: $$extra"; exit 1; }

.PHONY: lock
lock: dev-set ## Lock the dependencies anew; ARGS=--upgrade moves them to their newest versions
	@lock() { $(BIN)/uv --quiet pip compile "$$@" --universal --generate-hashes --no-annotate --no-header $(ARGS); }; \
		lock pyproject.toml --extra aws --extra postgres -o requirements.lock; \
		lock pyproject.toml --group dev --extra aws --extra milvus --extra postgres -c requirements.lock -o requirements-dev.lock; \
		lock pyproject.toml --group dev --group bench --extra aws --extra milvus --extra postgres -c requirements-dev.lock -o requirements-bench.lock; \
		printf '%s\n' uv hatchling editables | lock - -c requirements-dev.lock -o bootstrap.lock
	@npm --prefix frontend install --package-lock-only --ignore-scripts
	@npm --prefix tests/conformance install --package-lock-only --ignore-scripts --loglevel=error
	@$(BIN)/python -c 'import json, pathlib; path = pathlib.Path("tests/conformance/package-lock.json"); lock = json.loads(path.read_text()); [each.pop("funding", None) for each in lock["packages"].values()]; path.write_text(json.dumps(lock, indent=2) + "\n")'
	@npm --prefix frontend ci

.PHONY: clean
clean: ## Remove what was installed and cached; .skillwire, the data, stays
	@rm -rf .venv frontend/node_modules tests/conformance/node_modules .mypy_cache .ruff_cache .pytest_cache .import_linter_cache dist
	@find $(SOURCES) scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: dev-set
dev-set:
	@"$$PYTHON" scripts/set_up.py dev

.PHONY: bench-set
bench-set:
	@"$$PYTHON" scripts/set_up.py bench

# npm writes this file last, so it is newer than the lock exactly when the last install ended well.
.PHONY: node-set
node-set: frontend/node_modules/.package-lock.json

frontend/node_modules/.package-lock.json: frontend/package-lock.json
	@command -v npm > /dev/null || { echo "npm is missing: the frontend needs Node 20.19 or newer"; exit 1; }
	@echo "==> npm ci"
	@npm --prefix frontend ci --no-audit --no-fund
	@touch $@
