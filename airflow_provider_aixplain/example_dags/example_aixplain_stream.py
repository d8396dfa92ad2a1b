"""Write the model's text to the task's log while the model generates it, and return the whole text."""

from __future__ import annotations

import pendulum
from airflow.sdk import dag

from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator


@dag(
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    schedule=None,
    params={"model_id": "echo", "text": "The quick brown fox jumps over the lazy dog, and the dog does not mind."},
    tags=["example", "aixplain"],
)
def example_aixplain_stream():
    AixplainRunModelOperator(
        task_id="write",
        model_id="{{ params.model_id }}",
        data={"data": "{{ params.text }}"},
        stream=True,
    )


example_aixplain_stream()
