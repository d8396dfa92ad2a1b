"""Run a model on each row of a file in one task, and count the results."""

from __future__ import annotations

from pathlib import Path

import pendulum
from airflow.sdk import ObjectStoragePath, dag, task

from airflow_provider_aixplain.operators.batch import AixplainBatchRunOperator

REVIEWS = Path(__file__).parent / "data" / "reviews.csv"


@dag(
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    schedule=None,
    params={"result_path": "file:///tmp/example_aixplain_batch"},
    tags=["example", "aixplain"],
)
def example_aixplain_batch():
    analyse = AixplainBatchRunOperator(
        task_id="analyse",
        model_id="sentiment",
        input=f"file://{REVIEWS}",
        key="id",
        data="review",
        result_path="{{ params.result_path }}/{{ run_id | replace(':', '-') }}",
        max_in_flight=50,
        fail_on=0.1,
    )

    @task
    def count(manifest):
        import json
        from collections import Counter

        results = ObjectStoragePath(manifest["path"]).read_text().splitlines()
        counted = Counter(json.loads(line)["data"] for line in results)
        print(f"{manifest['rows']} reviews for {manifest['credits']} credits: {dict(counted)}")
        return dict(counted)

    count(analyse.output)


example_aixplain_batch()
