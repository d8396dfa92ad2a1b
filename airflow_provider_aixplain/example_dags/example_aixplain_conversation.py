"""Continue a conversation: the session of an agent's first run is sent with the second one, which knows the first."""

from __future__ import annotations

import pendulum
from airflow.sdk import dag, task

from airflow_provider_aixplain.operators.aixplain import AixplainRunAgentOperator


@dag(
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    schedule=None,
    params={"agent_id": "review-analyst"},
    tags=["example", "aixplain"],
)
def example_aixplain_conversation():
    first = AixplainRunAgentOperator(
        task_id="first",
        agent_id="{{ params.agent_id }}",
        query="Best keyboard I have ever owned, and it is quiet too.",
    )
    second = AixplainRunAgentOperator(
        task_id="second",
        agent_id="{{ params.agent_id }}",
        query="The hinge squeaks, the paint peels off and the drawer is stuck. Terrible.",
        session_id=first.output["session_id"],
    )

    @task
    def report(output):
        print(f"With both reviews in mind, the agent answered {output!r}.")
        return output

    report(second.output["output"])


example_aixplain_conversation()
