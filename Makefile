# make demo and make test set up what they need. The rest is for those who work on the project.

VENV := .venv
PYTHON = $(VENV)/bin/python
SETUP := ./.ci/setup
export PATH := $(PATH):/usr/sbin:/sbin

.DEFAULT_GOAL := help
.PHONY: help setup demo sandbox test test-matrix soak bench bench-dask lint docs dist clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: ## programs and a Python environment in .venv
	@$(SETUP) programs
	@$(SETUP) environment $(VENV)

demo: setup ## real containers from a held descriptor
	@$(PYTHON) examples/demo.py

sandbox: setup ## a code sandbox with a page, on loopback (OPTIONS="--port 8080 ...")
	@$(SETUP) page $(VENV)
	@exec $(PYTHON) examples/sandbox $(OPTIONS)

# Debian packages of programs that the suite runs, besides those of the demo.
TEST_PROGRAMS := curl iproute2 procps strace umoci

test: setup lint docs ## the whole suite, on the oldest and the newest Python found
	@$(SETUP) programs $(TEST_PROGRAMS)
	@rm -f .cache/results/machine-*
	@$(SETUP) page $(VENV) || true
	@$(SETUP) browser
	@failed=0; for python in $$($(SETUP) pythons); do \
		venv=$(VENV)-$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])') && \
		$(SETUP) environment $$venv $$python && \
		echo "== the suite under $$($$python --version)" && \
		$$venv/bin/python -m pytest $(PYTEST) --junit-xml=.cache/results/machine-$${venv#$(VENV)-}.xml || failed=1; \
	done; exit $$failed

test-matrix: setup ## the whole suite in a Debian sid root, on runc and crun, cgroup v1 and v2 (root; ten minutes)
	@PYTEST="$(PYTEST)" $(PYTHON) tests/matrix/run.py $(LEGS)

soak: setup ## 10,000 short containers, 500 at once, 200 streams, 5,000 jobs on Dask, 1,000 cancelled calls of each kind: an hour
	@RUNC_ASYNC_SOAK=10000 RUNC_ASYNC_ALIVE=500 RUNC_ASYNC_STREAMS=200 RUNC_ASYNC_STORM=1000 RUNC_ASYNC_KILLS=100 \
		RUNC_ASYNC_LOAD=500 RUNC_ASYNC_DASK_JOBS=5000 \
		$(PYTHON) -m pytest tests/soak tests/faults tests/contrib tests/examples/test_sandbox.py $(PYTEST)

bench: setup ## against go-runc, asyncio and the system call, into README and docs (four minutes; QUICK=1: one, prints only)
	@tests/bench/build || echo "bench: without go-runc, see above" >&2
	@$(PYTHON) -m tests.bench $(if $(QUICK),quick)

bench-dask: setup ## what Dask costs: docs/measured-dask.md (root; ten minutes)
	@$(PYTHON) -m tests.bench.cluster

lint: setup ## formatting, style, types
	@$(PYTHON) -m ruff format --check --quiet .
	@$(PYTHON) -m ruff check --quiet .
	@$(PYTHON) -m mypy
	@$(PYTHON) -m basedpyright --pythonpath $(PYTHON)

docs: setup ## the documentation, in docs/_build
	@$(PYTHON) -m sphinx -W --keep-going --quiet docs docs/_build
	@echo "docs/_build/index.html"

dist: setup ## the wheel and the sdist, built and checked, in dist
	@rm -rf dist
	@$(PYTHON) -m build --no-isolation --outdir dist . >/dev/null
	@$(PYTHON) -m twine check --strict dist/*

clean: ## remove what was made
	rm -rf .venv* .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis docs/_build dist examples/sandbox/page/node_modules
