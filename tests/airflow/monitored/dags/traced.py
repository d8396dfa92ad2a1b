"""Tasks whose lineage, asset events and links are checked, and runs that a pool limits."""

from __future__ import annotations

import os
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG, Asset

from airflow_provider_aixplain.files import Upload
from airflow_provider_aixplain.operators.aixplain import AixplainRunAgentOperator, AixplainRunModelOperator
from airflow_provider_aixplain.operators.batch import AixplainBatchRunOperator

ROWS = f"file://{Path(__file__).parent}/rows.jsonl"
OUT = f"file://{os.environ['AIRFLOW_HOME']}/traced"

with DAG("traced", schedule=None):
    AixplainBatchRunOperator(
        task_id="batch",
        model_id="echo",
        input=ROWS,
        data="text",
        result_path=f"{OUT}/batch",
        outlets=[Asset(uri="file:///traced/results")],
    )
    AixplainBatchRunOperator(
        task_id="failed_batch", model_id="fail", input=ROWS, data="text", result_path=f"{OUT}/failed"
    )
    AixplainRunAgentOperator(
        task_id="agent",
        agent_id="echo-agent",
        query="traced",
        attachments=[Upload(ROWS)],
        artifacts_path=f"{OUT}/artifacts",
        outlets=[Asset(uri="file:///traced/answer")],
    )
    limited = AixplainRunModelOperator.partial(
        task_id="pooled", model_id="echo", parameters={"delay": 8}, pool="two_runs"
    )
    limited.expand(data=[f"pooled {number}" for number in range(4)])
