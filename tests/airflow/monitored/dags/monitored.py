"""The sensor, the decorator, and tasks whose metrics and lineage are checked."""

from __future__ import annotations

import os

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_aixplain.operators.aixplain import AixplainRunAgentOperator, AixplainRunModelOperator
from airflow_provider_aixplain.operators.batch import AixplainBatchRunOperator
from airflow_provider_aixplain.sensors.aixplain import AixplainModelRunSensor

with DAG("monitored", schedule=None):
    submit = AixplainRunModelOperator(
        task_id="submit", model_id="echo", data="submitted", parameters={"delay": 15}, wait_for_completion=False
    )
    wait = AixplainModelRunSensor(task_id="wait", poll_url=submit.output["url"], model_id="echo")
    again = AixplainModelRunSensor(task_id="again", poll_url="{{ ti.xcom_pull('submit')['url'] }}", deferrable=False)
    submit >> wait >> again

    @task
    def urls(url: str) -> list[str]:
        return [url, url]

    AixplainModelRunSensor.partial(task_id="mapped_wait").expand(poll_url=urls(submit.output["url"]))  # type: ignore[arg-type]

    @task.aixplain(model_id="echo")
    def decorated(text: str) -> dict[str, object]:
        return {"data": text.upper(), "parameters": {"delay": 2}}

    @task.aixplain(model_id="echo", parameters={"delay": 1})
    def mapped(text: str) -> str:
        return text

    decorated("{{ dag_run.run_id }}")
    mapped.expand(text=["one", "two"])  # type: ignore[attr-defined]

    AixplainRunModelOperator(task_id="run", model_id="sentiment", data="A wonderful lamp.")
    AixplainRunAgentOperator(task_id="agent", agent_id="echo-agent", query="A question.")
    AixplainBatchRunOperator(
        task_id="batch",
        model_id="sentiment",
        input=["A wonderful lamp.", "A late clock.", "A red door."],
        result_path=f"file://{os.environ['AIRFLOW_HOME']}/batch",
    )
    AixplainRunModelOperator(task_id="listened_to", model_id="echo", data="listener", end_from_trigger=True)
