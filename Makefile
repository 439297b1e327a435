# Each target makes its own environment in .venv from the lock; only Python >= 3.11 is needed.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
DURATION ?= 60s
SHORT ?=
ONLY ?=

.PHONY: help env demo test lint prove bench docs lock clean

help:
	@echo "make demo [DURATION=30s]   the whole way on simulated meters"
	@echo "make test [ONLY=FILE]      the tests"
	@echo "make lint                  style, types, and who may import whom"
	@echo "make prove [SHORT=1]       the long proofs: kills, damage, crash states; ONLY='kills years': some"
	@echo "make bench                 measured beside peers, into bench/README.md"
	@echo "make clean                 remove what the others made"

env: $(VENV)/.made

$(VENV)/.made: requirements-dev.lock pyproject.toml deploy/make-venv.sh deploy/find-python.sh
	@echo "making $(VENV), once: this takes a minute"
	@bash deploy/make-venv.sh $(VENV) requirements-dev.lock
	@touch $@

demo: env
	@$(BIN)/meter-gateway demo --duration $(DURATION)

# Four at a time: most of them wait for a line, a slot or a process.
test: env
	$(BIN)/python -m pytest -n 4 --dist worksteal $(ONLY)

lint: env
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	@if command -v shellcheck >/dev/null; then shellcheck .ci/run deploy/*.sh; \
	else echo "shellcheck is not installed: scripts were not checked"; fi

# Two at a time; what each one measured stands at the end, and after a whole run in the docs.
prove: env
	$(BIN)/python -m pytest $(if $(ONLY),$(ONLY:%=tests/proofs/test_%.py),tests/proofs) -v --timeout 5400 -n 2 --dist worksteal --override-ini addopts="--import-mode=importlib --strict-markers" $(if $(SHORT),--short) $(if $(SHORT)$(ONLY),,--card docs/report-card.md)

bench: env
	$(BIN)/python -m bench.run

# What is generated from the code; a test compares.
docs: env
	$(BIN)/python docs/reference/events.py > docs/reference/events.md
	$(BIN)/python docs/meters.py > docs/meters.md
	$(BIN)/python docs/reference/missing.py > docs/reference/missing.md

COMPILE := uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header --no-emit-index-url

# Needs uv; run after the dependencies in pyproject.toml changed.
lock:
	$(COMPILE) pyproject.toml -o requirements.lock
	$(COMPILE) --group dev pyproject.toml -o requirements-dev.lock
	grep -o '^requires = \["[^"]*' pyproject.toml | cut -d'"' -f2 | $(COMPILE) --no-annotate --constraint requirements-dev.lock - -o deploy/build.lock

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist build bench/.peers
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
