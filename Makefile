# Every step that CI runs is a target here, and nothing else is needed: `make help`.
# Needs python3 >= 3.11, Rust (Cargo.toml states the version), make and a C compiler.

PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
STAMPS  = $(VENV)/.stamps
RUST    = $(shell find rust -name '*.rs' -not -path 'rust/fuzz/*' -not -path '*/target/*') Cargo.toml Cargo.lock rust/core/Cargo.toml rust/py/Cargo.toml

.DEFAULT_GOAL := help
.PHONY: help dev example build test test-rust test-python coverage mutants mutants-rust mutants-python public-surface test-browser clients test-interpreters test-environments test-deploy test-audit test-apache check check-rust check-python format bench bench-micro bench-load bench-tokens bench-peers bench-compare bench-memory bench-emulator bench-pictures soak chaos fuzz fuzz-smoke roundtrip test-providers audit lock clean wheel sdist licences release-check test-library rust-version check-deploy docs docs-serve docs-reference screenshots test-docs

help: ## Show this list
	@echo 'entra_fast: a fast validator for Entra ID tokens, a token sidecar, and a local Entra ID.'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

dev: build ## Run the local providers, the token generators and a sidecar (APP=cluster:namespace:name, ARGS=...)
	@$(BIN)/entra-fast dev $(if $(APP),--app $(APP)) $(ARGS)

example: build $(STAMPS)/example ## Run two APIs, a web application and a job on a local Entra ID (ARGS="--port 8000 --entra-port 8080")
	@$(BIN)/python examples/services/run.py $(ARGS)

roundtrip: build ## Try every identity provider of a local system, or of a sidecar or Texas (URL=http://127.0.0.1:3000 ARGS=...)
	@$(BIN)/entra-fast roundtrip $(if $(URL),--url $(URL),--local) $(ARGS)

build: $(STAMPS)/build ## Set up the virtual environment and build the extension in release mode

test: test-rust test-python ## Run the tests of both languages; test-docs, test-browser, clients and test-providers are apart

test-rust: $(STAMPS)/venv ## Run the tests of the Rust core
	@echo '==> Rust tests'
	@cargo test --locked --package entra-core

# Suites with targets of their own: each takes minutes.
APART = --ignore tests/docs --ignore tests/browser --ignore tests/clients --ignore tests/providers

# Files are the unit: the tests of many share a server.
IN_PARALLEL = -n auto --maxprocesses 4 --dist loadfile

test-python: build $(STAMPS)/tools ## Run the Python tests (ARGS="-k name" to choose, IN_PARALLEL= for one process)
	@echo '==> Python tests'
	@$(BIN)/pytest $(APART) $(IN_PARALLEL) $(ARGS)

test-browser: build $(STAMPS)/tools ## Run the tests of pages, examples and tutorial in a real browser (Debian: chromium)
	@$(BIN)/pytest tests/browser $(ARGS)

clients: build $(STAMPS)/tools $(STAMPS)/clients ## Run SDKs for Python, Node.js, Go and Java against the local Entra ID
	@$(BIN)/pytest tests/clients --timeout 900 $(ARGS) # packages are fetched and compiled first

test-providers: build $(STAMPS)/tools ## Run sidecars with all identity providers at mock-oauth2-server (needs Java and Maven)
	@$(BIN)/pytest tests/providers --timeout 600 $(ARGS) # the server is fetched first

coverage: export COVERAGE_FILE = $(abspath target/coverage/data)
coverage: build $(STAMPS)/tools ## Run the Python tests with line and branch coverage, and compare it with the gate
	@rm -rf target/coverage && mkdir -p target/coverage
	@$(BIN)/pytest -p no:cacheprovider --cov --cov-report= --ignore tests/clients --ignore tests/docs --ignore tests/providers $(ARGS)
	@$(BIN)/coverage json --quiet -o target/coverage/report.json
	@$(BIN)/python tests/tools/coverage_gate.py target/coverage/report.json $(TOLERANCE)

mutants: ## Change the code in one place at a time, and see which changes no test notices (takes hours; the next run goes on)
	@$(MAKE) --no-print-directory --keep-going mutants-rust mutants-python

mutants-rust: $(STAMPS)/venv ## The same for the Rust core alone (ARGS="cache validate/policy" to choose modules, ARGS=--help for the rest)
	@PYTHONPATH=tests $(PYTHON) -m mutants.rust.run $(ARGS)

mutants-python: build $(STAMPS)/tools ## Change the Python parts in one place at a time, and see which tests fail (PARTS="token-client validate", ARGS="--again")
	@PYTHONPATH=tests $(BIN)/python -m mutants.python $(PARTS) $(ARGS)

test-interpreters: $(STAMPS)/run ## Run the library's tests on every CPython from 3.11 that this machine has
	@tests/interpreters.sh $(abspath $(BIN))/maturin

test-environments: $(STAMPS)/build ## Install the wheel into clean environments (no aiohttp, 3.9 to 3.14, other uvloops), and check it there
	@tests/environments.sh $(abspath $(BIN))/maturin $(abspath $(BIN))/python

