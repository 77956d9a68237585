# Everything happens in a virtual environment of the checkout's own; a fresh machine needs only Python and make.
#   make demo [FILE=…] · make test [ARGS=…] · make bench [ARGS=…] · make interop · make lint · make clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
FILE ?=

.PHONY: demo test lint bench interop clean
.DEFAULT_GOAL := test

demo: $(VENV)/.made-test
	$(BIN)/python examples/demo.py $(FILE)

test: lint
	$(BIN)/python -m pytest -q $(ARGS)

lint: $(VENV)/.made-test
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

bench: $(VENV)/.made-bench
	$(BIN)/python benchmarks/run.py --markdown docs/benchmarks.md --plot docs/benchmarks-hub.svg $(ARGS)

interop: $(VENV)/.made-test
	IPN_INTEROP_WRITE=1 IPN_REQUIRE_ALL=1 $(BIN)/python -m pytest -q tests/interop --ignore tests/interop/test_document.py $(ARGS)

clean:
	rm -rf $(VENV) .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp for each set of extras: made anew when pyproject.toml changes.
$(VENV)/.made-test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

$(VENV)/.made-bench: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,bench]'
	@touch $@

# Debian's python3 comes without ensurepip, and without that venv makes an environment without pip.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo 'make: needs Python 3.11 or newer as "$(PYTHON)"; another one: make PYTHON=/path/to/python3' >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo 'make: $(PYTHON) lacks its venv module; on Debian and Ubuntu: apt install python3-venv' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
