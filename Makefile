# Needs Python 3.11 or newer and make; everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test faults lint bench clean

demo: .venv/installed
	$(BIN)/csrm demo --output runs/demo --overwrite

test: .venv/installed-tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# Every random fault with five seeds, and the driver killed twenty times in a row; an hour.
faults: .venv/installed-tests
	$(BIN)/python -m pytest tests/jobs/faults --fault-rounds 5 $(PYTEST_ARGS)

lint: .venv/installed-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed
	$(BIN)/csrm bench

clean:
	rm -rf .venv build *.egg-info runs

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

.venv/installed-tests: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[test,lint]"
	touch $@