test-deploy: build $(STAMPS)/tools ## Build the wheel, install it from nothing, and run it as containers do (root, for most of it)
	@rm -rf target/test-deploy
	@$(BIN)/maturin build --quiet --release --locked --interpreter $(abspath $(BIN))/python --out target/test-deploy
	@ENTRA_FAST_WHEEL="$$(echo target/test-deploy/*.whl)" $(BIN)/pytest tests/deploy $(ARGS)

test-apache: build $(STAMPS)/tools ## Run the library in mod_wsgi behind a real Apache (skipped, with the reason, where there is none)
	@$(BIN)/pytest tests/apache

test-library: build $(STAMPS)/tools ## Run the tests of the library alone, as on systems without the sidecar
	@$(BIN)/pytest tests/unit/test_validate.py tests/unit/test_validate_failures.py tests/unit/test_jwks.py tests/unit/test_signatures.py tests/hardening tests/properties $(ARGS)

public-surface: build $(STAMPS)/tools ## Write tests/unit/public_surface.txt again after a decision to change the public Python interface
	@$(BIN)/python tests/tools/public_surface.py

check: check-rust check-python ## Run formatters, linters, import contracts and type checks (STRICT=1 to fail where pyright cannot run)

check-rust:
	cargo fmt --check
	cargo clippy --locked --workspace --all-targets -- --deny warnings
	$(PYTHON) rust/check_rust_version.py

check-python: build $(STAMPS)/tools
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest entra_fast._native
	@STRICT='$(STRICT)' examples/pyright.sh $(BIN)

check-deploy: $(STAMPS)/deploy ## Check workflows, Containerfile, manifests, charts and alerts (STRICT=1 to fail on what cannot be checked, HELM=build to build helm)
	@STRICT='$(STRICT)' HELM='$(HELM)' deploy/check.sh $(VENV)/deploy/bin

docs: build $(STAMPS)/docs ## Build the documentation site in target/site, and check every link in it
	@docs/tools/build.sh $(abspath $(BIN)) $(abspath $(VENV))/docs/bin

docs-serve: build $(STAMPS)/docs ## Show the documentation site on http://127.0.0.1:8000 while you write
	@$(BIN)/python docs/tools/prepare.py
	@trap 'kill 0' INT TERM EXIT; $(BIN)/python docs/tools/prepare.py --watch & $(VENV)/docs/bin/zensical serve --dev-addr 127.0.0.1:8000

docs-reference: build $(STAMPS)/tools ## Write the reference pages that follow from the code again
	@PYTHONPATH=tests $(BIN)/python -m docs.tools.reference

screenshots: build $(STAMPS)/tools ## Take the pictures of the pages in docs/pictures again (needs Chromium)
	@PYTHONPATH=tests $(BIN)/python -m docs.tools.screenshots

test-docs: build $(STAMPS)/tools ## Run every block of every page of the documentation
	@$(BIN)/pytest tests/docs $(ARGS)

bench: bench-micro bench-load ## Run all benchmarks

bench-micro: ## Time the library against other libraries and lower bounds, and print ratios
	@benches/run_micro.sh

chaos: build $(STAMPS)/tools ## Inject faults of all kinds into sidecars under load for four minutes (SEED=n repeats them, ARGS="--part workers --seconds 300")
	@$(BIN)/python -m benches.chaos $(if $(SEED),--seed $(SEED)) $(ARGS)

bench-tokens: build $(STAMPS)/tools ## Time the token clients against MSAL for Python, and count their requests
	@$(BIN)/python -m benches.token_clients $(ARGS)

bench-peers: build $(STAMPS)/tools ## Compare the integrations with other libraries: lines, answers, requests per second (needs wrk)
	@benches/peers/run.sh $(VENV) $(ARGS)

bench-load: build $(STAMPS)/tools ## Load the sidecar and its references over loopback (needs wrk), and print ratios
	@cargo build --quiet --release --locked --package entra-core --example floor
	@$(BIN)/python -m benches.load $(ARGS)

bench-compare: build $(STAMPS)/tools ## Compare with another version side by side (BASE=git-ref; needs wrk), row by row
	@benches/compare.sh $(VENV) '$(BASE)' $(ARGS)

soak: build $(STAMPS)/tools ## Send REQUESTS (10000000) of all kinds, and check every response
	@$(BIN)/python -m benches.soak --requests $(or $(REQUESTS),10000000) $(ARGS)

bench-memory: build $(STAMPS)/tools ## Fill the caches of sidecars within 256 MiB (root), and send 10^6 distinct tokens through one (TOKENS=n)
	@PYTHONPATH=tests $(BIN)/python -u -m benches.memory_limit $(ARGS)
	@$(BIN)/python -m benches.memory $(TOKENS)

bench-emulator: build $(STAMPS)/tools ## Time the start of the local Entra ID with 1,000 applications, and its pages
	@$(BIN)/python -m benches.emulator $(ARGS)

