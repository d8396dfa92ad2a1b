"""A file as input: an ``ObjectStoragePath`` is uploaded, and the model gets a link to it."""

from __future__ import annotations

from pathlib import Path

import pendulum
from airflow.providers.common.compat.sdk import ObjectStoragePath, dag

from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator

FOLDER = Path(__file__).parent / "data"


@dag(
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    schedule=None,
    params={"model_id": "language", "file": "reviews.txt"},
    tags=["aixplain"],
)
def example_aixplain_file():
    AixplainRunModelOperator(
        task_id="analyse",
        model_id="{{ params.model_id }}",
        # In a bucket: ObjectStoragePath("s3://aws_default@bucket/{{ ds }}/call.wav")
        data={"text": ObjectStoragePath(f"file://{FOLDER}/{{{{ params.file }}}}")},
    )


example_aixplain_file()
