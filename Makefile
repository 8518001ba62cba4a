# Every target sets up what it needs; a second run reuses .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OLDEST := .venv-oldest
OLDEST_STAMP := $(OLDEST)/.installed
DOCS_STAMP := $(VENV)/.installed-docs
RECIPES := .venv-recipes
RECIPES_STAMP := $(RECIPES)/.installed
IN_PARALLEL := --numprocesses auto --maxprocesses 4 --dist worksteal
# The many processes that tests start share what was compiled, wherever that is switched off.
export PYTHONDONTWRITEBYTECODE :=

# ReContrast's accelerators are for GPUs alone: on a CPU its plain path is the one that is always tested.
OF_DETECTORS := $(patsubst %,tests/test_%.py,patchcore partial_fit reconpatch fusion heatmap_threshold tiles spade)

.PHONY: demo test test-plain test-scripts coverage test-oldest test-real test-gpu test-deploy test-recipes check format docs clean

demo: $(STAMP)
	$(BIN)/python examples/demo.py

# Several processes of one thread each; their own children may take more.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(IN_PARALLEL)

# What detectors promise, once more on the plain path: with everything off that is there for speed alone.
test-plain: $(STAMP)
	SKAD_PLAIN=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(IN_PARALLEL) -k "not recontrast" $(OF_DETECTORS)

# The scripts of examples, benchmarks and tools and the code of pages, as a user runs them: a page of
# the gallery takes as long as a hundred other tests.
test-scripts: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(IN_PARALLEL) -m scripts tests

# Apart from `test`: counting lines takes 66 % more time on Python 3.11. From 3.12 on,
# COVERAGE_CORE=sysmon makes it nearly free.
coverage: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(IN_PARALLEL) --cov --cov-report=term

# The lower bounds of pyproject.toml beside the pinned torch. Old libraries may call what newer ones
# have deprecated. Left out are scripts, which are for developers with the pinned versions, and
# doctests, since NumPy 1 prints numbers otherwise.
test-oldest: $(OLDEST_STAMP)
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest tests $(IN_PARALLEL) \
		-W default::DeprecationWarning

# Slow checks, most of them on real images and weights, which need SKAD_SHARED (see CONTRIBUTING.md).
test-real: $(STAMP)
	$(BIN)/python -m pytest -m "real or slow"

# What only a GPU can show; the other tests run on the CPU wherever they run.
test-gpu: $(STAMP)
	$(BIN)/python -m pytest -m gpu

# What installs packages, starts a browser, a compiler or a server. Without a network, or where a
# tool is missing, it is skipped and says so.
test-deploy: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m deploy -rs

# The blocks of docs/recipes.md, with the versions of the libraries that they need.
test-recipes: $(RECIPES_STAMP)
	OMP_NUM_THREADS=1 $(RECIPES)/bin/python -m pytest -m recipes tests/test_recipes.py -rfEs
	$(RECIPES)/bin/python -m pip list | grep -iE \
		"^(optuna|mlflow|skops|cloudpickle|onnx|onnxruntime|fastapi|distributed|ray|scikit-learn|torch) "

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

$(OLDEST_STAMP): pyproject.toml constraints.txt tools/lower_bounds.py
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(PYTHON) tools/lower_bounds.py > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint $(OLDEST)/constraints.txt --editable ".[cpu,test]"
	touch $(OLDEST_STAMP)

# On top of .venv, which stays as it is: what is installed there is found, and not installed again.
$(RECIPES_STAMP): $(STAMP)
	test -x $(RECIPES)/bin/python || $(BIN)/python -m venv $(RECIPES)
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" > \
		$$($(RECIPES)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/of_project.pth
	$(RECIPES)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable ".[recipes]"
	touch $(RECIPES_STAMP)

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable ".[cpu,test,docs]"
	touch $(DOCS_STAMP)

clean:
	rm -rf $(VENV) $(OLDEST) $(RECIPES) docs/_build docs/api docs/gallery demo-output build dist .pytest_cache .mypy_cache .ruff_cache
