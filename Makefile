# Every target sets up what it needs; a second run reuses .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS_STAMP := $(VENV)/.installed-docs

.PHONY: demo test test-real test-gpu check format docs clean

demo: $(STAMP)
	$(BIN)/python examples/demo.py

# Several processes of one thread each; their own children may take more.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

# Slow checks on real images and weights; needs SKAD_SHARED (see CONTRIBUTING in docs/).
test-real: $(STAMP)
	$(BIN)/python -m pytest -m real

# What only a GPU can show; the other tests run on the CPU wherever they run.
test-gpu: $(STAMP)
	$(BIN)/python -m pytest -m gpu

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The pages land in docs/_build/html; warnings are errors.
docs: $(DOCS_STAMP)
	rm -rf docs/_build docs/api docs/gallery
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -b html docs docs/_build/html

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The stamp is written last: an interrupted installation is taken up again.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'the pinned versions need Python 3.11 or newer')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable ".[cpu,test]"
	touch $(STAMP)

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable ".[cpu,test,docs]"
	touch $(DOCS_STAMP)

clean:
	rm -rf $(VENV) docs/_build docs/api docs/gallery demo-output build dist .pytest_cache .mypy_cache .ruff_cache
