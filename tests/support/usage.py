"""Usage records in Airflow's database, for tests and benchmarks of the page aiXplain."""

from __future__ import annotations

import json
import uuid
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import insert
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session

from airflow_provider_aixplain import compat

NOON = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)


def make_usage(credits: str = "0.5", **fields: Any) -> dict[str, Any]:
    """Return a usage record of one successful run of a model."""
    asset = {} if "agent_id" in fields else {"model_id": "sentiment"}
    return {**asset, "page": "https://h/sentiment", "runs": {"success": 1}, "credits": credits, "tokens": 10, **fields}


def add_dags(engine: Engine, *dag_ids: str) -> None:
    """Add DAGs to a database, without files."""
    from airflow.models.dag import DagModel
    from airflow.models.dagbundle import DagBundleModel

    compat.table("dag")  # all models, which refer to each other
    with Session(engine) as session:
        session.add(DagBundleModel(name="tests"))
        session.flush()
        session.add_all(DagModel(dag_id=dag_id, bundle_name="tests", fileloc=f"{dag_id}.py") for dag_id in dag_ids)
        session.commit()


class Database:
    """Rows of DAG runs, their task instances and usage records."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._dag_runs = 0

    def add_run(
        self, dag_id: str = "dag", run_after: datetime = NOON, updated_at: datetime | None = None
    ) -> tuple[int, str, str]:
        """Add a DAG run, and return its number, its DAG and its id."""
        self._dag_runs += 1
        identity = self._dag_runs, dag_id, f"run_{self._dag_runs}"
        values = dict(zip(("id", "dag_id", "run_id"), identity, strict=True))
        times = {"run_after": run_after, "updated_at": updated_at or run_after}
        self._insert("dag_run", run_type="manual", state="success", **values, **times)
        return identity

    def add_task(
        self,
        run: tuple[int, str, str],
        xcom: Any = None,
        stored: Any = None,
        task_id: str = "run",
        map_index: int = -1,
        state: str = "success",
    ) -> None:
        """Add a task instance of a DAG run.

        :param xcom: the record in its XCom; default: none.
        :param stored: the record in the task state store; default: none.
        """
        number, dag_id, run_id = run
        identity = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": map_index}
        self._insert("task_instance", id=uuid.uuid4(), state=state, pool="default_pool", pool_slots=1, **identity)
        if xcom is not None:
            self._insert("xcom", dag_run_id=number, key="aixplain_usage", value=xcom, **identity)
        if stored is not None:
            text = stored if isinstance(stored, str) else json.dumps({"poll_url": "https://h/1", "usage": stored})
            self._insert("task_state_store", dag_run_id=number, key="aixplain_submission", value=text, **identity)

    def add(self, dag_id: str = "dag", xcom: Any = None, run_after: datetime = NOON, **fields: Any) -> None:
        """Add a DAG run with one task instance."""
        self.add_task(self.add_run(dag_id, run_after), xcom, **fields)

    def _insert(self, name: str, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(insert(compat.table(name)).values(**values))
