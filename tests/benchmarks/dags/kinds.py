"""An agent and a batch."""

from __future__ import annotations

import os

import pendulum
from airflow.sdk import DAG

from airflow_provider_aixplain.operators.aixplain import AixplainRunAgentOperator
from airflow_provider_aixplain.operators.batch import AixplainBatchRunOperator

ARGUMENTS = {"start_date": pendulum.datetime(2026, 1, 1, tz="UTC"), "schedule": None}

with DAG("agent", **ARGUMENTS):
    AixplainRunAgentOperator(task_id="run", agent_id="echo-agent", query="text")

with DAG("batch", **ARGUMENTS):
    AixplainBatchRunOperator(
        task_id="run",
        model_id="echo",
        input=[f"row {number}" for number in range(100)],
        result_path=f"file://{os.environ['AIRFLOW_HOME']}/results/{{{{ run_id }}}}",
    )
