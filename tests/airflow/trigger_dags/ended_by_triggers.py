"""Tasks that their triggers finish, and similar ones that need a worker."""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.providers.common.compat.sdk import dag, task

from airflow_provider_aixplain.operators.aixplain import AixplainRunAgentOperator, AixplainRunModelOperator

RETRIES = {"retries": 1, "retry_delay": timedelta(seconds=1)}


def succeeded(context):
    print("The callback ran for", context["ti"].task_id)


@task
def passed_on(data: str, credits: float):
    return {"data": data, "credits": credits}


@dag(start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), schedule=None)
def ended_by_triggers():
    AixplainRunModelOperator.partial(task_id="mapped", model_id="echo", end_from_trigger=True).expand(data=["a", "b"])
    fields = AixplainRunModelOperator(task_id="fields", model_id="echo", data="fields", end_from_trigger=True)
    passed_on(fields.output["data"], fields.output["used_credits"])
    AixplainRunModelOperator(
        task_id="whole", model_id="echo", data="whole", multiple_outputs=False, end_from_trigger=True
    )
    AixplainRunModelOperator(
        task_id="nothing", model_id="echo", data="nothing", do_xcom_push=False, durable=False, end_from_trigger=True
    )
    AixplainRunModelOperator(
        task_id="callback", model_id="echo", data="callback", on_success_callback=succeeded, end_from_trigger=True
    )
    AixplainRunModelOperator(
        task_id="large", model_id="echo", data="{{ 'large ' * 50000 }}", multiple_outputs=False, end_from_trigger=True
    )
    AixplainRunAgentOperator(task_id="agent", agent_id="echo-agent", query="agent", end_from_trigger=True)
    AixplainRunModelOperator(task_id="failing", model_id="fail", data="failing", end_from_trigger=True, **RETRIES)


ended_by_triggers()
