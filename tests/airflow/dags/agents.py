"""Tasks that run agents: in each mode, with large answers, ended early, killed and cleared."""

from __future__ import annotations

import os
import signal
from datetime import timedelta

import pendulum
from airflow.sdk import dag, get_current_context, task
from pydantic import BaseModel

from airflow_provider_aixplain import compat
from airflow_provider_aixplain.operators.aixplain import AixplainRunAgentOperator
from airflow_provider_aixplain.sensors.aixplain import AixplainModelRunSensor

REVIEWS = "What a wonderful lamp!\nThe lamp is broken, and nobody answers."
LARGE = 5_000_000


class Rating(BaseModel):
    rating: int


class KilledBeforeTheDeferral(AixplainRunAgentOperator):
    def defer(self, **kwargs):
        if get_current_context()["ti"].try_number == 1:
            if compat.is_at_least(3, 0) and not compat.is_at_least(3, 1):
                raise RuntimeError("Airflow 3.0 does not retry a task whose process was killed")
            os.kill(os.getpid(), signal.SIGKILL)
        super().defer(**kwargs)


def echo(task_id, kind=AixplainRunAgentOperator, variables=None, **arguments):
    return kind(task_id=task_id, agent_id="echo-agent", query=task_id, variables=variables, **arguments)


@dag(start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), schedule=None)
def agents():
    first = AixplainRunAgentOperator(task_id="first", agent_id="review-analyst", query=REVIEWS)
    AixplainRunAgentOperator(
        task_id="second", agent_id="review-analyst", query="It is fine.", session_id=first.output["session_id"]
    )
    echo("on_its_worker", deferrable=False)
    submitted = echo("submitted", wait_for_completion=False)
    AixplainModelRunSensor(task_id="sensor", poll_url=submitted.output["url"], agent_id="echo-agent")
    AixplainRunAgentOperator(
        task_id="over_budget", agent_id="review-analyst", query=REVIEWS, budget={"max_iterations": 3}
    )
    echo("aborted", variables={"outcome": "aborted"})
    echo("large", variables={"steps_bytes": LARGE}, multiple_outputs=False)
    echo("growing", variables={"progress_bytes": LARGE, "delay": 15}, multiple_outputs=False)
    echo("killed", KilledBeforeTheDeferral, retries=5, retry_delay=timedelta(seconds=1))

    AixplainRunAgentOperator.partial(task_id="validated", agent_id="echo-agent", expected_output=Rating).expand(
        query=['{"rating": 1}', '{"rating": 2}']
    )

    @task.aixplain_agent(agent_id="echo-agent")
    def decorated():
        return {"query": "decorated", "variables": {"steps": 2}}

    decorated()


agents()
