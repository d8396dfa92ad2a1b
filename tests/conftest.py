"""Fixtures of all tests: an emulator and a Connection to it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.support.certificate import write_certificate
from tests.support.deployment import Emulator, Processes

# No deadlines, as timings belong in benchmarks. CI tries the same examples each time, so it does not depend on luck.
hypothesis.settings.register_profile("project", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("project")

# Airflow's examples have a listener, with which no trigger may finish a task.
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"

# A test run that is terminated, for example by CI's time limit, also stops what it started.
signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator whose runs take 0.5 s."""
    home: Path = tmp_path_factory.mktemp("emulator")
    with Processes(home) as processes:
        yield Emulator(processes, seconds=0.5)


@pytest.fixture
def connection(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The fields of the Connection ``aixplain_default``, which is set in the environment."""
    monkeypatch.setenv("AIRFLOW_CONN_AIXPLAIN_DEFAULT", emulator.connection)
    fields: dict[str, object] = json.loads(emulator.connection)
    return fields


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a certificate for 127.0.0.1 and localhost, and its key."""
    return write_certificate(tmp_path_factory.mktemp("tls") / "server.pem")
