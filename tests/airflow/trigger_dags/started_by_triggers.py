"""Tasks that their triggers start, and similar ones that need a worker."""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.providers.common.compat.sdk import dag, task

from airflow_provider_aixplain.operators.aixplain import AixplainRunAgentOperator, AixplainRunModelOperator

START = {"model_id": "echo", "start_from_trigger": True}
BOTH = {**START, "end_from_trigger": True}


@task(multiple_outputs=True)
def inputs():
    return {"text": "{{ this is no template }}", "list": [1, None, True]}


@task
def passed_on(data: str):
    return data


@dag(start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), schedule=None, params={"text": "a param"})
def started_by_triggers():
    rendered = AixplainRunModelOperator(task_id="rendered", data={"data": ["{{ params.text }}", 5, None]}, **BOTH)
    passed_on(rendered.output["data"])
    AixplainRunModelOperator(task_id="taken", data="taken", **START)
    output = inputs()
    AixplainRunModelOperator(task_id="text", data={"data": output["text"]}, **BOTH)
    AixplainRunModelOperator(task_id="list", data=output["list"], parameters={"delay": 1}, **BOTH)
    pulled = AixplainRunModelOperator(task_id="pulled", data="{{ ti.xcom_pull(task_ids='inputs')['text'] }}", **BOTH)
    output >> pulled
    agent = {"agent_id": "echo-agent", "start_from_trigger": True, "end_from_trigger": True}
    AixplainRunAgentOperator(task_id="agent", query="asked {{ params.text }}", variables={"steps": 2}, **agent)
    AixplainRunModelOperator.partial(task_id="mapped", **BOTH).expand(data=["mapped 0", "mapped 1"])
    AixplainRunModelOperator(task_id="large", data="{{ 'LARGE ' * 50000 }}", multiple_outputs=False, **BOTH)
    retries = {"retries": 1, "retry_delay": timedelta(seconds=1)}
    AixplainRunModelOperator(task_id="failing", data="failing in each try", **{**BOTH, "model_id": "fail"}, **retries)
    AixplainRunModelOperator(task_id="refused", data="refused", **{**BOTH, "model_id": "nobodys"}, **retries)
    AixplainRunModelOperator(task_id="undefined", data="undefined {{ params.nothing }}", **BOTH)


started_by_triggers()
