# Two commands: `make run` (the whole pipeline on the sample media) and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_DISABLE_TELEMETRY := true
export ORT_DISABLE_TELEMETRY := 1
export DVC_NO_ANALYTICS := 1

.PHONY: run env test test-slow lint types clean help
.DEFAULT_GOAL := help

help: ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: env ## the whole way on the sample media: clips, shards, training, registry, animations, report
	@$(BIN)/python cli.py run

env: .venv/installed ## the environment in .venv, pinned by constraints.txt

.venv/installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "torch==2.13.0" -e ".[dev,studio]"
	-@$(BIN)/python cli.py weights fetch blazepose
	@touch $@

test: env ## lint, types and every test but the slow ones
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow"

test-slow: env ## kills, servers, a second environment, the graph
	$(BIN)/python -m pytest -q -m slow

clean: env ## what can be made again (asks first)
	@$(BIN)/python cli.py clean
