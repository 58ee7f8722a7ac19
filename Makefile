# The verbs. Everything they need is in .venv, made from requirements.lock.
.DEFAULT_GOAL := help
SHELL := bash
unexport PYTHONDONTWRITEBYTECODE
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
READY := .venv/.ready
# the commands in a virtual environment name its folder: one that came along with a copied or moved project is made again
ELSEWHERE := $(shell python=$$(grep -m1 -aoE "/[^'\"]*/bin/python[0-9.]*" .venv/bin/dvc 2>/dev/null) && \
  ! test "$${python%/*}" -ef .venv/bin && echo elsewhere)

.PHONY: help setup run up down test test-long check shell bench-canary bench-cycle bench-serving bench-swaps bench-monitor bench-throughput bench-backtest bench-soak docs lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18
	@echo "everything else: bin/evergreen --help (evergreen --help in make shell)"

setup: $(READY)  ## make .venv from requirements.lock

.PHONY: elsewhere
elsewhere:
	@echo ".venv was made in another folder, which its commands name: it is made again here"
	@rm -rf .venv

$(READY): requirements.lock $(ELSEWHERE)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Evergreen needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	@test -x .venv/bin/python || { echo "making .venv"; $(PYTHON) -m venv .venv; }
	@echo "installing what requirements.lock names (1.5 GB, a minute or two the first time)"
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep -oE '^uv==[^ ]+' requirements.lock)"
	@VIRTUAL_ENV="$(CURDIR)/.venv" UV_COMPILE_BYTECODE=1 .venv/bin/uv pip sync --quiet --system-certs --require-hashes requirements.lock \
	  || { echo "uv could not; pip, which knows your proxy and mirror, takes some minutes"; \
	       .venv/bin/python -m pip install --quiet --require-hashes -r requirements.lock; }
	@touch $@

run: $(READY)  ## the whole loop on real data: deliver, ingest, train, judge, package, serve
	@bin/evergreen run

up: $(READY)  ## the platform: Prefect, a worker, MLflow, the router, the watcher; Ctrl-C ends it (behind: make up DETACH=1)
	@exec bin/evergreen up $(if $(DETACH),--detach)

down: $(READY)  ## end the platform that runs behind
	@bin/evergreen down

test: $(READY)  ## the tests, with the real components, but for the slow ones
	@python -m pytest

test-long: $(READY)  ## the tests that take a minute or more each: schedules of kills, torn files, the tools' commands, a browser
	@python -m pytest -m long

check: $(READY)  ## lint, layers, types and tests, the slow ones too: what CI runs
	@ruff check . && ruff format --check . && lint-imports
	@mypy
	@python -m pytest -m 'not long'

shell: $(READY)  ## a shell with `evergreen` (its commands complete), prefect, mlflow, dvc and bentoml, for this project's state
	@case "$${SHELL:-bash}" in \
	  *bash) exec bash --rcfile <(echo 'test -r ~/.bashrc && . ~/.bashrc; . "$(CURDIR)/activate"') -i;; \
	  *) eval "$$(bin/evergreen env)" && exec "$$SHELL" -i;; \
	esac

bench-cycle: $(READY)  ## a cycle against a bare script, side by side
	@python -m benchmarks.cycle

bench-serving: $(READY)  ## requests/s and latency beside MLflow, FastAPI and BentoML; a quarter of an hour, needs wrk
	@python -m benchmarks.serving --page docs/benchmarks/serving.md

bench-swaps: $(READY)  ## releases change, fail and are killed under load; a quarter of an hour
	@python -m benchmarks.swaps --page docs/benchmarks/swaps.md

bench-canary: $(READY)  ## good and bad releases through replay and canary, on the year of flights; ten minutes
	@python -m benchmarks.canary --page docs/benchmarks/canary.md

bench-monitor: $(READY)  ## the monitor's promises on the year of flights: drift, estimated quality, the gate; half an hour
	@python -m benchmarks.monitor --page docs/benchmarks/monitor.md --picture docs/pictures/estimate.png

bench-throughput: $(READY)  ## the monitor on five million logged predictions, beside a notebook; after make run, seven minutes
	@python -m benchmarks.throughput --rows 5000000 --page docs/benchmarks/throughput.md

bench-backtest: $(READY)  ## a year of flights lived through under each retrain policy, side by side
	@bin/evergreen backtest --source upstream --page docs/benchmarks/backtest.md --picture docs/pictures/backtest.png

bench-soak: $(READY)  ## the loop under 200 random schedules of events and kills, half an hour or more (SEED=1000 for others)
	@python -m tests.loop.soak --schedules 200 --kills 200 --seed $(or $(SEED),1) --every registry,settled,books

docs: $(READY)  ## write what is generated of docs/
	@python -m tests.repository.skip_table

lock:  ## resolve pyproject.toml again into requirements.lock
	@uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --group dev pyproject.toml -o requirements.lock

clean:  ## forget everything that can be made again (var/ holds your registry: it stays)
	@rm -rf build dvc_plots .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
