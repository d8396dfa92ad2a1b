"""Run an agent, which rates reviews in several steps, and use its answer and cost in the next task."""

from __future__ import annotations

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_aixplain.operators.aixplain import AixplainRunAgentOperator

REVIEWS = """\
The espresso machine heats up in seconds and the coffee is wonderful.
I waited three weeks for the parcel, and it arrived broken. Never again.
Das Paket kam nach drei Tagen bei mir an.
Le service après-vente a répondu en dix minutes."""


@dag(
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    schedule=None,
    params={"agent_id": "review-analyst", "reviews": Param(REVIEWS, type="string", format="multiline")},
    tags=["example", "aixplain"],
)
def example_aixplain_agent():
    ask = AixplainRunAgentOperator(
        task_id="ask",
        agent_id="{{ params.agent_id }}",
        query="{{ params.reviews }}",
        budget={"max_cost": 1, "max_duration_seconds": 600},  # an agent decides itself how many steps it makes
    )

    @task
    def report(output, used_credits):
        print(f"The agent answered {output!r}, for {used_credits} credits.")
        return {"output": output, "used_credits": used_credits}

    report(output=ask.output["output"], used_credits=ask.output["used_credits"])


example_aixplain_agent()
