"""As many waits that triggers of Airflow start, as a lower bound."""

from __future__ import annotations

import os
from datetime import timedelta

import pendulum
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator
from airflow.triggers.base import StartTriggerArgs

RUNS = int(os.environ["BENCH_RUNS"])


class Floor(BaseOperator):
    """A trigger of Airflow starts and finishes it, which DateTimeSensorAsync does not support."""

    start_from_trigger = True
    start_trigger_args = StartTriggerArgs(
        trigger_cls=f"{TimeDeltaTrigger.__module__}.{TimeDeltaTrigger.__qualname__}",
        trigger_kwargs={"delta": timedelta(seconds=float(os.environ["BENCH_SECONDS"])), "end_from_trigger": True},
        next_method="execute",
    )


with DAG(
    "floor_started_by_triggers",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    schedule=None,
    max_active_tasks=RUNS,
):
    for number in range(RUNS):
        Floor(task_id=f"run_{number}")
