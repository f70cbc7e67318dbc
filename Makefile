# make demo and make test set up what they need. The rest is for those who work on the project.

VENV := .venv
PYTHON = $(VENV)/bin/python
SETUP := ./.ci/setup
export PATH := $(PATH):/usr/sbin:/sbin

.DEFAULT_GOAL := help
.PHONY: help setup demo sandbox test test-oldest test-programs test-matrix test-vm unit soak bench bench-dask lint docs dist clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: ## programs and a Python environment in .venv
	@$(SETUP) programs
	@$(SETUP) environment $(VENV)

demo: ## real containers from a held descriptor
	@$(SETUP) programs
	@$(SETUP) environment $(VENV)-demo "" demo
	@$(VENV)-demo/bin/python examples/demo.py

sandbox: ## a code sandbox with a page, on loopback (OPTIONS="--port 8080 ...")
	@$(SETUP) programs
	@$(SETUP) environment $(VENV)-sandbox "" sandbox
	@$(SETUP) page $(VENV)-sandbox
	@exec $(VENV)-sandbox/bin/python examples/sandbox $(OPTIONS)

# Debian packages of programs that the suite runs, besides those of the demo.
TEST_PROGRAMS := catatonit curl iproute2 procps strace tini umoci
RESULTS := .cache/results
# Tests side by side, one process for each processor. A test that hangs ends its process, is named, and the others go on.
SIDE_BY_SIDE := -n auto --maxprocesses 8 --dist worksteal

test: test-programs setup lint docs ## lint, documentation and the whole suite, on the newest Python found
	@$(PYTHON) -m pytest $(SIDE_BY_SIDE) --junit-xml=$(RESULTS)/machine-newest.xml $(PYTEST)

test-oldest: test-programs ## the whole suite, on the oldest supported Python found
	@$(SETUP) environment $(VENV)-oldest "$$($(SETUP) python oldest)" test
	@$(VENV)-oldest/bin/python -m pytest $(SIDE_BY_SIDE) --junit-xml=$(RESULTS)/machine-oldest.xml $(PYTEST)

test-programs: setup
	@$(SETUP) programs $(TEST_PROGRAMS)
	@$(SETUP) page $(VENV) || true
	@$(SETUP) browser
	@$(SETUP) gvisor

test-vm: ## what depends on the machine, in a virtual one: Debian sid, systemd, cgroup v2, AppArmor (root; half an hour)
	@tests/vm/vm run tests/vm/tests $(PYTEST)

unit: setup ## the tests that need no container, no root and no runtime
	@$(PYTHON) -m pytest $(SIDE_BY_SIDE) -m unit $(PYTEST)

test-matrix: setup ## the whole suite in a Debian sid root, on runc and crun, cgroup v1 and v2 (root; ten minutes)
	@PYTEST="$(SIDE_BY_SIDE) $(PYTEST)" $(PYTHON) tests/matrix/run.py $(LEGS)

soak: setup ## 10,000 short containers, 100,000 jobs through a pool, 500 at once, 200 streams, 5,000 jobs on Dask, 1,000 cancelled calls of each kind: six hours
	@RUNC_ASYNC_SOAK=10000 RUNC_ASYNC_JOBS=100000 RUNC_ASYNC_OOM_RUNS=100 RUNC_ASYNC_ALIVE=500 \
		RUNC_ASYNC_STREAMS=200 RUNC_ASYNC_STORM=1000 RUNC_ASYNC_KILLS=100 RUNC_ASYNC_LOAD=500 RUNC_ASYNC_DASK_JOBS=5000 \
		$(PYTHON) -m pytest tests/soak tests/jobs tests/faults tests/contrib tests/examples/test_sandbox.py $(PYTEST)

bench: setup ## against go-runc, asyncio and the system call, into README and docs (six minutes; QUICK=1: two, prints only; ONLY=alternatives)
	@tests/bench/build || echo "bench: without go-runc, see above" >&2
	@$(PYTHON) -m tests.bench $(if $(QUICK),quick) $(ONLY)

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
