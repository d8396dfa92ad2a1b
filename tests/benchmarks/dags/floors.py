"""As many mapped waits of Airflow's own operators, as a lower bound. Their DAG file does not import the provider."""

from __future__ import annotations

import os
from typing import Any

import pendulum
from airflow.providers.standard.sensors.date_time import DateTimeSensor, DateTimeSensorAsync
from airflow.sdk import DAG

RUNS = int(os.environ["BENCH_RUNS"])
BLOCKING = int(os.environ["BENCH_BLOCKING"])
SECONDS = float(os.environ["BENCH_SECONDS"])
IN_TIME = f"{{{{ macros.datetime.utcnow() + macros.timedelta(seconds={SECONDS}) }}}}"
ARGUMENTS = {"start_date": pendulum.datetime(2026, 1, 1, tz="UTC"), "schedule": None, "max_active_tasks": RUNS}


class FloorWithFields(DateTimeSensorAsync):
    """Waits, and then returns as many fields as are not empty in the response of the model ``echo``."""

    def execute_complete(self, context: Any, event: Any = None) -> dict[str, Any]:
        super().execute_complete(context, event)
        return {f"field_{number}": "a value" for number in range(9)}


with DAG("floor_blocking", **ARGUMENTS):
    DateTimeSensor.partial(task_id="run", poke_interval=1).expand(target_time=[IN_TIME] * BLOCKING)

with DAG("floor_deferred", **ARGUMENTS):
    DateTimeSensorAsync.partial(task_id="run").expand(target_time=[IN_TIME] * RUNS)

with DAG("floor_with_fields", **ARGUMENTS):
    FloorWithFields.partial(task_id="run", multiple_outputs=True).expand(target_time=[IN_TIME] * RUNS)

with DAG("floor_ended_by_triggers", **ARGUMENTS):
    DateTimeSensorAsync.partial(task_id="run", end_from_trigger=True).expand(target_time=[IN_TIME] * RUNS)
