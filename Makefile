# Two commands do everything, each with its own set-up: `make demo` and `make test`.
# `make check` runs what CI checks without the tests: format, lint and types.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO ?= runs/demo
JOBS ?= 2

.PHONY: demo test test-slow check format bench docs tutorials wheel-test clean

demo: $(STAMP)
	$(BIN)/affectlens run --config examples/demo.yaml --out $(DEMO)

test: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not slow"

# Simulations that show error rates where a quick test cannot.
test-slow: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) -m slow

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# calibration.py needs an encoded battery (docs/calibration.md says how) and demo.py a finished run.
bench: $(STAMP)
	for file in harvest reading training statistics audit planted scaling interventions report; do $(BIN)/python benchmarks/$$file.py --json || exit 1; done

# The documentation site, with warnings as errors; then a look for anything it would fetch.
docs: $(STAMP)
	$(BIN)/sphinx-build -W --keep-going -q -b html docs build/docs
	$(BIN)/python docs/_scripts/outside_requests.py build/docs

# Runs the tutorials again and compares what they print with what stands in them.
tutorials: $(STAMP)
	$(BIN)/python scripts/tutorials.py --check --folder build/tutorials

# Part of the suite once more, against the built wheel instead of the checkout: what is missing from
# the wheel (a module, a battery, a template) shows only here.
wheel-test: $(STAMP)
	rm -rf build/site build/lib build/bdist.* dist
	$(BIN)/python -m build --quiet --wheel --outdir dist .
	$(BIN)/python -m pip install --quiet --no-deps --target build/site dist/*.whl
	PYTHONPATH=build/site $(BIN)/python -c "import affectlens, pathlib; assert 'build' in pathlib.Path(affectlens.__file__).parts, affectlens.__file__"
	PYTHONPATH=build/site $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile tests/data/test_stimuli.py tests/report tests/app/test_layout.py

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
