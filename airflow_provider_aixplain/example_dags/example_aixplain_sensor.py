"""Submit a run in one task, and wait for it in a sensor."""

from __future__ import annotations

import pendulum
from airflow.sdk import dag, task

from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator
from airflow_provider_aixplain.sensors.aixplain import AixplainModelRunSensor


@dag(
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    schedule=None,
    params={"model_id": "language", "text": "Die Uhr geht jeden Tag zehn Minuten vor."},
    tags=["example", "aixplain"],
)
def example_aixplain_sensor():
    submit = AixplainRunModelOperator(
        task_id="submit",
        model_id="{{ params.model_id }}",
        data={"data": "{{ params.text }}"},
        wait_for_completion=False,
    )
    wait = AixplainModelRunSensor(
        task_id="wait",
        poll_url=submit.output["url"],
        model_id="{{ params.model_id }}",
        timeout=3600,
    )

    @task
    def report(data):
        print(f"The text is written in {data!r}.")
        return data

    report(wait.output["data"])


example_aixplain_sensor()
