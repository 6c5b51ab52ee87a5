# foreframe: `make demo` and `make test` set everything up themselves in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo
# Tests of what stands between a broken file and a wrong result; to trace them all would double the time.
GUARDS := tests/data tests/contract tests/hostile tests/reliability $(addprefix tests/test_, \
	checkpoint.py cli.py config.py disk.py files.py log.py own_model.py products.py train.py)
COVERED := --cov --cov-report= --cov-fail-under=0

.PHONY: demo test check e2e nightly bench setup lock clean

demo: setup  ## Train on the sample inside, score it, and leave GIFs and a page in demo/
	$(BIN)/foreframe demo --out $(DEMO)

test: setup  ## Every test of a change: at most 10 minutes on 2 cores, no network, no GPU
	$(BIN)/python -m pytest -n 2 -m "not e2e and not nightly and not alone" $(addprefix --ignore=,$(GUARDS))
	$(BIN)/python -m pytest -n 2 -m "not e2e and not nightly and not alone" $(COVERED) $(GUARDS)
	$(BIN)/python -m pytest -m "alone and not nightly" $(COVERED) --cov-append

check: setup  ## Style, types, floors, and that each branch of what guards files is tested
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(MAKE) --no-print-directory .coverage
	$(BIN)/coverage report

# Left by `make test`; made anew here only if something has changed since.
.coverage: $(shell find src tests benchmarks -name '*.py')
	$(MAKE) --no-print-directory test

e2e: setup  ## The whole way through the command line, and the scripts of runs/ at toy size
	$(BIN)/python -m pytest -m e2e

nightly: setup  ## What takes long
	$(BIN)/python -m pytest -n 2 -m "(nightly or e2e) and not alone"
	$(BIN)/python -m pytest -m "alone and nightly" || test $$? -eq 5  # 5: there is none

bench: setup  ## Measure this machine against the plain code; writes bench.json
	$(BIN)/python -m benchmarks all

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev,tensorboard]'
	touch $@

lock: setup  ## Rewrite constraints.txt from what is installed
	$(BIN)/pip freeze --exclude-editable | sed 's/+cpu//' > constraints.txt

clean:
	rm -rf $(VENV) demo build dist .coverage .pytest_cache .mypy_cache .ruff_cache
