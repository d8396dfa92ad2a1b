"""Compute the input of a run in a Python function with ``@task.aixplain``."""

from __future__ import annotations

import pendulum
from airflow.sdk import dag, task


@dag(start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), schedule=None, tags=["example", "aixplain"])
def example_aixplain_decorator():
    @task
    def read():
        return ["The lamp is wonderful.", "The lamp is broken, and nobody answers."]

    @task.aixplain(model_id="sentiment")
    def analyse(text):
        return {"data": text.removesuffix("."), "parameters": {"lang": "en"}}

    @task
    def count(responses):
        return sorted(response["data"] for response in responses)

    count(analyse.expand(text=read()))


example_aixplain_decorator()
