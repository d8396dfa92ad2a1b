"""Let a person approve the answer of an agent before the next task uses it (Airflow 3.1 and later)."""

from __future__ import annotations

import pendulum
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import dag, task

from airflow_provider_aixplain.operators.aixplain import AixplainRunAgentOperator


@dag(
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    schedule=None,
    params={"agent_id": "review-analyst", "review": "Fantastic value, friendly staff and a great warranty."},
    tags=["example", "aixplain"],
)
def example_aixplain_approval():
    ask = AixplainRunAgentOperator(
        task_id="ask",
        agent_id="{{ params.agent_id }}",
        query="{{ params.review }}",
    )
    # The answer is shown under "Required Actions" of the DAG run. A rejection skips the next task.
    approve = ApprovalOperator(
        task_id="approve",
        subject="Publish this answer of the agent?",
        body=ask.output["output"],
    )

    @task
    def publish(output):
        print(f"Published: {output}")
        return output

    approve >> publish(ask.output["output"])


example_aixplain_approval()
