"""Run a model on each line of a file with dynamic task mapping, and count the answers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pendulum
from airflow.sdk import dag, task

from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator

REVIEWS = Path(__file__).parent / "data" / "reviews.txt"


@dag(
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    schedule=None,
    params={"model_id": "sentiment"},
    tags=["example", "aixplain"],
)
def example_aixplain_mapped():
    @task
    def read():
        # A dict is sent unchanged. A bare string that contains JSON, such as 5 or null, would be parsed.
        return [{"data": line} for line in REVIEWS.read_text(encoding="utf-8").splitlines()]

    analyse = AixplainRunModelOperator.partial(task_id="analyse", model_id="{{ params.model_id }}").expand(data=read())

    @task
    def count(responses):
        return dict(Counter(str(response["data"]) for response in responses))

    count(analyse.output)


example_aixplain_mapped()
