"""The same mapped runs in all modes. The lower bounds are in ``floors.py``."""

from __future__ import annotations

import os
from typing import Any

import pendulum
from airflow.sdk import dag

from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator

RUNS = int(os.environ["BENCH_RUNS"])
BLOCKING = int(os.environ["BENCH_BLOCKING"])


def way(dag_id: str, tasks: Any) -> None:
    """Define a DAG. ``tasks`` is called to define its tasks."""

    @dag(dag_id=dag_id, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), schedule=None, max_active_tasks=RUNS)
    def runs():
        tasks()

    runs()


def mapped(count: int, **arguments: Any) -> Any:
    data = [f"text {number}" for number in range(count)]
    return lambda: AixplainRunModelOperator.partial(task_id="run", model_id="echo", **arguments).expand(data=data)


way("warm_up", mapped(1, end_from_trigger=True, parameters={"delay": 0}))
way("learn", mapped(8, polling="adaptive"))
way("deferred", mapped(RUNS))
way("deferred_whole", mapped(RUNS, multiple_outputs=False))
way("deferred_adaptive", mapped(RUNS, polling="adaptive"))
way("ended_by_triggers", mapped(RUNS, end_from_trigger=True))
way("ended_by_triggers_whole", mapped(RUNS, multiple_outputs=False, end_from_trigger=True))
way("blocking", mapped(BLOCKING, deferrable=False))
