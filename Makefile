# Everything CI runs, and nothing else: see `make help`.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# The Python that makes the environment: 3.11 or newer.
PYTHON ?= python3
# Where the environment lies.
VENV ?= .venv
# Where torch comes from, such as https://download.pytorch.org/whl/cpu; empty means PyPI (CUDA on Linux).
TORCH_INDEX ?=
# Processes that run the tests; each takes some 2 GB.
TEST_WORKERS ?= 2
# More words for pytest, such as PYTEST_ARGS="-k stitch -x".
PYTEST_ARGS ?=

PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

.PHONY: help venv demo test slow lint type bench docs format clean

help: ## Show the targets.
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(INSTALLED) ## Make the environment; again only when pyproject.toml changes.

# Debian's python3 may come without ensurepip: then the pip beside it fills the environment.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1): make PYTHON=python3.11"; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) >/dev/null || $(PYTHON) -m venv --clear --without-pip $(VENV)
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m pip --python $(PY) install --quiet pip
	@echo "Installing into $(VENV); torch is large, so the first time takes minutes."
	@$(if $(TORCH_INDEX),$(PY) -m pip install --quiet torch torchvision --index-url $(TORCH_INDEX))
	@$(PY) -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(INSTALLED) ## Render the synthetic town, map it, print the score, draw a picture.
	@$(PY) pipelines/demo.py --output demo

test: $(INSTALLED) ## Run the test suite with coverage.
	$(PY) -m pytest -m 'not slow' -n $(TEST_WORKERS) --dist loadfile --cov --cov-report=term:skip-covered $(PYTEST_ARGS)

slow: $(INSTALLED) ## Run the longer checks.
	$(PY) -m pytest -m slow $(PYTEST_ARGS)

lint: $(INSTALLED) ## Check style, format and the dependency rule.
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports

type: $(INSTALLED) ## Check types.
	$(VENV)/bin/mypy

bench: $(INSTALLED) ## Measure speed, memory and exactness; writes a JSON and a table.
	$(PY) -m benchmarks

docs: $(INSTALLED) ## Check the documents: links, README's commands and Python, config, notebook.
	$(PY) -m pytest tests/test_docs.py tests/test_notebooks.py $(PYTEST_ARGS)

format: $(INSTALLED) ## Format the code and mend what can be mended.
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean: ## Remove what the targets made, but for the environment.
	rm -rf demo build dist htmlcov .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find geoseg tests pipelines benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
