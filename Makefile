# Each target does its own set-up: the first call makes .venv and installs what the target needs, later calls start at once.
#
#   make demo                the main job on real slides: train, score, predict, draw (results in demo/)
#   make test                the tests
#   make coverage            the tests, the report and the gate
#   make test-lowest         the tests with the oldest dependencies that pyproject.toml allows (Python 3.11)
#   make test-encoders       the tests of encoders with real models of timm and LazySlide (random weights; 6 GB of packages)
#   make lint                ruff and the type checker (make types: it alone)
#   make docs | build | clean
#
# Variables: PYTHON=python3.13  CUDA=1  DATA=real|toy|auto  JOBS=2  H2E_DATA=/folder/with/data  PYTEST_ARGS="-k stains"

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test coverage test-lowest test-encoders docs lint types build clean

PYTHON ?= python3
CUDA ?= 0
DATA ?= auto
JOBS ?= 2
PYTEST_ARGS ?=
VENV := .venv
LOWEST := .venv-lowest
ENCODERS := .venv-encoders
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install -qq --disable-pip-version-check

# On Linux the registry's own torch brings gigabytes of CUDA packages, so the CPU build is asked for by its local version.
TORCH ?= 2.13.0
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
FLAVOUR := $(if $(filter 1,$(CUDA)),cuda,$(if $(filter Linux,$(shell uname -s)),cpu,plain))

# A data folder beside the checkout is used where there is one; see h2e.datasets.
H2E_DATA ?= $(abspath $(wildcard ../shared/data))
ifneq ($(H2E_DATA),)
export H2E_DATA
endif

help:
	@sed -n 's/^#   //p' Makefile

demo: $(VENV)/.package
	$(PY) tutorials/demo.py --data $(DATA) --out demo

# One thread a process: two processes of one thread are many times faster than one of two on a busy machine.
test coverage test-lowest test-encoders: export OMP_NUM_THREADS := 1
test coverage test-lowest test-encoders: export MPLBACKEND := agg

test: $(VENV)/.test
	$(PY) -m pytest -n $(JOBS) $(PYTEST_ARGS)

coverage: $(VENV)/.test
	$(PY) -m coverage erase
	$(PY) -m coverage run -m pytest -n $(JOBS) $(PYTEST_ARGS)
	$(PY) -m coverage combine --quiet
	$(PY) -m coverage report

test-lowest: $(LOWEST)/.test
	$(LOWEST)/bin/python -m pytest -n $(JOBS) -o filterwarnings=default $(PYTEST_ARGS)   # old releases warn about new ones

test-encoders: $(ENCODERS)/.test
	$(ENCODERS)/bin/python -m pytest tests/encoders $(PYTEST_ARGS)

# Tutorials are run while the site is built: 8 minutes, much less where the cache in docs/_build knows them.
docs: export OMP_NUM_THREADS := 1
docs: export MPLBACKEND := module://matplotlib_inline.backend_inline
docs: $(VENV)/.doc
	$(PY) -m sphinx -W --keep-going -b html docs docs/_build/html

lint: $(VENV)/.dev types
	$(PY) -m ruff check src tests benchmarks docs tutorials
	$(PY) -m ruff format --check src tests benchmarks docs tutorials

types: $(VENV)/.dev
	$(PY) -m mypy

build: $(VENV)/.dev
	rm -rf dist
	$(PY) -m build
	$(PY) -m twine check --strict dist/*

clean:
	rm -rf $(VENV) $(LOWEST) $(ENCODERS) demo dist docs/_build docs/generated .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache

# ---- set-up: one stamp a step -------------------------------------------------------------------------------------------

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "h2e needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Name another: make $(MAKECMDGOALS) PYTHON=python3.13" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade "pip>=25.1"
	@touch $@

# A build that only the CPU index (or a local folder of wheels) can satisfy: this never falls back to CUDA packages.
$(VENV)/.torch-cpu: | $(VENV)/.made
	@echo "installing torch $(TORCH), CPU build, into $(VENV) ..."
	@$(PIP) "torch==$(TORCH)+cpu" 2>/dev/null || \
	  $(PIP) "torch==$(TORCH)+cpu" --extra-index-url $(TORCH_CPU_INDEX)
	@rm -f $(VENV)/.torch-* && touch $@

$(VENV)/.torch-cuda: | $(VENV)/.made
	$(PY) -m pip uninstall --quiet --yes torch
	$(PIP) torch
	@rm -f $(VENV)/.torch-* && touch $@

$(VENV)/.torch-plain: | $(VENV)/.made
	$(PIP) torch
	@rm -f $(VENV)/.torch-* && touch $@

$(VENV)/.package: pyproject.toml | $(VENV)/.torch-$(FLAVOUR)
	@echo "installing h2e into $(VENV) ..."
	@$(PIP) --editable .
	@touch $@

$(VENV)/.test $(VENV)/.doc $(VENV)/.dev: $(VENV)/.%: pyproject.toml | $(VENV)/.torch-$(FLAVOUR)
	@echo "installing h2e and its $* group into $(VENV) ..."
	@$(PIP) --editable . --group $*
	@touch $@

# uv resolves to the lowest direct versions; torch is installed first because its oldest CPU builds are not on the registry.
$(LOWEST)/.test: pyproject.toml | $(VENV)/.torch-$(FLAVOUR)
	$(PY) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "the lowest versions are tried on Python 3.11: make test-lowest PYTHON=python3.11" >&2; exit 1; }
	$(PIP) uv
	$(PY) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install -qq "torch==$(TORCH)+cpu" 2>/dev/null || \
	  $(LOWEST)/bin/python -m pip install -qq "torch==$(TORCH)+cpu" --extra-index-url $(TORCH_CPU_INDEX)
	$(PY) -m uv pip install --quiet --python $(LOWEST) --resolution lowest-direct --override <(echo "torch==$(TORCH)+cpu") --editable . --group test
	@touch $@

# torchvision fits one release of torch only, so both are named, and they live in an environment of their own.
$(ENCODERS)/.test: pyproject.toml
	@echo "installing h2e, torchvision and encoders into $(ENCODERS) ..."
	$(PYTHON) -m venv $(ENCODERS)
	@$(ENCODERS)/bin/python -m pip install -qq --disable-pip-version-check --upgrade "pip>=25.1"
	@$(ENCODERS)/bin/python -m pip install -qq --disable-pip-version-check torch==2.14.1 torchvision==0.29.1
	@$(ENCODERS)/bin/python -m pip install -qq --disable-pip-version-check --editable ".[encoders]" --group test lazyslide tiffslide
	@touch $@
