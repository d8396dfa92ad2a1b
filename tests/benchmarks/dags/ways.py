"""The same runs in all modes, and as a lower bound as many waits of Airflow's own operators."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import pendulum
from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import BaseOperator, dag
from airflow.triggers.base import StartTriggerArgs

from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator
from airflow_provider_aixplain.protocol.response import FIELDS

RUNS = int(os.environ["BENCH_RUNS"])
BLOCKING = int(os.environ["BENCH_BLOCKING"])
SECONDS = float(os.environ["BENCH_SECONDS"])
BOTH = {"start_from_trigger": True, "end_from_trigger": True}


class Floor(BaseOperator):
    """A trigger of Airflow starts and finishes it, which DateTimeSensorAsync does not support."""

    start_from_trigger = True
    start_trigger_args = StartTriggerArgs(
        trigger_cls=f"{TimeDeltaTrigger.__module__}.{TimeDeltaTrigger.__qualname__}",
        trigger_kwargs={"delta": timedelta(seconds=SECONDS), "end_from_trigger": True},
        next_method="execute",
    )


class FloorWithFields(DateTimeSensorAsync):
    """Waits, and then returns as many fields as a run has."""

    def execute_complete(self, context: Any, event: Any = None) -> dict[str, Any]:
        super().execute_complete(context, event)
        return dict.fromkeys(FIELDS, "a value")


def way(dag_id: str, tasks: Any) -> None:
    """Define a DAG. ``tasks`` is called to define its tasks."""

    @dag(dag_id=dag_id, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), schedule=None, max_active_tasks=RUNS)
    def runs():
        tasks()

    runs()


def mapped(count: int, **arguments: Any) -> Any:
    data = [f"text {number}" for number in range(count)]
    return lambda: AixplainRunModelOperator.partial(task_id="run", model_id="echo", **arguments).expand(data=data)


def separate(**arguments: Any) -> Any:
    def tasks() -> None:
        for number in range(RUNS):
            AixplainRunModelOperator(task_id=f"run_{number}", model_id="echo", data=f"text {number}", **arguments)

    return tasks


def waits(kind: Any = DateTimeSensorAsync, **arguments: Any) -> Any:
    in_time = f"{{{{ macros.datetime.utcnow() + macros.timedelta(seconds={SECONDS}) }}}}"
    return lambda: kind.partial(task_id="run", **arguments).expand(target_time=[in_time] * RUNS)


way("warm_up", mapped(1, end_from_trigger=True, parameters={"delay": 0}))
way("learn", mapped(8, polling="adaptive"))
way("deferred", mapped(RUNS))
way("deferred_whole", mapped(RUNS, multiple_outputs=False))
way("deferred_adaptive", mapped(RUNS, polling="adaptive"))
way("ended_by_triggers", mapped(RUNS, end_from_trigger=True))
way("started_by_triggers", separate(**BOTH))
way("started_by_triggers_adaptive", separate(polling="adaptive", **BOTH))
way("started_by_triggers_whole", separate(multiple_outputs=False, **BOTH))
way("ended_by_triggers_whole", mapped(RUNS, multiple_outputs=False, end_from_trigger=True))
way("blocking", mapped(BLOCKING, deferrable=False))
way("floor_deferred", waits())
way("floor_with_fields", waits(FloorWithFields, multiple_outputs=True))
way("floor_ended_by_triggers", waits(end_from_trigger=True))
way("floor_started_by_triggers", lambda: [Floor(task_id=f"run_{number}") for number in range(RUNS)])
