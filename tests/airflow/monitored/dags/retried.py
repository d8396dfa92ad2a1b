"""Runs that fail, and retry policies that decide about retries (Airflow 3.3 and later)."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator
from airflow_provider_aixplain.retries import AixplainRetryPolicy

with DAG("retried", schedule=None, default_args={"retries": 1, "retry_delay": timedelta(hours=9)}):
    AixplainRunModelOperator(
        task_id="fails_once", model_id="fail", data="a", retry_policy=AixplainRetryPolicy({"run failed": "fail"})
    )
    AixplainRunModelOperator(
        task_id="fails_twice", model_id="fail", data="a", retry_policy=AixplainRetryPolicy({"run failed": "now"})
    )
