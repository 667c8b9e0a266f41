# make demo       the starter, a small model, adapted to a task it never saw: recross demo
# make web        the same in a browser, with inputs of your own: recross web
# make test       the tests, but for those that take long; WORKERS=4 runs them in four processes (default 2)
# make test-slow  those that take long
# make test-all   both
# make test-cluster  those that start a Ray cluster on this machine (the extra [cluster], 900 MB), one after the other
# make test-min   `make test` with the oldest versions of the dependencies, in an environment of its own
# make coverage   `make test`, and which lines and branches it does not reach
# make quality    what CI checks: lint, format, contracts on imports, types
# make style      mends what `make quality` finds
# make docs       the documentation site, in site/; a broken link or a missing docstring fails
# make docs-test  runs the Python and the notebooks of the documentation, and parses its commands
# VENV=dir        where the environment is (default .venv); PYTHON=python3.12 for another interpreter

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
CONSTRAINTS ?= constraints.txt
# trl asks for newer datasets than the oldest that is supported; the page is tested where gradio is.
EXTRAS ?= test,trl,web
READY := $(VENV)/.recross-ready
DOCS_READY := $(VENV)/.recross-docs-ready
WEB_READY := $(VENV)/.recross-web-ready
CLUSTER_READY := $(VENV)/.recross-cluster-ready

WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
TESTS := $(PYTEST) --ignore tests/docs

.PHONY: demo web test test-slow test-cluster test-all test-min coverage quality style docs docs-test

demo: $(READY)
	$(BIN)/recross demo

web: $(WEB_READY)
	$(BIN)/recross web --browser

test: $(READY)
	$(TESTS) -m "not slow"

test-slow: $(READY)
	$(TESTS) -m slow

test-all: test test-slow

test-cluster: $(CLUSTER_READY)
	$(BIN)/python -m pytest tests/retrieval/test_cluster.py tests/retrieval/test_cluster_nodes.py \
		tests/retrieval/test_cluster_namespaces.py

test-min:
	$(MAKE) VENV=$(VENV)-min CONSTRAINTS=constraints-min.txt EXTRAS=test test

coverage: $(READY)
	$(TESTS) -m "not slow" --cov --cov-report=term-missing:skip-covered

quality: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

style: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Without --quiet, which leaves warnings uncounted, so that none of them would fail.
docs: $(DOCS_READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-test: $(DOCS_READY)
	$(PYTEST) tests/docs

$(DOCS_READY): $(READY)
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) -e '.[test,docs]'
	touch $(DOCS_READY)

$(CLUSTER_READY): $(READY)
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) -e '.[$(EXTRAS),cluster]'
	touch $(CLUSTER_READY)

# Of what the tests need, nothing is installed for it.
$(WEB_READY): setup.py pyproject.toml $(CONSTRAINTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) -e '.[web]'
	touch $(WEB_READY)

$(READY): setup.py pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "recross_hf needs Python 3.11 or newer, found " + sys.version.split()[0] + ": make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) -e '.[$(EXTRAS)]'
	$(BIN)/python -m pip install --quiet --no-deps --ignore-requires-python promptsource==0.2.3
	touch $(READY)
