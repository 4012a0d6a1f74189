# Everything here sets up what it needs in .venv; nothing but Python 3.11+ and git is expected.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SERVING := $(VENV)/serving
READY := $(VENV)/ready

# uv needs a third of pip's time, and for what tests use a tenth. It does not read pip's settings,
# such as a mirror, and has not been built for each system: what it cannot install, pip does.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
install = { test -x $(BIN)/uv && $(BIN)/uv pip install --quiet --python $(BIN)/python $(1); } \
	|| { $(BIN)/python -m ensurepip && $(PIP) $(1); }
# A comma that does not end an argument of `call`.
, := ,

.PHONY: help serve test check docs newcomer matrix release soak fuzz bench clean

help:
	@echo "make serve   upper-case on TCP and UDP port 12000 (Ctrl-C ends it)"
	@echo "make test    the tests, on all cores (JOBS=2: in so many processes)"
	@echo "make check   ruff, mypy --strict and import-linter"
	@echo "make docs    the site, in docs/_build; warnings are errors"
	@echo "make newcomer  README, tutorial and guides, typed in a fresh clone"
	@echo "make matrix  the tests on all supported Pythons, Twisteds and reactors"
	@echo "make release  both files in dist/, tried on all supported Pythons; uploads nothing"
	@echo "make soak    long bad days: resets, mutated input, failures, clock steps, crowds, loops"
	@echo "make fuzz    atheris over the framers and PROXY headers, each for SECONDS=60"
	@echo "make bench   our services and their peers side by side, in some eight minutes; needs cc"
	@echo "             (QUICK=1: a look at it, in about a minute)"
	@echo "make clean   remove what make has made"

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv --without-pip $(VENV)
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --no-compile uv 2>/dev/null \
		|| { $(PYTHON) -m venv $(VENV) && { $(PIP) uv || true; }; }

# A stamp is newer than its inputs once an installation has succeeded. What only serves needs a
# quarter of what tests do. What runs is compiled as it does, a tenth of what is installed.
$(SERVING): setup.cfg pyproject.toml | $(BIN)/python
	$(call install,pip --editable .)
	touch $@

$(READY): setup.cfg pyproject.toml | $(BIN)/python
	$(call install,--editable '.[tls$(,)test$(,)check]')
	touch $(SERVING) $@

# Both services in one process, so that Ctrl-C ends both.
serve: $(SERVING)
	$(BIN)/twistd --nodaemon --pidfile= uppercase

# In several processes, since the tests mostly wait for the programs that they start.
JOBS ?= auto
test: $(READY)
	$(BIN)/python -m pytest --numprocesses=$(JOBS) --dist=worksteal

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY)
	$(call install,--editable '.[docs]')
	rm -rf docs/_build
	$(BIN)/sphinx-build -q -W --keep-going -b dirhtml docs docs/_build
	$(BIN)/python docs/api.py
	$(BIN)/python -m tests.docs.site docs/_build

newcomer: $(READY)
	$(BIN)/python -m tests.docs.newcomer

# With ROOMS=1 only the tests of what runs in their own process, which takes a tenth of the time.
matrix: $(READY)
	$(call install,--editable '.[release]')
	$(BIN)/python -m tests.matrix $(if $(ROOMS),--rooms) --write docs/project/matrix.md

release: $(READY)
	$(call install,--editable '.[release]')
	rm -rf dist
	$(BIN)/python -m tests.packaging.release dist

soak: $(READY)
	$(BIN)/python -m tests.system.soak

SECONDS ?= 60
fuzz: $(READY)
	$(call install,--editable '.[fuzz]')
	$(BIN)/python -m tests.fuzz.framers -max_total_time=$(SECONDS)
	$(BIN)/python -m tests.fuzz.proxy_header -max_total_time=$(SECONDS)

bench: SIDE_BY_SIDE = $(if $(QUICK),--rounds=1 --seconds=0.3)
bench: GROWTH = $(if $(QUICK),--rounds=1 --seconds=0.2 --most=1000)
bench: $(READY)
	$(call install,--editable '.[peers]')
	$(BIN)/python -m benchmarks.side_by_side $(SIDE_BY_SIDE) --out=build/bench
	$(BIN)/python -m benchmarks.growth $(GROWTH) --out=build/bench
	$(if $(QUICK),,$(BIN)/python -m benchmarks.micro --fast --quiet)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
