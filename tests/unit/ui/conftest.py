"""The page's tests: they need Airflow 3.1 or later."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from airflow_provider_aixplain import compat
from tests.support.deployment import AIRFLOW_3
from tests.support.usage import Database

if not AIRFLOW_3:
    collect_ignore = ["test_usage.py", "test_query.py", "test_days.py", "test_api.py"]


@pytest.fixture
def database() -> Database:
    """A database with Airflow's tables for task instances."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    for name in ("log_template", "dag_run", "task_instance", "xcom", "task_state_store"):
        compat.table(name).create(engine)
    return Database(engine)


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with Session(database.engine) as one:
        yield one
