# All requirements are installed here: only python3 and make are needed. PYTHON=python3.12 picks an interpreter.
PYTHON ?= $(firstword $(foreach p,python3 python3.12 python3.13 python3.11,$(shell $(p) -c \
	'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo $(p))) python3)
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
VENV := .venv/python$(VERSION)
BIN := $(VENV)/bin

.PHONY: quickstart test test-fast lint docs notebooks clean studies
.DEFAULT_GOAL := quickstart

quickstart: $(VENV)/installed ## digits, four methods, two devices: a table and a figure in minutes
	$(BIN)/python experiments/quickstart.py

test: lint test-fast ## style, types, layers, then every test, fast ones first
	$(BIN)/python -m pytest -n $${PYTEST_WORKERS:-2} -m slow

test-fast: $(VENV)/tested-with ## the tests that take less than half a second each: a minute in all
	$(BIN)/python -m pytest -n $${PYTEST_WORKERS:-2} -m "not slow"

lint: $(VENV)/tested-with
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/documented-with ## the documentation, warnings as errors: docs/_build/html/index.html
	$(BIN)/sphinx-build -W --keep-going -q -E -a -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

notebooks: $(VENV)/documented-with ## execute the notebooks of the documentation again, in docs/_build
	mkdir -p docs/_build/notebooks && cp docs/*.ipynb docs/_build/notebooks
	cd docs/_build/notebooks && ../../../$(BIN)/jupyter-execute --inplace --NotebookClient.record_timing=False *.ipynb
	cp docs/_build/notebooks/*.ipynb docs

studies: ## cost of each committed study, and the commands that reproduce it
	@$(PYTHON) docs/studies.py

clean: ## remove the virtual environments
	rm -rf .venv

$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { \
		echo "analog-samson needs Python 3.11 to 3.13; $(PYTHON) is $(or $(VERSION),not there). Choose one: PYTHON=python3.12 make $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) cannot create virtual environments (on Debian: apt install python3-venv), or choose another: PYTHON=python3.12 make $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/installed: setup.cfg pyproject.toml | $(VENV)/created
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/tested-with: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,cluster]'
	touch $@

$(VENV)/documented-with: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@
