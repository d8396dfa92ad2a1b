"""What all tests share: an emulator to talk to, and a Connection to it."""

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

# Timings belong in benchmarks; and a landing must not hang on luck, so CI tries the same examples every time.
hypothesis.settings.register_profile("project", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("project")

# Among Airflow's examples is a listener, which every worker of theirs would have.
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"

# A test run that is asked to end, by a CI's time limit say, ends what it started too.
signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator whose runs take half a second."""
    home: Path = tmp_path_factory.mktemp("emulator")
    with Processes(home) as processes:
        yield Emulator(processes, seconds=0.5)


@pytest.fixture
def connection(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The Connection ``aixplain_default`` to the emulator, as the environment holds it."""
    monkeypatch.setenv("AIRFLOW_CONN_AIXPLAIN_DEFAULT", emulator.connection)
    fields: dict[str, object] = json.loads(emulator.connection)
    return fields


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificate of a server on this machine, and its key, in one file."""
    return write_certificate(tmp_path_factory.mktemp("tls") / "server.pem")
