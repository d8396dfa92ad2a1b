"""A task for each step at which its trigger may be killed, and many that start at once."""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.providers.common.compat.sdk import dag

from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator
from tests.support.parked import FAILS, STEPS, ParkedOperator

BOTH = {"model_id": "echo", "start_from_trigger": True, "end_from_trigger": True}
ANY_TIME = pendulum.datetime(2026, 1, 1, tz="UTC")


@dag(start_date=ANY_TIME, schedule=None)
def killed():
    for step in STEPS:
        ParkedOperator(task_id=step.replace(" ", "_"), name=step, data=step, **BOTH)
    ParkedOperator(task_id="orphan_that_fails", name=FAILS, data=FAILS, on_orphaned_submission="fail", **BOTH)


@dag(start_date=ANY_TIME, schedule=None, params={"seconds": 1})
def started():
    for index in range(60):
        AixplainRunModelOperator(
            task_id=f"run_{index}",
            data=f"input {index}",
            parameters={"delay": "{{ params.seconds }}"},
            retries=2,
            retry_delay=timedelta(seconds=1),
            **BOTH,
        )


killed()
started()
