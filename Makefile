# make venv    an environment in .venv with everything; the command is .venv/bin/regrow
# make demo    sparse networks beside dense ones, with a report: about two minutes
# make test    the whole suite
# make test-long  whole smoke presets of studies, which the suite tries in part
# make fuzz    every fuzzer of tests/fuzz, at length: hours; SEED=1 looks elsewhere
# make sanitize  the C kernels under gcc's address and undefined-behaviour sanitizers: fuzzer and tests
# make interpret  the kernels of updates, block layers and volumes on a GPU, by Triton's interpreter; needs triton
# make check   style, types, floors, documentation
# make docs    the documentation in docs/_build/html, its examples run

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin
SEED ?= 0
FUZZERS := $(filter-out budget conftest test_%,$(basename $(notdir $(wildcard tests/fuzz/*.py))))

.PHONY: venv demo test test-long fuzz sanitize interpret check docs format clean

venv: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit('regrow needs Python 3.11 or newer; name one with make PYTHON=...' if sys.version_info < (3, 11) else 0)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: venv
	$(BIN)/regrow demo

# Whatever the shell says of bytecode: without it, each of some hundred processes compiles all again.
unexport PYTHONDONTWRITEBYTECODE

test: venv
	$(BIN)/python -m pytest -n $(WORKERS)

test-long: venv
	$(BIN)/python -m pytest -n $(WORKERS) -m long

fuzz: venv
	@failed=; for name in $(FUZZERS); do \
	$(BIN)/python -m tests.fuzz.$$name --seed $(SEED) || failed="$$failed $$name"; done; \
	test -z "$$failed" || { echo "something was wrong in:$$failed"; exit 1; }

# Of a copy of the sources, without a library beside them, so that the kernels are compiled this way.
SANITIZED := $(abspath $(VENV))/sanitized
SANITIZERS := -fsanitize=address,undefined -fno-sanitize-recover=undefined -g1
sanitize: export CC := gcc $(SANITIZERS)
sanitize: export XDG_CACHE_HOME := $(SANITIZED)
sanitize: export PYTHONPATH := $(SANITIZED)/src
sanitize: export REGROW_KERNELS := native
sanitize: export ASAN_OPTIONS := detect_leaks=0
sanitize: venv
	rm -rf $(SANITIZED) && mkdir $(SANITIZED) && cp -r src $(SANITIZED)
	rm -f $(SANITIZED)/src/regrow/execution/csr/kernels/libregrow.*
	export LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)"; \
	$(BIN)/python -c "from regrow.execution.csr import dispatch; print(dispatch.available())" && \
	$(BIN)/python -m tests.fuzz.kernels --seed $(SEED) && \
	$(BIN)/python -m pytest tests/execution/test_csr_conv.py tests/execution/test_csr_index.py \
	  tests/execution/test_csr_kernels.py tests/execution/test_csr_kernelwise.py \
	  tests/execution/test_csr_linear.py \
	  tests/execution/test_csr_memory.py tests/execution/test_growth.py

# Needs triton, which a CPU's torch comes without: the tests of the kernels would pass by skipping them.
interpret: venv
	@$(BIN)/python -c "import triton"
	TRITON_INTERPRET=1 $(BIN)/python -m pytest tests/engine/test_many.py \
	  tests/execution/test_block_kernels.py tests/segmentation/test_join_kernels.py

check: venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest src tests/test_documentation.py

docs: $(VENV)/.docs-installed
	$(BIN)/python -m sphinx -E -W --keep-going -q -d docs/_build/doctrees docs docs/_build/html
	$(BIN)/python -m pytest src tests/test_docs.py tests/test_numbers.py tests/test_readme.py

$(VENV)/.docs-installed: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

format: venv
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis docs/_build
