"""Fixtures of unit tests: where batches store their files, how their inputs differ, and the log of tasks."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deployment import Processes
from tests.support.kinds import AGENT, MODEL, Kind
from tests.support.services import ATTACH, ObjectStore
from tests.support.task_log import NAME, TaskLog

_numbers = itertools.count()


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of a bucket. Its scheme is registered in this process; others execute ``ATTACH``."""
    pytest.importorskip(
        "moto", reason="in the dependency group faults, which only the environment of Airflow 3.3.2 has"
    )
    with Processes(tmp_path_factory.mktemp("objects")) as processes, pytest.MonkeyPatch.context() as patch:
        store = ObjectStore(processes)
        for name, value in store.env.items():
            patch.setenv(name, value)
        exec(ATTACH, {})
        yield f"s3://{store.bucket}"


@pytest.fixture(params=["file", "objects"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of an unused folder."""
    if request.param == "file":
        return f"file://{tmp_path}/out"
    return f"{request.getfixturevalue('objects')}/{next(_numbers)}"


@pytest.fixture(params=[MODEL, AGENT], ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Models, and agents."""
    chosen: Kind = request.param
    return chosen


@pytest.fixture
def tag() -> str:
    """The prefix of the inputs of one test, as all tests share one emulator. It is no part of another one's."""
    return f"tag-{next(_numbers):04}-{os.getpid()}"


@pytest.fixture
def task_log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> TaskLog:
    """The log of the tasks in this test, in Python's logging instead of Airflow 3's structlog."""
    from airflow_provider_aixplain.operators.batch import AixplainBatchRunOperator
    from airflow_provider_aixplain.operators.run import RunBaseOperator
    from airflow_provider_aixplain.triggers.aixplain import AixplainModelRunTrigger
    from airflow_provider_aixplain.triggers.batch import AixplainBatchTrigger

    for kind in (RunBaseOperator, AixplainBatchRunOperator, AixplainModelRunTrigger, AixplainBatchTrigger):
        monkeypatch.setattr(kind, "log", logging.getLogger(NAME))
    caplog.set_level(logging.DEBUG, NAME)
    return TaskLog(caplog)
