"""Run a model as a deferrable task, and use its output and cost in the next task."""

from __future__ import annotations

import pendulum
from airflow.sdk import dag, task

from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator


@dag(
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    schedule=None,
    params={"model_id": "sentiment", "text": "The espresso machine heats up in seconds and the coffee is wonderful."},
    tags=["example", "aixplain"],
)
def example_aixplain_run():
    analyse = AixplainRunModelOperator(
        task_id="analyse",
        model_id="{{ params.model_id }}",
        data={"data": "{{ params.text }}"},
    )

    @task
    def report(data, used_credits):
        print(f"The model answered {data!r}, for {used_credits} credits.")
        return {"data": data, "used_credits": used_credits}

    report(data=analyse.output["data"], used_credits=analyse.output["used_credits"])


example_aixplain_run()
