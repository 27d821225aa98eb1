# make demo: train SSANet on drawn birds, watch it find the parts (3 to 6 minutes on 2 cores)
# make test: run all tests
# make lint: check style and types
# Each creates the environment in .venv first, from the package index.

PYTHON ?= python3
ENV := .venv
RUN := $(ENV)/bin/python
EXTRAS ?= test,lite0
# What `make core-test` runs: the tests that depend most on the versions of JAX and Flax.
CORE := tests/models tests/export tests/pretrained tests/data tests/runs tests/test_layers.py
export PATH := $(CURDIR)/$(ENV)/bin:$(PATH)

.PHONY: demo baseline test fast-test core-test lint format clean

demo: $(ENV)/ready
	$(RUN) -m ssanet_jax.main --config=configs/demo.py --workdir=runs/demo
	@echo "the parts it found: runs/demo/parts.png"

baseline: $(ENV)/ready  # the same backbone with global pooling, trained for the same time
	$(RUN) -m ssanet_jax.main --config=configs/demo.py:global_pooling --workdir=runs/demo_global_pooling

test: $(ENV)/ready
	$(RUN) -m pytest -n 2 --dist loadfile --durations=15

fast-test: $(ENV)/ready
	$(RUN) -m pytest -n 2 --dist loadfile -m 'not slow'

core-test: $(ENV)/ready
	$(RUN) -m pytest -n 2 --dist loadfile -m 'not slow' $(CORE)

lint: $(ENV)/lint-ready
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright

format: $(ENV)/lint-ready
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

$(ENV)/ready: pyproject.toml requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(ENV)
	$(RUN) -m pip install --quiet --editable '.[$(EXTRAS)]'
	touch $@

$(ENV)/lint-ready: $(ENV)/ready
	$(RUN) -m pip install --quiet --editable '.[lint]'
	touch $@

clean:
	rm -rf .venv .venv-* runs
