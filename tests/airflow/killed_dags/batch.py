"""A batch whose triggerer is killed."""

from __future__ import annotations

import pendulum
from airflow.providers.common.compat.sdk import dag

from airflow_provider_aixplain.operators.batch import AixplainBatchRunOperator

ROWS = 200


@dag(start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), schedule=None, params={"result_path": ""})
def batch():
    AixplainBatchRunOperator(
        task_id="batch",
        model_id="echo",
        input=[f"{{{{ params.result_path }}}} {number}" for number in range(ROWS)],
        parameters={"delay": 3},
        result_path="{{ params.result_path }}",
        max_in_flight=40,
    )


batch()
