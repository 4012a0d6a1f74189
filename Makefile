# Everything here sets up what it needs in .venv; nothing but Python 3.11+ and git is expected.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: help serve test check clean

help:
	@echo "make serve   upper-case on TCP and UDP port 12000 (Ctrl-C ends it)"
	@echo "make test    the tests"
	@echo "make check   ruff, mypy --strict and import-linter"
	@echo "make clean   remove what make has made"

# The stamp is newer than its inputs once an installation has succeeded.
$(READY): setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[tls,test,check]'
	touch $(READY)

# Both services in one process, so that Ctrl-C ends both.
serve: $(READY)
	$(BIN)/twistd --nodaemon --pidfile= --python examples/serve.tac

test: $(READY)
	$(BIN)/python -m pytest

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