bench-pictures: $(STAMPS)/tools ## Draw benches/results/*.json again, without measuring
	@$(BIN)/python -m benches.pictures

lock: $(STAMPS)/tools ## Lock the dependencies of pyproject.toml in requirements/*.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check uv
	@requirements/lock.sh $(BIN)/uv

format: $(STAMPS)/tools ## Format the code, and fix what linters can fix
	cargo fmt
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

RUST_VERSION = $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'entra_fast needs Python 3.11 or newer: make PYTHON=python3.12 ...'; exit 1; }
	@cargo --version 2>/dev/null | awk -v least='$(RUST_VERSION)' \
	  '{split($$2, own, "."); split(least, v, "."); exit !(own[1] > v[1] || (own[1] == v[1] && own[2] >= v[2]))} END {if (!NR) exit 1}' || \
	  { echo 'entra_fast needs Rust $(RUST_VERSION) or newer (found: '"$$(cargo --version 2>/dev/null || echo none)"'): see https://rustup.rs'; exit 1; }
	@[ '$(OS)' = Windows_NT ] || command -v $${CC:-cc} >/dev/null || { echo 'entra_fast needs a C compiler (Debian: apt install gcc)'; exit 1; }
	@echo '==> Creating the virtual environment $(VENV)'
	@$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS)
	@touch $@

$(STAMPS)/run: requirements/run.txt $(STAMPS)/venv
	@echo '==> Installing the dependencies (locked)'
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.txt
	@touch $@

$(STAMPS)/clients: requirements/clients.txt $(STAMPS)/tools
	@echo '==> Installing the packages of services that sign users in (locked)'
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/clients.txt
	@touch $@

# In an environment of their own: what they need would hold back what the product needs.
$(STAMPS)/deploy: requirements/deploy.txt $(STAMPS)/venv
	@echo '==> Installing the tools that check deploy/ (locked)'
	@$(PYTHON) -m venv --clear $(VENV)/deploy
	@$(VENV)/deploy/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/deploy.txt
	@touch $@

$(STAMPS)/docs: requirements/docs.txt $(STAMPS)/venv
	@echo '==> Installing the tools that build the documentation (locked)'
	@$(PYTHON) -m venv --clear $(VENV)/docs
	@$(VENV)/docs/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/docs.txt
	@touch $@

$(STAMPS)/release: requirements/release.txt $(STAMPS)/run
	@echo '==> Installing the tools for releases (locked)'
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/release.txt
	@touch $@

$(STAMPS)/example: requirements/example.txt $(STAMPS)/run
	@echo '==> Installing what the example services need (locked)'
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/example.txt
	@touch $@

$(STAMPS)/tools: requirements/dev.txt $(STAMPS)/run
	@echo '==> Installing the tools for tests and checks (locked)'
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

$(STAMPS)/build: $(STAMPS)/run $(RUST) pyproject.toml
	@echo '==> Building the extension in release mode (the first time takes minutes)'
	@PIP_QUIET=1 VIRTUAL_ENV=$(abspath $(VENV)) PATH="$(abspath $(BIN)):$$PATH" $(BIN)/maturin develop --release --locked
	@touch $@

wheel: $(STAMPS)/release ## Build wheels for every CPython, reproducibly, and try them (TARGET=Rust target, VERSIONS="3.13 3.14")
	@TARGET='$(TARGET)' VERSIONS='$(VERSIONS)' STRICT='$(STRICT)' deploy/release/wheel.sh $(abspath $(BIN))/python

sdist: $(STAMPS)/run ## Build the source distribution
	@$(BIN)/maturin sdist --out dist

licences: ## Write THIRD-PARTY-LICENSES.txt again, after a change of Cargo.lock
	@$(PYTHON) deploy/release/licences.py wheel > THIRD-PARTY-LICENSES.txt

release-check: ## Check that version, tag and changelog fit (TAG=v1.2.3)
	@TAG='$(TAG)' deploy/release/release_check.sh

rust-version: ## Print the oldest Rust that is supported
	@echo '$(RUST_VERSION)'

fuzz: ## Fuzz the Rust core for SECONDS=300 each (TARGET=name to choose, INPUT=file to run one input again)
	@INPUT='$(INPUT)' SANITIZER='$(or $(SANITIZER),none)' rust/fuzz/run.sh -1 $(or $(SECONDS),300) $(TARGET)

fuzz-smoke: ## Run every fuzz target for at most 20,000 inputs and 10 seconds
	@INPUT= SANITIZER=none rust/fuzz/run.sh 20000 10

audit: ## Check dependencies: licences, sources, known vulnerabilities (STRICT=1 to fail on what cannot be checked)
	@PYTHON='$(PYTHON)' STRICT='$(STRICT)' requirements/audit.sh

test-audit: $(STAMPS)/tools ## Prove that `make audit` finds what it should: planted vulnerable lock files, recorded databases
	@AUDIT_TESTED=1 $(BIN)/pytest tests/audit $(ARGS)

clean: ## Remove everything that was built
	rm -rf target dist .cache $(VENV) .venv-3.* .venv-bench python/entra_fast/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis
