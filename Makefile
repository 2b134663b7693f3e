# Everything here works on a machine that has Python 3.11 or later and make, and nothing else.
# On Debian and Ubuntu `python3` is that Python; another: make demo PYTHON=python3.12

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-pbx conformance chaos screenshots lint format serve clean distclean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
		printf '  make %-11s %s\n' "$$name" "$$text"; done

setup: ## the locked environment in .venv, the command .venv/bin/porteiro and the speech models
	@$(PYTHON) setup/bootstrap.py

demo: setup ## a whole visit through the real service, on recorded speech (ARGS="--resident-answers no")
	@$(BIN)/porteiro demo $(ARGS)

test: setup lint ## the whole test suite (ARGS="tests/visits -x" for a part)
ifeq ($(strip $(ARGS)),)
	@$(BIN)/python setup/suite.py
else
	@$(BIN)/pytest $(ARGS)
endif

test-pbx: setup ## the tests with a real Asterisk alone (the first run installs one in .cache/pbx, as root)
	@$(BIN)/pytest -m pbx $(ARGS)

conformance: setup ## every provider's adapter against its simulator; writes the tables of docs/providers.md
	@$(BIN)/pytest tests/conformance --write-table $(ARGS)

chaos: setup ## a thousand visits by chance while all providers break (ARGS="--visits 50 --seed 3"); 20 minutes
	@$(BIN)/python -m tests.chaos $(ARGS)

screenshots: setup ## pictures of the console for docs/console.md (ARGS="visits charts" for some); five minutes
	@$(BIN)/python -m setup.screenshots $(ARGS)

lint: setup ## style, types and the walls between the rooms
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: setup ## put the code in shape
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

serve: setup ## the service, with the settings in porteiro.toml
	@$(BIN)/porteiro serve $(ARGS)

clean: ## remove what was built and measured; keep .venv, the models and the audit log
	rm -rf out dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean ## also remove .venv and everything that was downloaded
	rm -rf .venv .cache
