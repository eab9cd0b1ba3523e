# make venv    an environment in .venv with everything; the command is .venv/bin/regrow
# make demo    sparse networks beside dense ones, with a report: about two minutes
# make test    the whole suite
# make test-long  whole smoke presets of studies, which the suite tries in part
# make check   style, types, floors, documentation
# make docs    the documentation in docs/_build/html, its examples run

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin

.PHONY: venv demo test test-long check docs format clean

venv: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit('regrow needs Python 3.11 or newer; name one with make PYTHON=...' if sys.version_info < (3, 11) else 0)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: venv
	$(BIN)/regrow demo

test: venv
	$(BIN)/python -m pytest -n $(WORKERS)

test-long: venv
	$(BIN)/python -m pytest -n $(WORKERS) -m long

check: venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest src tests/test_documentation.py

docs: $(VENV)/.docs-installed
	$(BIN)/python -m sphinx -E -W --keep-going -q -d docs/_build/doctrees docs docs/_build/html
	$(BIN)/python -m pytest tests/test_docs.py

$(VENV)/.docs-installed: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

format: venv
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis docs/_build
