# Python 3.11 to 3.13 and make are all that a machine needs; everything else is installed into .venv.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= $(firstword $(shell command -v python3.11 python3.12 python3.13 python3 python))
BIN := .venv/bin
PACKAGES := fluency grounding sketch2real
empty :=
comma := ,
EXTRAS := $(subst $(empty) $(empty),$(comma),$(PACKAGES))
INSTALL := $(BIN)/python deploy/install.py --constraint constraints.txt --editable
# Tests that only wait for each other are run side by side, a module in one process.
JOBS ?= 2
# Compiled modules are kept, also where the environment says not to: tests start many processes.
unexport PYTHONDONTWRITEBYTECODE
PYTEST := $(BIN)/pytest -q --durations 5
# Two at a time: where one waits, or has work for one core alone, the other computes; three at a time
# take as long. The longest come first, so that the last ones are short.
PARTS := test-e2e test-router test-fluency test-sketch2real test-original test-packaging test-edge test-grounding type
PARALLEL := -n $(JOBS) --dist loadfile --no-loadscope-reorder
# Tests of whole services wait for processes, delays and time limits more than they compute.
PARALLEL_SERVICES := $(subst -n $(JOBS),-n $(shell echo $$(($(JOBS) * 2))),$(PARALLEL))
# One cache for all runs: the libraries are the same, and torch alone takes a minute.
MYPY := $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache

.PHONY: help setup weights up serve lint format type test test-fast test-router coverage test-packages $(PACKAGES:%=test-%) test-packaging test-edge test-e2e test-original golden screenshots test-ray chaos soak bench-router bench-layers bench-bodies bench-paired bench-ray bench-http-servers gpu-swap gpu-swap-simulation bench-fluency bench-scaling gpu docs lock clean

help: ## what there is
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

setup: .venv/.installed ## install everything into .venv; quick when nothing changed

# What serving needs, without the tools that only tests need.
.venv/.served: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Cannot set up: there is no Python on PATH. Install Python 3.11, 3.12 or 3.13, or say make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Cannot set up: Python 3.11, 3.12 or 3.13 is needed, $(PYTHON) is $$($(PYTHON) -V). Say make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || { echo "Making .venv with $(PYTHON)"; $(PYTHON) -m venv .venv; }
	@echo "Installing into .venv, once (torch: the CPU build where pip is offered one)"
	@$(INSTALL) '.[$(EXTRAS)]'
	@touch $@

.venv/.installed: .venv/.served
	@echo "Installing what tests need"
	@$(INSTALL) '.[$(EXTRAS),dev]'
	@touch $@

weights: .venv/.served ## prepare the demo weights that are too large to ship (fluency: 145 MB, hash-checked)
	@cd fluency && ../$(BIN)/python -m demo_weights

up: weights ## serve on 127.0.0.1:7777, load the models, show a line to try for each
	@$(BIN)/callme up

serve: .venv/.served ## serve on 127.0.0.1:7777 with logs; models start when first asked for
	@$(BIN)/callme serve

lint: setup ## ruff, import rules, spelling, plain words
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(PYTEST) --durations 0 --no-header tests/test_words.py

format: setup ## let ruff put things in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: setup ## mypy, strict; one run per package since each has a run.py
	$(MYPY) api.py router tests/router tests/e2e tests/packaging tests/ray tests/test_pins.py tests/test_packages.py tests/test_docs.py tests/test_scaling.py tests/test_gpu_bench.py bench/scaling.py bench/gpu.py bench/gpu_figures.py bench/gpu_rows.py tests/linked_environment.py
	@echo "mypy tests/edge"; cd tests/edge && $(MYPY) .
	@echo "mypy deploy"; cd deploy && $(MYPY) .
	@for p in $(PACKAGES); do echo "mypy $$p"; (cd $$p && $(MYPY) .) || exit 1; done

# Two tests with a thread each do more than one with two: torch's threads wait for each other.
test-fast test-router coverage $(PACKAGES:%=test-%) test-packaging test-edge: export OMP_NUM_THREADS ?= 1

# What is set up need not be looked at again: make would begin first what waits for no such look.
test: lint weights ## everything; sets itself up. A part is shown when it has ended
	@$(MAKE) --no-print-directory -j2 --output-sync=target -o setup -o weights $(PARTS)

test-fast: setup ## while you work on the router: what takes seconds
	$(BIN)/ruff check router tests/router
	$(PYTEST) $(PARALLEL) -m "not slow" --ignore tests/router/models/sleep_hook --ignore tests/router/cli tests/router

test-router: setup ## the router alone
	$(PYTEST) $(PARALLEL) tests/router tests/test_pins.py tests/test_packages.py tests/test_docs.py tests/test_scaling.py tests/test_gpu_bench.py

coverage: setup ## which lines of the router its own tests do not run; docs/testing.md says why
	$(PYTEST) $(PARALLEL) --cov=router --cov-report=term:skip-covered tests/router

test-packages: $(PACKAGES:%=test-%) ## each package in a process of its own: they all have a run.py

$(PACKAGES:%=test-%): test-%: setup weights
	$(PYTEST) $(PARALLEL) tests/$*

