# Two commands do all set-up: `make demo` and `make test`. Everything lives in .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

unexport PYTHONDONTWRITEBYTECODE
# Tests start Python many times: what it has compiled is kept, whatever the shell says.

.DEFAULT_GOAL := help
.PHONY: help install demo test quick check advisories experiments-test docs results results-check bench-check long lowest format lock clean
# What `make long` runs besides the suite: the tests that read MSMAE_LONG, and those named here.
LONG := tests/docs tests/test_wheel.py tests/fuzz tests/serve \
	tests/runs/test_kills.py tests/data/test_scale.py tests/training/test_many_steps.py tests/inference/test_power_cuts.py

help:            ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

install: $(STAMP)  ## create .venv and install the locked versions (done once)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "msmae needs Python >= 3.10; name one: make PYTHON=python3.11 ..."; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "python3 cannot make a virtual environment here; on Debian or Ubuntu: apt-get install python3-venv"; exit 2; }
	@echo "Installing the locked versions into $(VENV) (about two minutes, once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

demo: $(STAMP)   ## the main job on the embedded phantom: runs/demo
	@$(BIN)/msmae demo --out runs/demo

test: $(STAMP)   ## the whole test suite
	@$(PYTEST)

quick: $(STAMP)  ## the tests that take seconds (under 90 s in all, on two cores)
	@$(PYTEST) -m "not slow"

check: $(STAMP)  ## format, lint, types, and what bandit holds for unsafe
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/bandit --quiet --configfile pyproject.toml --recursive src

advisories: $(STAMP) ## known holes in the locked versions, as of today (pip-audit; needs a network)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	@date -u +'%F %TZ' && $(BIN)/pip-audit --requirement requirements.lock --no-deps --disable-pip

docs: $(STAMP)   ## build the documentation site: docs/_build/html (Python 3.11 or newer)
	@$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

long: $(STAMP)   ## what takes longer than the suite: tutorials, the wheel, the page, fuzzing, kills, millions of images, lowest versions
	@sh tests/serve/chromium.sh || echo "no Chromium could be installed: the tests of the page are skipped"
	@MSMAE_LONG=1 $(BIN)/python -m pytest --numprocesses 0 --durations 10 $(LONG)
	@$(MAKE) --no-print-directory lowest

lowest: $(STAMP) ## the quick tests with the lowest versions that pyproject.toml allows, in .venv-lowest
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-lowest
	@$(BIN)/uv pip install --quiet --python .venv-lowest --resolution lowest-direct --group dev --editable '.[onnx,hub,serve]'
	@.venv-lowest/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal -m "not slow" \
		-W ignore::DeprecationWarning -W ignore::PendingDeprecationWarning -W ignore::FutureWarning  # old packages warn of what is newest beside them

experiments-test: $(STAMP) ## the tests of experiments/ and results/ (a minute)
	@$(PYTEST) experiments/tests

results: $(STAMP) ## rebuild RESULTS.md and docs/results from the predictions in results/ (minutes)
	@$(BIN)/python experiments/results.py

results-check: results ## do the pages say what the predictions say, to the byte? (minutes)
	@git diff --exit-code --stat -- RESULTS.md docs/results results

bench-check: $(STAMP) ## has a speed ratio fallen by more than 10 %? (minutes; not part of `make test`)
	@$(BIN)/python benchmarks/check.py

format: $(STAMP) ## rewrite the files in the house style
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: $(STAMP)   ## resolve requirements.lock anew (needs `pip install uv` in .venv)
	@$(BIN)/python -m pip install --quiet uv
	@echo "torch==2.13.0" > $(VENV)/constraints.txt
	@$(BIN)/uv pip compile --universal --python-version 3.10 --group dev --extra onnx --extra hub --extra serve pyproject.toml --constraint $(VENV)/constraints.txt \
		--no-header --no-annotate --quiet | grep -vE '^(nvidia|cuda|triton|torch==)' > $(VENV)/resolved.txt
	@{ head -2 requirements.lock; cat $(VENV)/resolved.txt; echo "torch==2.13.0"; } > $(VENV)/new.lock && mv $(VENV)/new.lock requirements.lock

clean:           ## remove the environment and caches; runs stay
	rm -rf $(VENV) .venv-lowest docs/_build docs/reference .pytest_cache .mypy_cache .ruff_cache .hypothesis
