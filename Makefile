# On a fresh machine with Python 3.11 or newer, git and make, `make lab` and `make test` are all one needs.
#
#   make lab        install into .venv, then open JupyterLab on the first notebook
#   make test       install into .venv, then run the tests: unit, parity and browser, notebooks, slow ones
#                   (widgets are tested in Chromium: without one these tests are left out, and say so)
#   make test-lab   run every notebook in JupyterLab, in Chromium (what `make test` leaves out)
#   make quick      the unit and parity tests alone
#   make notebooks  execute, clean and pair the notebooks (NOTEBOOK=03_matching for one of them)
#   make claims     write docs/claims.md, the table of all claims and verdicts
#   make lint       ruff
#   make wheel      build dist/minivis-*.whl
#   make sync       write environment.yml and constraints.txt anew from pyproject.toml and .venv
#   make clean      remove what builds and tests leave; `make distclean` removes .venv too
#
# PYTHON=python3.12 chooses the Python that .venv is made with; CONSTRAINTS= installs the newest versions that
# pyproject.toml allows instead of the ones listed in constraints.txt.

PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
JOBS ?= 2

VENV := .venv
RUN := $(VENV)/bin/python -m
INSTALLED := $(VENV)/.installed
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root) # in a container one is root, and JupyterLab asks to be told

.PHONY: install lab test quick test-notebooks test-slow test-lab notebooks claims lint wheel sync clean distclean
.DEFAULT_GOAL := test
.NOTPARALLEL:

# The stamp is newer than what it was installed from, so this runs again only when one of them changes.
$(INSTALLED): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "minivis needs Python 3.11 or newer, and '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)." >&2; \
	    echo "Name a newer one, for example: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install $(addprefix --constraint ,$(CONSTRAINTS)) --editable '.[dev]'
	@touch $@

install: $(INSTALLED)

lab: $(INSTALLED)
	$(RUN) jupyterlab $(AS_ROOT) notebooks/00_start_here.ipynb

# Fast tests first. One notebook or test file stays on one worker (--dist=loadfile in pyproject.toml).
test: quick test-notebooks test-slow

quick: $(INSTALLED)
	$(RUN) pytest tests -m "not slow" -n $(JOBS)

test-notebooks: $(INSTALLED)
	$(RUN) pytest --nbval notebooks -n $(JOBS)

# One at a time: they start processes of their own, or measure time.
test-slow: $(INSTALLED)
	$(RUN) pytest tests -m "slow and not lab" --durations=10

# Every notebook from first cell to last, in a real browser: for whoever changes notebooks or widgets, and for CI.
test-lab: $(INSTALLED)
	$(RUN) pytest tests -m lab --durations=0

notebooks: $(INSTALLED)
	$(VENV)/bin/python tools/make_notebooks.py $(NOTEBOOK)

claims: $(INSTALLED)
	$(VENV)/bin/python tools/claims_page.py

lint: $(INSTALLED)
	$(RUN) ruff check .
	$(RUN) ruff format --check minivis tests tools benchmarks

wheel: $(INSTALLED)
	$(RUN) build --wheel --no-isolation

sync: $(INSTALLED)
	$(VENV)/bin/python tools/sync_dependencies.py

clean:
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	find minivis tests tools notebooks solutions benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean
	rm -rf $(VENV)
