"""Submit a run without waiting for it: the task finishes at once and returns the poll URL."""

from __future__ import annotations

import pendulum
from airflow.sdk import dag, task

from airflow_provider_aixplain.hooks.aixplain import AixplainHook
from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator


@dag(
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    schedule=None,
    params={"model_id": "language", "text": "Le service après-vente a répondu en dix minutes."},
    tags=["example", "aixplain"],
)
def example_aixplain_submit():
    submit = AixplainRunModelOperator(
        task_id="submit",
        model_id="{{ params.model_id }}",
        data={"data": "{{ params.text }}"},
        wait_for_completion=False,
    )

    @task
    def look(poll_url):
        response = AixplainHook().poll(poll_url)
        print(f"The run at {poll_url} is {response.status}.")
        return response.to_dict()

    look(submit.output["url"])


example_aixplain_submit()
