PYTHON ?= python3
AIRFLOWS := 3.3.2 2.11.2
# The last releases of the minors between them pass the smoke test, each with the packages of its own time: Airflow 3.2.2
# does not start with today's pydantic, and 3.0.6 refuses every token that today's PyJWT has signed.
DATE-3.2.2 := 2026-05-30
DATE-3.1.8 := 2026-03-12
DATE-3.0.6 := 2025-08-30
VERSIONS := $(AIRFLOWS) 3.2.2 3.1.8 3.0.6
# What is installed besides Airflow: extras and dependency groups of pyproject.toml; default: emulator, and TOOLS.
EXTRAS-3.3.2 := emulator parquet s3
GROUPS-3.3.2 := faults browser
EXTRAS-2.11.2 := emulator parquet
GROUPS-2.11.2 := dev
TOOLS := hypothesis pytest pytest-timeout
ENVS := .venv
VENV := $(ENVS)/airflow-3.3.2
PEER := .venv/aixplain-0.2.48
BENCH := .venv/bench
COMMON_AI := .venv/common-ai
DOCS := .venv/docs
RELEASE := .venv/release
SOURCES := $(shell find airflow_provider_aixplain -name '*.py' -o -name '*.html') pyproject.toml README.md LICENSE
CHECKS := lint units-3.3.2 real-3.3.2 real-2.11.2 core units-2.11.2 .test/wheel
# The provider common.ai and the packages of the documentation site need Python 3.11.
CHECKS += $(shell $(PYTHON) -c 'import sys; print("common-ai docs" * (sys.version_info >= (3, 11)))')
# Airflow 2.11.0 does not support Python 3.13.
CHECKS += $(shell $(PYTHON) -c 'import sys; print("oldest" * (sys.version_info < (3, 13)))')
# Tests in a real Airflow mostly wait, so several checks run at a time.
JOBS ?= 3

.DEFAULT_GOAL := help
.PHONY: help demo stop test test-versions lint format ui docs linkcheck core oldest common-ai programs test-faults bench release constraints clean
.DELETE_ON_ERROR:
.SECONDARY: # keep environments: make would delete them as intermediate files

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z][a-z%-]*:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.ready ## Run two example DAGs in a real Airflow; KEEP=1 leaves it running
	@exec $(VENV)/bin/python -m tests.airflow.demo

stop: $(VENV)/.ready ## Stop what make demo KEEP=1 left running
	@$(VENV)/bin/python -m tests.airflow.demo --stop

test: ## Run every check: lint, all tests on both Airflows, the wheel (JOBS=3 at a time)
	@# First what the longest checks need: make would start all other checks before one that has to wait for this.
	$(MAKE) -j$(JOBS) -O programs $(AIRFLOWS:%=$(ENVS)/airflow-%/.ready) $(PEER)/.ready
	$(MAKE) -j$(JOBS) -O $(CHECKS)

lint: $(VENV)/.ready ## Check code style, format, types, words of all texts and Airflow's conventions
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m tests.style
	AIRFLOW_HOME=$(CURDIR)/.test/home-lint $(VENV)/bin/python -m pytest -q tests/unit/test_conventions.py

format: $(VENV)/.ready ## Fix style and format where a tool can
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

ui: ## Build the page in Airflow's UI from ui/, after its tests; needs Node.js 20.11
	cd ui && npm ci --no-audit --no-fund && npm run build

docs: $(DOCS)/.ready ## Build the documentation site in build/docs; needs Python 3.11
	$(SPHINX) -E -W --keep-going -b html docs build/docs

linkcheck: $(DOCS)/.ready ## Check the documentation's links to other sites; needs a network
	$(SPHINX) -b linkcheck docs build/linkcheck

SPHINX = AIRFLOW_HOME=$(CURDIR)/.test/home-docs $(DOCS)/bin/python -m sphinx -q -n -d build/doctrees

test-%: ## Run the tests on one Airflow, 3.3.2 or 2.11.2; PYTEST_ARGS selects some
	$(MAKE) -j2 -O real-$* units-$*

real-%: $(ENVS)/airflow-%/.ready
	AIRFLOW_HOME=$(CURDIR)/.test/real-$* $(ENVS)/airflow-$*/bin/python -m pytest tests/airflow $(PYTEST_ARGS)

units-%: $(ENVS)/airflow-%/.ready $(PEER)/.ready
	AIRFLOW_HOME=$(CURDIR)/.test/home-$* $(ENVS)/airflow-$*/bin/python -m pytest tests/unit $(PYTEST_ARGS)

