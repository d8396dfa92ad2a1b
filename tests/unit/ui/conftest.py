"""The page's tests: they need Airflow 3.1 or later."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from airflow_provider_aixplain import compat
from tests.support.deployment import AIRFLOW_3
from tests.support.usage import Database

if not AIRFLOW_3:
    collect_ignore = ["test_usage.py", "test_query.py", "test_days.py", "test_api.py"]


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """A database with Airflow's tables for task instances."""
    engine = create_engine(f"sqlite:///{tmp_path}/airflow.db")
    for name in ("dag_run", "task_instance", "xcom", "task_state_store"):
        compat.table(name).create(engine)
    return Database(engine)


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with Session(database.engine) as one:
        yield one
