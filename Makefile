# Two commands for a newcomer: `make demo` and `make test`. Each makes its own virtual environment; `make help` lists the rest.

PYTHON  ?= python3
VENV    := .venv
VENV55  := .venv-celery55
VENV42  := .venv-django42
VENV6   := .venv-django6
BIN     := $(VENV)/bin
BIN55   := $(VENV55)/bin
# Where the wheel is installed, and the tests beside it, without the package's source: what they import is the wheel.
CHECKOUT := build/wheel/checkout
PIP     := -m pip install -qq --disable-pip-version-check
# The pins hold everything, the build backend too, so the package itself is installed without looking anything up.
OURSELF := $(PIP) --no-deps --no-build-isolation --editable .

# Django 6 needs Python 3.12 or later, which may be there beside PYTHON, or among pyenv's. Nothing: there is none.
NEWER_PYTHONS := python3.14 python3.13 python3.12 $(wildcard $(HOME)/.pyenv/versions/3.1[2-9]*/bin/python3)
NEWEST_PYTHON ?= $(firstword $(foreach name,$(NEWER_PYTHONS),$(shell $(name) -c 'import venv' 2>/dev/null && echo $(name))))

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo demo-django test unit lint matrix django newest-django faults bench coverage docs reference pictures servers pins wheel kept clean matrix-workers57 matrix-faults57 matrix-workers55 matrix-faults55
.DELETE_ON_ERROR:

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## run a real pipeline on this machine; needs nothing but Python
	@$(BIN)/framelane-celery demo

demo-django: $(VENV)/.site ## run the Django example: site, worker, local server and Flower; needs nothing but Python
	@$(BIN)/python examples/django_site/run.py $(OPTIONS)

# What takes long begins first; a file's tests share a worker, so they stay together.
LONG_ONES    := $(addprefix tests/,docs_followed examples worker browser demo plugin security)
FAULTS       := tests/faults tests/suite
TESTS        := $(LONG_ONES) $(filter-out $(LONG_ONES) $(FAULTS),$(wildcard tests/[a-z]*))
SIDE_BY_SIDE := -q -n 4 --dist loadfile --no-loadscope-reorder

test: servers lint docs wheel ## run every check; needs Redis, RabbitMQ and PostgreSQL, and says how to get them
	@echo "== tests of the wheel on Celery 5.7, then a subset on 5.5: four at a time, since real workers mostly wait"
	@cd $(CHECKOUT) && ../venv/bin/python -m pytest $(SIDE_BY_SIDE) -m "not slow" $(TESTS)
	@cd $(CHECKOUT) && ../venv-celery55/bin/python -m pytest $(SIDE_BY_SIDE) -m "celery55 and not slow" $(TESTS)
	@echo "== the faults, whose scenes are played at the same time"
	@cd $(CHECKOUT) && ../venv/bin/python -m pytest -m "not slow" $(FAULTS)
	@cd $(CHECKOUT) && ../venv-celery55/bin/python -m pytest -m "celery55 and not slow" tests/faults

wheel: $(VENV)/.test $(VENV55)/.test ## build the wheel and install it, and lay out the tests beside it without the package's source
	@echo "== the wheel and the sdist"
	@$(BIN)/python -m pytest -q tests/release/built.py
	@$(BIN)/python scripts/wheel.py $(VENV) $(VENV55)

kept: $(VENV)/.test ## take over names that changed on purpose (tasks, settings, metrics, …) into tests/kept/names.txt
	@$(BIN)/python -m tests.kept

unit: $(VENV)/.test ## run the unit tests only: seconds, no server
	@$(BIN)/python -m pytest -q tests/unit

lint: $(VENV)/.test ## check style, types and the direction of imports
	@echo "== ruff"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "not formatted; this mends it: $(BIN)/ruff format ."; exit 1; }
	@echo "== mypy"
	@$(BIN)/mypy
	@echo "== imports"
	@$(BIN)/lint-imports --no-logo

MATRIX := -m "worker or fault or slow"

matrix: servers $(VENV55)/.test ## run the whole worker and fault suites, slow tests too, on Celery 5.7 and 5.5, and Django's
	@$(MAKE) --no-print-directory --keep-going matrix-workers57 matrix-faults57 matrix-workers55 matrix-faults55 django

matrix-workers57:
	@echo "== workers on Celery 5.7"
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(MATRIX) $(TESTS)

matrix-faults57:
	@echo "== faults on Celery 5.7"
	@$(BIN)/python -m pytest $(MATRIX) $(FAULTS)

matrix-workers55:
	@echo "== workers on Celery 5.5"
	@$(BIN55)/python -m pytest $(SIDE_BY_SIDE) $(MATRIX) $(TESTS)