test-packaging: setup weights ## each package alone in a fresh environment; Modal; remote back-ends
	$(PYTEST) $(PARALLEL_SERVICES) tests/packaging

test-edge: setup ## the edge function under Deno
	$(PYTEST) $(PARALLEL_SERVICES) tests/edge

test-original: setup ## grounding against groundingdino-py itself, in an environment of its own
	tests/grounding/original/run.sh $(abspath $(BIN)/python)

golden: setup ## write the golden records again; look at the difference before you commit it
	@for p in tests/golden/*/make.py; do echo "$$p"; $(BIN)/python "$$p" || exit 1; done

test-e2e: setup weights ## real processes, from the edge function to the models
	$(PYTEST) $(PARALLEL_SERVICES) tests/e2e

screenshots: setup weights ## the page in all its states: pictures of the real models in a real Chromium
	$(BIN)/python -m tests.e2e.screenshots docs/pictures var/screenshots

test-ray: setup .venv-ray/.installed ## packages on a real Ray cluster of three raylets on this machine
	.venv-ray/bin/python -m pytest -s --timeout 1800 tests/ray

chaos: setup ## 10,000 random requests while workers are killed, with figures
	CALLME_CHAOS_REQUESTS=10000 $(PYTEST) -s --timeout 3600 tests/e2e/test_chaos.py

soak: setup ## steady load for MINUTES=5, then what grew
	$(BIN)/python bench/soak.py --minutes $(or $(MINUTES),5)

bench-router: setup .venv-bench/.installed ## the router against coglet, a plain proxy and LitServe
	$(BIN)/python bench/router.py

bench-paired: setup .venv-bench/.installed ## this checkout of the router against another: BEFORE=DIR, ROUNDS=60
	$(BIN)/python bench/paired.py $(BEFORE) . --rounds $(or $(ROUNDS),60)

bench-ray: setup .venv-bench/.installed .venv-ray/.installed ## what a Ray cluster adds to a prediction: ROUNDS=12
	PYTHONPATH=$(CURDIR) .venv-ray/bin/python bench/ray_overhead.py --rounds $(or $(ROUNDS),12)

bench-layers: setup .venv-bench/.installed ## where each microsecond of a prediction goes
	$(BIN)/python bench/layers.py

bench-http-servers: setup .venv-bench/.installed ## what reading HTTP costs, by server and event loop
	$(BIN)/python bench/http_servers.py

bench-bodies: setup ## what a body costs that is made to cost much
	$(BIN)/python bench/hostile_bodies.py

gpu-swap: setup ## on a GPU: how quickly models give it to each other; TINY=1 without one
	$(BIN)/python bench/gpu_swap.py $(if $(TINY),--tiny)

gpu-swap-simulation: setup ## a day of three models on one card: asleep, restarted, or in order
	$(BIN)/python bench/gpu_swap_simulation.py

bench-fluency: setup weights .venv-bench/.installed ## fluency against transformers' pipeline and faster-whisper
	$(BIN)/python bench/fluency.py

bench-scaling: setup ## simulate loads: GPUs needed, waits and costs, the tables of docs/scaling.md
	$(BIN)/python bench/scaling.py

gpu: ## the full presets on an NVIDIA GPU, without network: PART=grounding, SECONDS=240, TINY=1, WHEELS=DIR, OUT=FILE
	$(firstword $(wildcard $(BIN)/python) $(PYTHON)) bench/gpu.py $(if $(PART),--part $(PART)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(TINY),--tiny) $(if $(OUT),--out $(OUT))

.venv-bench/.installed: bench/requirements.txt constraints.txt
	@test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/python -m pip install --quiet --constraint constraints.txt -r bench/requirements.txt
	@touch $@

docs: .venv-docs/.installed ## build the documents as a site: var/docs/site/index.html
	@rm -rf var/docs && mkdir -p var/docs/source
	@git ls-files '*.md' '*.webp' '*.jsonl' docs supabase/client LICENSE | tar cf - -T - | tar xf - -C var/docs/source
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet --strict
	@echo "Open var/docs/site/index.html"

.venv-docs/.installed: docs/requirements.txt
	@test -x .venv-docs/bin/python || $(PYTHON) -m venv .venv-docs
	@.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check -r docs/requirements.txt
	@touch $@

.venv-ray/.installed: pyproject.toml constraints.txt
	@test -x .venv-ray/bin/python || $(PYTHON) -m venv .venv-ray
	@.venv-ray/bin/python -c 'import sysconfig, pathlib; p = pathlib.Path(sysconfig.get_path("purelib")); \
	  (p / "callme.pth").write_text(str(p).replace(".venv-ray", ".venv") + "\n")'
	@.venv-ray/bin/python -m pip install --quiet --constraint constraints.txt 'ray[serve]'
	@touch $@

lock: setup ## write constraints.txt from what is installed
	@{ $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//'; \
	   sed -n 's/^ray = \["ray\[serve\]\(==.*\)"\]/ray\1/p' pyproject.toml; } | sort -f > constraints.txt

clean: ## remove what make made, .venv and weights included
	rm -rf .venv .venv-bench .venv-docs .venv-ray var fluency/weights */.cog .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