# Tests that do not depend on the version of Airflow run once.
units-3.3.2: PYTEST_ARGS += tests/parity --ignore=tests/unit/protocol
units-2.11.2: PYTEST_ARGS += $(addprefix --ignore=tests/unit/,protocol transport emulator batch inputs test_model.py)
# Below Airflow 3.3 no trigger can start or finish a task. That a worker does so is covered by other tests.
real-2.11.2: PYTEST_ARGS += --ignore=tests/airflow/test_by_triggers.py

smoke-%: $(ENVS)/airflow-%/.ready ## Run tasks of every kind on one Airflow, 2.11.2, 3.0.6, 3.1.8, 3.2.2 or 3.3.2
	AIRFLOW_HOME=$(CURDIR)/.test/smoke-$* $(ENVS)/airflow-$*/bin/python -m pytest tests/airflow/test_end_to_end.py

PYTHONS ?= python3.10 python3.11 python3.12 python3.13
NEWEST := $(firstword $(AIRFLOWS))
test-versions: ## Run the smoke test on each Airflow, and on the newest with each of PYTHONS that is found
	@mkdir -p .test; : > .test/versions; failed=0; ours=$$($(PYTHON) -V); \
	try() { \
	  version=$$1; name=$$2; shift 2; begin=$$(date +%s); result=passed; \
	  $(MAKE) smoke-$$version "$$@" || { result=failed; failed=1; }; \
	  echo "Airflow $$version, $$name: $$result in $$(($$(date +%s) - begin)) s" >> .test/versions; \
	}; \
	for version in $(VERSIONS); do try $$version "$$ours"; done; \
	for python in $(PYTHONS); do \
	  name=$$($$python -V 2> /dev/null) || { echo "$$python: not found, not tried" >> .test/versions; continue; }; \
	  [ "$$name" = "$$ours" ] || try $(NEWEST) "$$name" PYTHON=$$python ENVS=".venv/$${name#Python }" \
	    EXTRAS-$(NEWEST)=emulator GROUPS-$(NEWEST)=; \
	done; cat .test/versions; exit $$failed

core: $(VENV)/.ready ## Test the protocol's rules, with full branch coverage
	$(VENV)/bin/python -m pytest -q tests/unit/protocol --cov=airflow_provider_aixplain.protocol --cov-branch \
	  --cov-report=term:skip-covered --cov-fail-under=100

oldest: .venv/oldest/.ready ## Test with the oldest Airflow and packages that pyproject.toml permits
	AIRFLOW_HOME=$(CURDIR)/.test/home-oldest .venv/oldest/bin/python -m pytest -q \
	  $(addprefix tests/unit/,transport inputs emulator)

common-ai: $(COMMON_AI)/.ready ## Test the hook for the provider common.ai
	AIRFLOW_HOME=$(CURDIR)/.test/home-common-ai $(COMMON_AI)/bin/python -m pytest -q tests/common_ai

# Without these programs, the tests that need them are skipped.
programs: $(VENV)/.ready
	@$(VENV)/bin/python -m tests.support.services chromium prometheus

FAULTS := tests/airflow/test_faults.py tests/airflow/test_killed_triggers.py
test-faults: $(VENV)/.ready ## Kill processes, on PostgreSQL, two triggerers and Celery: about 45 minutes
	$(VENV)/bin/python -m tests.support.services --required postgres redis-server
	AIRFLOW_HOME=$(CURDIR)/.test/home-faults $(VENV)/bin/python -m pytest -m faults -s $(FAULTS) $(PYTEST_ARGS)

# Each table is also a JSON file in .bench. python -m tests.benchmarks.NAME runs one benchmark.
bench: $(BENCH)/.ready ## Run the benchmarks, with other providers for comparison: about two hours
	$(BENCH)/bin/python -m tests.support.services --required postgres redis-server
	AIRFLOW_HOME=$(CURDIR)/.bench/home $(BENCH)/bin/python -m tests.benchmarks

release: $(RELEASE)/.ready ## Build and check what is uploaded for a release, in .release/: a few minutes
	$(RELEASE)/bin/python -m tests.release

