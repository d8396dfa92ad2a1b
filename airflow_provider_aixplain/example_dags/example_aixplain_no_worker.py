"""Run a model without a worker: the trigger submits, waits and finishes the task (Airflow 3.3 and later)."""

from __future__ import annotations

import pendulum
from airflow.sdk import dag

from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator


@dag(
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    schedule=None,
    params={"text": "The espresso machine heats up in seconds and the coffee is wonderful."},
    tags=["example", "aixplain"],
)
def example_aixplain_no_worker():
    AixplainRunModelOperator(
        task_id="analyse",
        model_id="sentiment",
        data={"data": "{{ params.text }}"},
        start_from_trigger=True,
        end_from_trigger=True,
        polling="adaptive",
    )


example_aixplain_no_worker()
