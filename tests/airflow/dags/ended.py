"""Tasks that a user or Airflow stops while their runs continue, and one with a large response."""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import dag

from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator

LONG = {"model_id": "echo", "parameters": {"delay": 600}}
LARGE = 30_000_000


@dag(start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), schedule=None)
def ended():
    AixplainRunModelOperator(task_id="marked_failed", data="marked_failed", **LONG)
    AixplainRunModelOperator(task_id="marked_success", data="marked_success", **LONG)
    AixplainRunModelOperator(task_id="on_its_worker", data="on_its_worker", deferrable=False, **LONG)
    # On a busy machine it takes up to half a minute until the task has deferred and its trigger is cancelled.
    AixplainRunModelOperator(
        task_id="cleared_in_its_wait", model_id="echo", data="cleared_in_its_wait", parameters={"delay": 60}
    )
    AixplainRunModelOperator(
        task_id="execution_timeout", data="execution_timeout", execution_timeout=timedelta(seconds=5), **LONG
    )
    AixplainRunModelOperator(
        task_id="execution_timeout_on_its_worker",
        data="execution_timeout_on_its_worker",
        execution_timeout=timedelta(seconds=3),
        deferrable=False,
        **LONG,
    )


@dag(start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), schedule=None)
def large():
    text = f"{{{{ 'large ' * {LARGE // 6} }}}}"
    AixplainRunModelOperator(task_id="large", model_id="echo", data={"data": text}, multiple_outputs=False)


ended()
large()
