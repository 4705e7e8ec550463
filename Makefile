# make demo, make test: each builds what it needs in $(VENV) from nothing; a second run reuses it.
# PYTHON=/path/to/python chooses the interpreter, VENV=dir the folder of the environment,
# WORKERS=1 how many processes share the tests (all cores unless said).

SHELL := /bin/bash
VENV ?= .venv
PYTHON ?=
CACHE := $(CURDIR)/.cache
RUN := $(VENV)/bin/python
TESTS ?=
WORKERS ?= auto
ONLY ?=
# A file of pip constraints for the environment, such as tests/lowest.txt.
CONSTRAINTS ?=

# Compiled programs are kept between runs; a shape mismatch never broadcasts in silence.
export JAX_COMPILATION_CACHE_DIR ?= $(CACHE)/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0
export MPLCONFIGDIR ?= $(CACHE)/matplotlib
# Each test that starts a process imports jaxmle anew: with bytecode a second sooner.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-all test-lowest test-newest lint types bench notebooks docs clean
help:
	@echo "make demo    fit two real data sets and 10 000 simulated ones; writes demo/output/first_fits.png"
	@echo "make test    the tests and the examples in the docstrings (TESTS='tests/solvers -k newton' chooses)"
	@echo "make test-all  the same facts over more families, kinds and forms besides: twice as long"
	@echo "make test-lowest  the tests with the oldest jax, NumPy and Python that are allowed, in an environment of its own"
	@echo "make test-newest  the tests with the newest ones, in an environment of its own"
	@echo "make lint    ruff and mypy"
	@echo "make types   pyright"
	@echo "make notebooks  run notebooks/*.py and write their outputs and figures beside them (ONLY='05 06' chooses)"
	@echo "make docs    build the documentation into docs/_build/html; a broken reference is an error"
	@echo "make bench   the workloads of benchmarks/, with their peers"
	@echo "make clean   remove the environment and every cache"

demo: $(VENV)/.ready-plot
	$(RUN) demo/first_fits.py

# One program at a time: XLA's own threads now and then wait for one another for ever on few cores.
test: $(VENV)/.ready-test
	JAX_NUMPY_RANK_PROMOTION=raise JAX_CPU_ENABLE_ASYNC_DISPATCH=false XLA_FLAGS="$${XLA_FLAGS:-$$($(RUN) tests/xla_flags.py)}" $(RUN) -m pytest -n $(WORKERS) --dist worksteal $(TESTS)

test-all: $(VENV)/.ready-test
	JAX_NUMPY_RANK_PROMOTION=raise $(RUN) -m pytest -n $(WORKERS) --dist worksteal -m "" $(TESTS)

# JAX_ENABLE_X64=1 before either: the tests as a user meets jaxmle who has switched float64 on.
test-lowest:
	$(MAKE) test VENV=.cache/venv-lowest PYTHON=$(or $(PYTHON),python3.11) CONSTRAINTS=tests/lowest.txt JAX_COMPILATION_CACHE_DIR=$(CACHE)/jax-lowest

test-newest:
	$(MAKE) test VENV=.cache/venv-newest PYTHON=$(or $(PYTHON),python3.13) JAX_COMPILATION_CACHE_DIR=$(CACHE)/jax-newest

lint: $(VENV)/.ready-test
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# A second opinion on the types, which takes two minutes.
types: $(VENV)/.ready-test
	$(RUN) -m basedpyright --pythonpath $(RUN)

bench: $(VENV)/.ready-bench
	@for workload in benchmarks/w*.py; do echo "== $$workload"; $(RUN) $$workload || exit 1; done

notebooks: $(VENV)/.ready-notebook
	$(RUN) notebooks/execute.py $(ONLY)

# Everything is read afresh (-E), so that a warning is not lost with the page that gave it. Nothing is fetched and no notebook runs.
docs: $(VENV)/.ready-docs
	$(RUN) -m sphinx -E -W --keep-going -q -d $(CACHE)/docs docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:
	rm -rf "$(VENV)" .cache .hypothesis demo/output docs/_build docs/tutorials/*.ipynb

# .ready-EXTRA stands for: the package is installed there, in place, with that extra, within the constraints.
CONSTRAINED := $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))
$(VENV)/.ready-%: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	@echo "installing jaxmle[$*] into $(VENV)"
	@if command -v uv >/dev/null 2>&1; \
	then uv pip install --quiet --python $(RUN) $(CONSTRAINED) -e ".[$*]"; \
	else $(RUN) -m pip install --quiet $(CONSTRAINED) -e ".[$*]"; fi
	@touch $@

# The newest Python that is 3.11 or later and starts; a shim of a version manager may be found and still not run.
$(VENV)/bin/python:
	@for python in $(or $(PYTHON),python3.13 python3.12 python3.11 python3); do \
	  "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
	  echo "making $(VENV) with $$("$$python" --version)"; \
	  if command -v uv >/dev/null 2>&1; then exec uv venv --quiet --python "$$python" "$(VENV)"; \
	  else exec "$$python" -m venv "$(VENV)"; fi; \
	done; \
	echo "no Python 3.11 or later runs here; name one: make PYTHON=/path/to/python" >&2; exit 1
