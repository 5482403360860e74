# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH := $(shell grep '^torch==' constraints.txt)

# Tests start hundreds of processes, and each would compile all sources again where this is set.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test pytest coverage slow chaos compat lint style types audit constraints lock bench clean

demo: $(VENV)/.installed
	$(BIN)/medaug run jobs/demo.yaml

# Types beside the tests: the checker takes one core for most of a minute where nothing is cached.
test: $(VENV)/.installed-dev style
	$(MAKE) --no-print-directory -j 2 types pytest

# Four processes, also on two cores: a test that starts Ray waits now and then, and others fill the
# cores meanwhile. A file of tests stays in one of them, and tests/conftest.py keeps those together
# that share much, as a cluster or a finished study.
pytest: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

# The same tests with the share of lines that they run, a third slower. Lines that only processes of
# their own run, ranks and commands, are not seen.
coverage: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder --cov=medaug \
	  --cov-report=json:build/coverage.json
	$(BIN)/python -m tests.coverage_table build/coverage.json

# Calibration counts, mutations and other tests of minutes each; -s prints their numbers.
slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow -s

# Breaks everything that the fault matrix names, and prints one table (half an hour on two cores).
chaos: $(VENV)/.installed-dev
	$(BIN)/python -m tests.chaos

# The oldest and the newest Ray and MLflow that pyproject.toml allows, and other Pythons if there are
# any, each in an environment of its own below .compat/ (some 10 minutes each on two cores).
compat: $(VENV)/.installed-dev
	$(BIN)/python -m tests.compat

lint: style types

style: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.installed-dev
	$(BIN)/mypy

# Needs the network's advisory database, so it is no part of `make test`.
audit:
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet pip-audit
	$(VENV)/audit/bin/python docker/audit.py

# Hours on two cores; `make bench QUICK=--quick` takes minutes. JSON goes to build/bench/.
bench: $(VENV)/.installed-bench
	mkdir -p build/bench
	for name in store steps ddp sweep first; do \
	  $(BIN)/medaug bench $$name $(QUICK) --json > build/bench/$$name.json || exit $$?; done

constraints: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,services,dicom]'
	{ echo "# Exact versions that the tests pass with; 'make constraints' writes this file."; \
	  $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//'; } > constraints.txt.new
	mv constraints.txt.new constraints.txt

# The image's packages with their hashes; torch and what its CUDA builds want come from their own
# index.
lock: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet uv
	{ echo "# The image's packages with their hashes; 'make lock' writes this file. Not torch, nor what"; \
	  echo "# its CUDA builds want: their wheels differ by index, so the Dockerfile pins a version only."; \
	  echo "setuptools>=77" | $(BIN)/uv pip compile --quiet --no-header --no-annotate \
	  --generate-hashes --constraint constraints.txt --extra server --extra dicom --extra s3 --extra encoders \
	  --python-version 3.11 --python-platform linux pyproject.toml - \
	  | awk '/^[a-z]/ { ours = !/^(torch=|triton=|cuda-|nvidia-)/ } ours'; } > docker/requirements.txt.new
	mv docker/requirements.txt.new docker/requirements.txt

clean:
	rm -rf $(VENV) build *.egg-info

# torch goes first and alone: with a version pinned, no later package pulls another build of it.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11; run 'make PYTHON=python3.12 …'"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-warn-script-location --constraint constraints.txt $(TORCH)
	$(BIN)/python -m pip install --quiet --no-warn-script-location --constraint constraints.txt --editable '.[encoders]'
	@touch $@

# The last two without what they require: torchvision has no CPU build for this torch, and what they
# do need of the rest is in the extra.
$(VENV)/.installed-bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --no-warn-script-location --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m pip install --quiet --no-warn-script-location --constraint constraints.txt --no-deps litdata==0.2.76 mosaicml-streaming==0.13.0
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --no-warn-script-location --constraint constraints.txt --editable '.[dev]'
	@touch $@
