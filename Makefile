# Two commands do all set-up in .venv: `make demo` runs the main job, `make test` passes the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test check golden fmt clean

demo: $(VENV)/.installed
	$(BIN)/python run.py -m replicas=1,5 qps=5,10

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto -m "not slow and not prometheus and not containerd and not browser"

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@if command -v terraform >/dev/null; then terraform fmt -check -recursive terraform; \
	  else echo "no terraform on PATH: the form of terraform/ was not checked"; fi

golden: $(VENV)/.installed-dev
	IMGPULL_GOLDEN=1 $(BIN)/python -m pytest -q tests/test_render.py

fmt: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "imgpull needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@
