# The verbs. Everything they need is in .venv, made from requirements.lock.
.DEFAULT_GOAL := help
SHELL := bash
unexport PYTHONDONTWRITEBYTECODE
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
READY := .venv/.ready
# groups of packages that not every project needs: WITH adds some, and .ready remembers them; WITH= takes all away
GROUPS := $(filter-out dev,$(shell sed -nE '/^.dependency-groups/,/^.tool/ s/^([a-z0-9-]+) = \[.*/\1/p' pyproject.toml 2>/dev/null))
INSTALLED := $(shell cat $(READY) 2>/dev/null)
WANTED := $(if $(strip $(WITH)),$(sort $(INSTALLED) $(WITH)),$(if $(filter undefined,$(origin WITH)),$(INSTALLED)))
LOCKS := $(strip requirements.lock $(WANTED:%=locks/%.lock))
UNHASHED := $(wildcard $(WANTED:%=locks/%.txt))
OTHER_GROUPS := $(if $(filter-out $(INSTALLED),$(WANTED))$(filter-out $(WANTED),$(INSTALLED)),other-groups)
# the commands in a virtual environment name its folder: one that came along with a copied or moved project is made again
ELSEWHERE := $(shell python=$$(grep -m1 -aoE "/[^'\"]*/bin/python[0-9.]*" .venv/bin/dvc 2>/dev/null) && \
  ! test "$${python%/*}" -ef .venv/bin && echo elsewhere)

.PHONY: help setup run up down test test-long check shell lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18
	@echo "everything else: bin/evergreen --help (evergreen --help in make shell)"

setup: $(READY)  ## make .venv from requirements.lock (and of locks/: make setup WITH="lightgbm xgboost")

.PHONY: elsewhere other-groups
other-groups:
elsewhere:
	@echo ".venv was made in another folder, which its commands name: it is made again here"
	@rm -rf .venv

$(READY): $(wildcard $(LOCKS)) $(UNHASHED) $(ELSEWHERE) $(OTHER_GROUPS)
	@$(if $(filter-out $(GROUPS),$(WANTED)),echo "there is no group $(filter-out $(GROUPS),$(WANTED)): WITH takes $(GROUPS)"; exit 1)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Evergreen needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	@test -x .venv/bin/python || { echo "making .venv"; $(PYTHON) -m venv .venv; }
	@echo "installing the packages of $(LOCKS) (1.5 GB, a minute or two the first time)"
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep -oE '^uv==[^ ]+' requirements.lock)"
	@VIRTUAL_ENV="$(CURDIR)/.venv" UV_COMPILE_BYTECODE=1 .venv/bin/uv pip sync --quiet --system-certs --require-hashes $(LOCKS) \
	  || { echo "uv could not; pip, which knows your proxy and mirror, takes some minutes"; \
	       .venv/bin/python -m pip install --quiet --require-hashes $(LOCKS:%=-r %); }
	@$(if $(UNHASHED),.venv/bin/python -m pip install --quiet --no-deps $(UNHASHED:%=-r %) || { head -4 $(UNHASHED); exit 1; })
	@echo $(WANTED) >$@

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
	@mypy & types=$$!; python -m pytest -m 'not long'; tests=$$?; wait $$types && exit $$tests # types take one core a minute

shell: $(READY)  ## a shell with `evergreen` (its commands complete), prefect, mlflow, dvc and bentoml, for this project's state
	@case "$${SHELL:-bash}" in \
	  *bash) exec bash --rcfile <(echo 'test -r ~/.bashrc && . ~/.bashrc; . "$(CURDIR)/activate"') -i;; \
	  *) eval "$$(bin/evergreen env)" && exec "$$SHELL" -i;; \
	esac

RESOLVE := uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate
lock:  ## resolve pyproject.toml again into requirements.lock, and each group into what it adds, locks/<group>.lock
	@$(RESOLVE) --group dev pyproject.toml -o requirements.lock
	@earlier=requirements.lock; for group in $(GROUPS); do \
	  there=$$(cat $$earlier $(wildcard locks/*.txt) | sed -nE 's/^([a-z0-9][a-z0-9.-]*)==.*/--no-emit-package \1/p'); \
	  $(RESOLVE) --group $$group $$(printf -- '-c %s ' $$earlier) $$there -o locks/$$group.lock || exit 1; \
	  earlier="$$earlier locks/$$group.lock"; \
	done

clean:  ## forget everything that can be made again (var/ holds your registry: it stays)
	@rm -rf build dvc_plots .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

-include benchmarks/bench.mk
