"""Runs that triggers start, which cannot be mapped. In their own file, as it takes long to parse."""

from __future__ import annotations

import os
from typing import Any

import pendulum
from airflow.sdk import DAG

from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator

RUNS = int(os.environ["BENCH_RUNS"])
WAYS: dict[str, dict[str, Any]] = {
    "started_by_triggers": {},
    "started_by_triggers_adaptive": {"polling": "adaptive"},
    "started_by_triggers_whole": {"multiple_outputs": False},
}

for dag_id, arguments in WAYS.items():
    with DAG(dag_id, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), schedule=None, max_active_tasks=RUNS):
        for number in range(RUNS):
            AixplainRunModelOperator(
                task_id=f"run_{number}",
                model_id="echo",
                data=f"text {number}",
                start_from_trigger=True,
                end_from_trigger=True,
                **arguments,
            )