# Airflow has to find the provider in an empty environment with the wheel alone.
.test/wheel: $(SOURCES) $(VENV)/.ready constraints/airflow-3.3.2.txt
	rm -rf .test/dist .test/empty && mkdir -p .test
	$(VENV)/bin/python -m build --no-isolation --outdir .test/dist .
	$(PYTHON) -m venv .test/empty
	.test/empty/bin/python -m $(PIP) -c constraints/airflow-3.3.2.txt .test/dist/*.whl
	cd .test && AIRFLOW_HOME=$(CURDIR)/.test/home-wheel empty/bin/airflow providers get airflow-provider-aixplain --full
	touch $@

# An environment for each Airflow, created again when its constraints or pyproject.toml change.
$(ENVS)/airflow-%/.ready: constraints/airflow-%.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 10) <= v < (3, 14) else \
	"Python 3.10 to 3.13 is needed, this is %d.%d: name one with make PYTHON=python3.12" % v[:2])'
	@echo "Installing Airflow $* into $(@D): a minute or two"
	@$(call install,'apache-airflow==$*' -e '.[$(subst $(space),$(comma),$(or $(EXTRAS-$*),emulator))]' \
	  $(or $(GROUPS-$*:%=--group %),$(TOOLS)))

# Modules are not compiled when they are installed, as most are never imported.
PIP := pip install -q --disable-pip-version-check --no-compile
# Dependency groups need pip 25.1.
install = rm -rf $(@D) && $(PYTHON) -m venv $(@D) && $(@D)/bin/python -m $(PIP) 'pip>=25.1' && \
  $(@D)/bin/python -m $(PIP) -c $< $(1) && touch $@
comma := ,
space := $(subst ,, )

.venv/oldest/.ready: constraints/oldest.txt pyproject.toml
	@echo "Installing the oldest Airflow and packages that are supported into $(@D): a minute"
	@$(call install,apache-airflow -e '.[emulator$(comma)parquet]' $(TOOLS) pytest-mock)

$(BENCH)/.ready: constraints/bench.txt pyproject.toml
	@echo "Installing Airflow 3.3.2 and other providers into $(@D): two minutes"
	@$(call install,apache-airflow==3.3.2 -e '.[emulator$(comma)parquet$(comma)s3]' --group bench)

# The platform's own client, which the parity tests compare with: in its own environment, never a dependency.
$(PEER)/.ready: constraints/aixplain-0.2.48.txt
	@echo "Installing aixplain 0.2.48 into $(@D), to compare with: a minute"
	@$(call install,aixplain==0.2.48)

# common.ai needs packages that are newer than those for Python 3.10: in its own environment.
$(COMMON_AI)/.ready: constraints/common-ai.txt pyproject.toml
	@echo "Installing Airflow 3.3.2 and its provider common.ai into $(@D): a minute"
	@$(call install,apache-airflow==3.3.2 -e '.[common-ai$(comma)emulator]' $(TOOLS))

# These packages, too, need newer ones than Airflow's tests on Python 3.10.
$(DOCS)/.ready: constraints/docs.txt pyproject.toml
	@echo "Installing Airflow 3.3.2 and Sphinx into $(@D): a minute"
	@$(call install,apache-airflow==3.3.2 -e '.[emulator]' --group docs)

$(RELEASE)/.ready: constraints/release.txt pyproject.toml
	@$(call install,--group release)

# One file for all versions of Python: its packages support the oldest one.
constraints: $(VERSIONS:%=constraints-%) ## Update the pinned versions of all packages
	echo aixplain==0.2.48 | $(COMPILE) - -o constraints/aixplain-0.2.48.txt
	echo apache-airflow==3.3.2 | $(COMPILE) --extra emulator --extra parquet --extra s3 --group bench pyproject.toml - \
	  -c constraints/airflow-3.3.2.txt -o constraints/bench.txt
	$(COMPILE) --group release -o constraints/release.txt
	printf '%s\n' 'hypothesis>=6.131.0' 'pytest>=8.3.5' 'pytest-mock>=3.14.0' 'pytest-timeout>=2.3.1' | \
	  $(COMPILE) --resolution lowest-direct --exclude-newer 2025-05-21 --extra emulator --extra parquet --extra s3 \
	  --extra gcs --extra azure pyproject.toml - -o constraints/oldest.txt
	printf '%s\n' apache-airflow==3.3.2 $(TOOLS) | $(COMPILE:3.10=3.11) --extra common-ai --extra emulator \
	  pyproject.toml - -o constraints/common-ai.txt
	echo apache-airflow==3.3.2 | $(COMPILE:3.10=3.11) --extra emulator --group docs \
	  pyproject.toml - -o constraints/docs.txt

# Extras that no test installs are pinned too.
UNTESTED-3.3.2 := gcs azure
constraints-%: $(VENV)/.ready
	$(VENV)/bin/python -m pip install -q uv
	printf '%s\n' apache-airflow==$* $(if $(DATE-$*),$(TOOLS)) | $(COMPILE) $(DATE-$*:%=--exclude-newer %) \
	  $(addprefix --extra ,$(or $(EXTRAS-$*),emulator) $(UNTESTED-$*)) $(GROUPS-$*:%=--group %) pyproject.toml - \
	  -o constraints/airflow-$*.txt

COMPILE = $(VENV)/bin/uv pip compile -q --upgrade --no-header --no-annotate --python-version 3.10

clean: stop ## Remove everything that these targets created
	rm -rf .venv .test .demo .bench .release build dist ui/node_modules ui/.test .mypy_cache .pytest_cache .ruff_cache .hypothesis
