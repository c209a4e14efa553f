# Two commands do everything, each setting itself up: `make table2` and `make test`.
PYTHON  ?= python3
RESULTS ?= my_results
WORKERS ?= $(shell nproc)
SEED    ?= 0
BIN     := .venv/bin
unexport PYTHONDONTWRITEBYTECODE  # else each process compiles the whole package, a second of a core

.PHONY: table2 study tables test lint docs wheel slurm clean
.DEFAULT_GOAL := help

help:
	@echo "make table2   generate the videos, train and test all rows of Table 2, print the compared tables"
	@echo "make study    one seed of both generated sets: Table 2, and the controls; SEED=1 takes another"
	@echo "make tables   all studies of the paper that two CPU cores can train, and one page of every table"
	@echo "make test     lint and tests"
	@echo "make docs     the docs site, in site/"
	@echo "make wheel    the package as one file, in dist/"
	@echo "make clean    remove the virtual environment (never data or results)"

# Exact versions come from constraints.txt, bounds and their reasons from pyproject.toml.
# uv downloads and unpacks on all cores, in a third of pip's time. It doesn't know pip's settings (an index, a proxy's
# certificates). Where it can't install, pip does.
.venv/ready: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or later is needed: apt-get install python3 python3-venv"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed; name one: make PYTHON=python3.12 ..."; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { test "$$(id -u)" = 0 && apt-get update && apt-get install -y python3-venv; } \
		|| { echo "Python's venv is missing: sudo apt-get install python3-venv"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt uv && \
		$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --constraint constraints.txt --editable '.[dev]' || \
		$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

table2: .venv/ready
	@$(BIN)/nl-lightning run table2 --workers $(WORKERS) --results $(RESULTS)

study: .venv/ready
	@set -e; for of in table2 controls "table2 --recipe match --where depth=50 clip=default" "controls --recipe match"; do \
		$(BIN)/nl-lightning run $$of --seed $(SEED) --workers $(WORKERS) --results $(RESULTS); done

tables: .venv/ready
	@$(BIN)/nl-lightning tables --workers $(WORKERS) --results $(RESULTS)

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy --config-file tests/mypy.ini --cache-dir .mypy_cache/tests tests & tests=$$!; \
		$(BIN)/mypy; package=$$?; wait $$tests && exit $$package  # each takes a minute of one core

docs: .venv/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "open site/index.html"

wheel: .venv/ready
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

# The linters run beside the tests, and say at the end what they found. A process a core, and one for the cores that
# wait: many tests watch other processes. More threads would only wait for each other.
test: .venv/ready slurm
	@$(MAKE) --no-print-directory lint >.venv/lint.log 2>&1 & lint=$$!; \
		OMP_NUM_THREADS=1 $(BIN)/pytest -n $$(($(WORKERS) + 1)) --dist worksteal; tests=$$?; \
		wait $$lint; lint=$$?; cat .venv/lint.log; exit $$((tests | lint))

# The tests of jobs want a Slurm of their own, and are skipped where there is none.
slurm:
	@command -v slurmd >/dev/null || test "$$(id -u)" != 0 || { apt-get update -qq && \
		apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client munge >/dev/null; } \
		|| echo "no Slurm can be installed here: its tests are skipped"

clean:
	rm -rf .venv