matrix-faults55:
	@echo "== faults on Celery 5.5"
	@$(BIN55)/python -m pytest $(MATRIX) $(FAULTS)

django: servers $(VENV42)/.test ## run Django's tests on its oldest version, its LTS and, with Python 3.12, its newest
	@echo "== Django 4.2"
	@$(VENV42)/bin/python -m pytest -q tests/django
	@echo "== Django 5.2"
	@$(BIN)/python -m pytest -q tests/django
	@$(if $(NEWEST_PYTHON),$(MAKE) --no-print-directory newest-django,\
		echo "== Django 6 is LEFT OUT: it needs Python 3.12 or later, and there is none here; name one: make django NEWEST_PYTHON=…")

newest-django: $(VENV6)/.test
	@echo "== Django 6, on $(NEWEST_PYTHON)"
	@$(VENV6)/bin/python -m pytest -q tests/django

faults: servers ## run one fault of the suite, or all: FAULT=a TRANSPORT=redis (OPTIONS="--short --resume"); see tests/suite
	@$(BIN)/python -m tests.suite $(or $(FAULT),all) $(or $(TRANSPORT),redis) $(OPTIONS)

bench: servers ## measure, beside what a user would write instead
	@$(BIN)/python -m benchmarks

coverage: servers ## run the tests once more and report what they reach (workers' own processes not counted)
	@$(BIN)/python -m pytest -q -m "not slow" --cov --cov-report=term

docs: $(VENV)/.test ## build the pages into docs/_build, with every warning an error
	@$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --nitpicky --fresh-env --conf-dir docs . docs/_build
	@echo "docs/_build/index.html"

reference: $(VENV)/.test ## write the pages of docs/reference that are made from the code
	@$(BIN)/python -m scripts.reference

pictures: $(VENV)/.test ## draw the README's picture and record the demo anew
	@$(BIN)/python -m scripts.flow
	@$(BIN)/python -m scripts.recording

servers: $(VENV)/.test
	@$(BIN)/python scripts/check_servers.py

pins: ## resolve requirements/*.txt anew from pyproject.toml
	@PYTHON=$(PYTHON) bash scripts/resolve_pins.sh

clean: ## remove the virtual environments and what the tools left
	@rm -rf $(VENV) $(VENV55) $(VENV42) $(VENV6) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage htmlcov docs/_build demo-output bench-output suite-output
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- virtual environments: a stamp says that one is complete; it is older than what it was made from when that changes

$(BIN)/python $(BIN55)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or later is needed; choose one: make PYTHON=python3.11 …"; exit 1; }
	@$(PYTHON) -m venv $(@:/bin/python=) || { echo "Python's venv module is incomplete; on Debian or Ubuntu: apt-get install python3-venv"; exit 1; }

$(VENV)/.demo: requirements/demo.txt pyproject.toml | $(BIN)/python
	@echo "preparing $(VENV) (once) …"
	@$(BIN)/python $(PIP) -r requirements/demo.txt
	@$(BIN)/python $(OURSELF)
	@touch $@

$(VENV)/.site: requirements/site.txt pyproject.toml | $(BIN)/python
	@echo "preparing $(VENV) (once) …"
	@$(BIN)/python $(PIP) -r requirements/site.txt
	@$(BIN)/python $(OURSELF)
	@touch $@

$(VENV)/.test: requirements/test.txt requirements/demo.txt pyproject.toml | $(BIN)/python
	@echo "preparing $(VENV) (once) …"
	@$(BIN)/python $(PIP) -r requirements/test.txt
	@$(BIN)/python $(OURSELF)
	@touch $@ $(VENV)/.demo $(VENV)/.site

$(VENV55)/.test: requirements/celery55.txt pyproject.toml | $(BIN55)/python
	@echo "preparing $(VENV55) (once) …"
	@$(BIN55)/python $(PIP) -r requirements/celery55.txt
	@$(BIN55)/python $(OURSELF)
	@touch $@

$(VENV42)/.test: requirements/django42.txt pyproject.toml
	@echo "preparing $(VENV42) (once) …"
	@$(PYTHON) -m venv $(VENV42)
	@$(VENV42)/bin/python $(PIP) -r requirements/django42.txt
	@$(VENV42)/bin/python $(OURSELF)
	@touch $@

$(VENV6)/.test: requirements/django6.txt pyproject.toml
	@echo "preparing $(VENV6) (once) …"
	@$(NEWEST_PYTHON) -m venv $(VENV6)
	@$(VENV6)/bin/python $(PIP) -r requirements/django6.txt
	@$(VENV6)/bin/python $(OURSELF)
	@touch $@
