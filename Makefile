# Two commands do everything on a fresh machine: `make run` and `make test`.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# The first of python3.13, pyenv's and uv's that really is Python 3.13.
PYTHON ?= $(shell for python in python3.13 "$$(pyenv root 2>/dev/null)"/versions/3.13*/bin/python \
	"$$(uv python find 3.13 2>/dev/null)" python3; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null \
	&& echo "$$python" && break; done)
BIN := .venv/bin
SANDBOX_DIR ?= .sandbox
export SANDBOX_DIR

.PHONY: help setup run test lint format lock clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: .venv/ready ## Make .venv with everything that is needed

.venv/ready: requirements-dev.txt
	@if [ -z "$(PYTHON)" ]; then echo "Python 3.13 is needed and was not found: install it with" \
		"'uv python install 3.13' or 'pyenv install 3.13', then run make again." >&2; exit 1; fi
	@echo "Installing into .venv (once, about a minute) ..."
	@"$(PYTHON)" -m venv --clear .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

run: setup ## Load sample data into the sandbox (once), run the job, show the result
	@test -e $(SANDBOX_DIR)/sample || { \
		echo "Loading sample data: recorded events, and a made-up app's ..." \
		&& $(BIN)/python -m sandbox load tests/recorded_web \
		&& $(BIN)/python -m sandbox seed --sessions 2000 --days 14 --seed 1 \
		&& touch $(SANDBOX_DIR)/sample; }
	@$(BIN)/python main.py --local
	@$(BIN)/python -m sandbox query "$$PREVIEW"
	@echo "More: make help, .venv/bin/python main.py --help, .venv/bin/python -m sandbox --help"

define PREVIEW
SELECT session_date, SUBSTR(session_id, 1, 13) AS session, user_match, lib, duration_seconds,
  event_count AS events, pageview_count + screen_count AS views, events_created AS created,
  completed_quiz AS quiz, is_bounce AS bounce
FROM posthog_aggregated.sessions
ORDER BY started_at DESC
LIMIT 12
endef
export PREVIEW

test: setup ## Run the tests
	@$(BIN)/python -m pytest

lint: setup ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy .

format: setup ## Format the code
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

lock: setup ## Resolve requirements.in and requirements-dev.in, with hashes and without addresses
	@$(BIN)/uv pip compile $(LOCK) requirements.in -o requirements.txt
	@$(BIN)/uv pip compile $(LOCK) -c requirements.txt requirements-dev.in -o requirements-dev.txt
LOCK := --quiet --universal --python-version 3.13 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --custom-compile-command "make lock"

clean: ## Remove .venv and the sandbox's data
	@rm -rf .venv "$(SANDBOX_DIR)"
