# `make demo` and `make test` need only Python 3.10 or newer and make; both set up .venv first, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# A process for each core, one thread each; tests that share what is made for them stay together (tests/conftest.py).
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --dist loadgroup
FAST := $(PYTEST) -m "not slow" -n auto
# Slow tests wait for commands that mostly import: two at a time are enough.
SLOW := $(PYTEST) -m slow -n 2

.PHONY: help install demo docs test test-fast types clean

help:
	@echo "make demo       set up $(VENV), then run the complete workflow on synthetic patients (about 10 minutes)"
	@echo "make test       set up $(VENV), then lint and run all tests (about 25 minutes)"
	@echo "make test-fast  the same without the tests that run nnU-Net's commands"
	@echo "make docs       build the documentation as a site in build/site"
	@echo "make install    only set up $(VENV)"
	@echo "make types      check the types with mypy"
	@echo "make clean      remove $(VENV) and caches; results of the demo stay"

$(INSTALLED): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "error: $(PYTHON) is older than 3.10; name another with make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "==> setting up $(VENV): PyTorch and nnU-Net, about 6 GB and a few minutes"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[test]"
	@touch $@

install: $(INSTALLED)
	@echo "==> $(VENV) is ready; activate it with: source $(BIN)/activate"

demo: $(INSTALLED)
	@echo "==> running the demo; results in factorizer_demo/"
	@$(BIN)/factorizer-nnunet demo --out factorizer_demo

docs: $(INSTALLED)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "==> open build/site/index.html; with a search: $(BIN)/mkdocs serve"

# The converter and the plan templates are packages below factorizer_nnunet only once installed; mypy sees them so here.
types: $(INSTALLED)
	@rm -rf build/types && mkdir -p build/types/factorizer_nnunet
	@ln -s $(CURDIR)/factorizer_nnunet/* $(CURDIR)/dataset_conversion $(CURDIR)/plans build/types/factorizer_nnunet/
	@cd build/types && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache \
	    -p factorizer_nnunet

test: $(INSTALLED)
	@echo "==> lint and types"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory types
	@echo "==> fast tests, then those that run nnU-Net's commands"
	@$(FAST)
	@$(SLOW)

test-fast: $(INSTALLED)
	@$(FAST)

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
