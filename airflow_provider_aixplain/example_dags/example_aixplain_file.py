"""Upload a file as input: the model receives a link to it."""

from __future__ import annotations

from pathlib import Path

import pendulum
from airflow.sdk import dag

from airflow_provider_aixplain.files import Upload
from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator

FOLDER = Path(__file__).parent / "data"


@dag(
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    schedule=None,
    params={"model_id": "language"},
    tags=["example", "aixplain"],
)
def example_aixplain_file():
    AixplainRunModelOperator(
        task_id="analyse",
        model_id="{{ params.model_id }}",
        # For a file in a bucket: Upload("s3://aws_default@bucket/{{ ds }}/call.wav")
        data={"text": Upload(f"file://{FOLDER}/reviews.txt")},
    )


example_aixplain_file()
