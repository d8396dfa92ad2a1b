# make demo   watch real texts being analysed by deferred tasks in a real Airflow
# make test   run every check: format, types, tests on both Airflows, the wheel
# make test-faults  kill what can die, on PostgreSQL, two triggerers and Celery, for some 35 minutes
# make bench  measure, beside peers and what Airflow needs in any case, for about an hour
# make format, make stop, make clean say what they do

PYTHON ?= python3
AIRFLOWS := 3.3.2 2.11.2
EXTRAS-3.3.2 := faults,browser
EXTRAS-2.11.2 := dev
VENV := .venv/airflow-3.3.2
PEER := .venv/aixplain-0.2.48
BENCH := .venv/bench
SOURCES := $(shell find airflow_provider_aixplain -name '*.py') pyproject.toml README.md LICENSE

.PHONY: demo test test-faults lint core oldest browser bench format stop constraints clean
.DELETE_ON_ERROR:
.SECONDARY: # an environment is no by-product to be thrown away

demo: $(VENV)/.ready
	@exec $(VENV)/bin/python -m tests.airflow.demo

stop: $(VENV)/.ready
	@$(VENV)/bin/python -m tests.airflow.demo --stop

test: lint core $(AIRFLOWS:%=test-%) oldest .test/wheel

lint: $(VENV)/.ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/.ready
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# Those in a real Airflow wait most of their time, so the others run beside them.
test-%: .venv/airflow-%/.ready $(PEER)/.ready
	$(MAKE) -j2 -O real-$* units-$*

real-%: .venv/airflow-%/.ready
	AIRFLOW_HOME=$(CURDIR)/.test/real-$* .venv/airflow-$*/bin/python -m pytest tests/airflow $(PYTEST_ARGS)

units-%: .venv/airflow-%/.ready $(PEER)/.ready
	AIRFLOW_HOME=$(CURDIR)/.test/home-$* .venv/airflow-$*/bin/python -m pytest tests/unit $(PYTEST_ARGS)

# The core's own tests reach every branch of it, with no server and no mock.
core: $(VENV)/.ready
	$(VENV)/bin/python -m pytest -q tests/unit/protocol --cov=airflow_provider_aixplain.protocol --cov-branch \
	  --cov-report=term:skip-covered --cov-fail-under=100

# What crosses a socket, with the oldest HTTP clients that pyproject.toml permits.
oldest: .venv/oldest/.ready
	PYTHONPATH=.venv/oldest AIRFLOW_HOME=$(CURDIR)/.test/home-oldest $(VENV)/bin/python -m pytest -q tests/unit/transport

# The core knows of no Airflow, and the public package speaks to the core: once is enough.
units-3.3.2: PYTEST_ARGS += tests/parity --ignore=tests/unit/protocol
# Nor do these rooms. What no trigger can start or end below Airflow 3.3, units and other tests show.
units-2.11.2: PYTEST_ARGS += $(addprefix --ignore=tests/unit/,protocol transport emulator batch test_model.py)
real-2.11.2: PYTEST_ARGS += --ignore=tests/airflow/test_by_triggers.py

# The tests in a browser need Debian's; without one they say so, and the rest runs.
real-3.3.2: browser
browser: $(VENV)/.ready
	@$(VENV)/bin/python -m tests.support.services chromium

# Each scenario prints its figures. It installs a PostgreSQL and a Redis where they are absent, and it may.
FAULTS := tests/airflow/test_faults.py tests/airflow/test_killed_triggers.py
test-faults: $(VENV)/.ready
	$(VENV)/bin/python -m tests.support.services --required postgres redis-server
	AIRFLOW_HOME=$(CURDIR)/.test/home-faults $(VENV)/bin/python -m pytest -m faults -s $(FAULTS)

# Each table is also a JSON file in .bench. python -m tests.benchmarks.NAME measures one thing alone.
bench: $(BENCH)/.ready
	$(BENCH)/bin/python -m tests.support.services --required postgres redis-server
	AIRFLOW_HOME=$(CURDIR)/.bench/home $(BENCH)/bin/python -m tests.benchmarks

# The wheel alone in an empty environment: does Airflow find the provider?
.test/wheel: $(SOURCES) $(VENV)/.ready constraints/airflow-3.3.2.txt
	rm -rf .test/dist .test/empty && mkdir -p .test
	$(VENV)/bin/python -m build --no-isolation --outdir .test/dist .
	$(PYTHON) -m venv .test/empty
	.test/empty/bin/python -m pip install -q -c constraints/airflow-3.3.2.txt .test/dist/*.whl
	cd .test && AIRFLOW_HOME=$(CURDIR)/.test/home-wheel empty/bin/airflow providers get airflow-provider-aixplain --full
	touch $@

# An environment for each Airflow, made anew when what goes into it changes.
.venv/airflow-%/.ready: constraints/airflow-%.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 10) <= v < (3, 14) else \
	"Python 3.10 to 3.13 is needed, this is %d.%d: name one with make PYTHON=python3.12" % v[:2])'
	@echo "Installing Airflow $* into $(@D): a minute or two"
	@$(call install,'apache-airflow==$*' -e '.[$(EXTRAS-$*)]')

install = rm -rf $(@D) && $(PYTHON) -m venv $(@D) && \
  $(@D)/bin/python -m pip install -q --disable-pip-version-check -c $< $(1) && touch $@

# Beside the newest ones, which they precede on the path.
.venv/oldest/.ready: pyproject.toml $(VENV)/.ready
	rm -rf $(@D) && mkdir -p $(@D)
	sed -n 's/^ *"\(aiohttp\|requests\|urllib3\)>=\([0-9.]*\).*/\1==\2/p' pyproject.toml > $(@D)/requirements.txt
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check --no-deps --target $(@D) -r $(@D)/requirements.txt
	touch $@

# Airflow 3.3.2 with the providers that the benchmarks measure beside ours.
$(BENCH)/.ready: constraints/bench.txt pyproject.toml
	@echo "Installing Airflow 3.3.2 and peers into $(@D): two minutes"
	@$(call install,apache-airflow==3.3.2 -e '.[bench]')

# The platform's own client, which the parity tests run beside ours: in an environment of its own, never a dependency.
$(PEER)/.ready: constraints/aixplain-0.2.48.txt
	@echo "Installing aixplain 0.2.48 into $(@D), to compare with: a minute"
	@$(call install,aixplain==0.2.48)

# One file for all Pythons: what the oldest supported one takes, the others take too.
constraints: $(AIRFLOWS:%=constraints-%) $(VENV)/.ready
	echo aixplain==0.2.48 | $(COMPILE) - -o constraints/aixplain-0.2.48.txt
	echo apache-airflow==3.3.2 | $(COMPILE) --extra bench pyproject.toml - -c constraints/airflow-3.3.2.txt -o constraints/bench.txt

constraints-%: $(VENV)/.ready
	$(VENV)/bin/python -m pip install -q uv
	echo apache-airflow==$* | $(COMPILE) --extra $(EXTRAS-$*) pyproject.toml - -o constraints/airflow-$*.txt

COMPILE = $(VENV)/bin/uv pip compile -q --upgrade --no-header --no-annotate --python-version 3.10

clean: stop
	rm -rf .venv .test .demo .bench dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
