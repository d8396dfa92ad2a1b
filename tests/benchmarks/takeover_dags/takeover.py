"""As many mapped runs as wanted."""

from __future__ import annotations

import os

import pendulum
from airflow.sdk import DAG

from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator

with DAG("takeover", start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), schedule=None):
    AixplainRunModelOperator.partial(task_id="run", model_id="echo").expand(
        data=[str(run) for run in range(int(os.environ["BENCH_RUNS"]))]
    )
