"""Tasks whose links are checked while they run, wait and are retried."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator

with DAG("linked", schedule=None):
    AixplainRunModelOperator(task_id="running", model_id="echo", data="a", parameters={"delay": 15}, deferrable=False)
    AixplainRunModelOperator(task_id="deferred", model_id="echo", data="a", parameters={"delay": 15})
    AixplainRunModelOperator(task_id="failed", model_id="fail", data="a", retries=1, retry_delay=timedelta(seconds=1))

    @task.aixplain(model_id="echo")
    def decorated(text: str) -> str:
        return text

    decorated.expand(text=["one", "two"])  # type: ignore[attr-defined]
