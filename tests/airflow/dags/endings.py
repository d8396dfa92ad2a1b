"""Tasks that fail, time out, wait on a worker or return odd values."""

from __future__ import annotations

import json
import logging
from datetime import timedelta

import pendulum
from airflow.sdk import dag, task

from airflow_provider_aixplain.hooks.aixplain import AixplainHook
from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator

ODD_VALUES = {"big": 10**30, "negative": -(10**30), "half a pair": "a\ud800b", "nul": "a\0b", "fine": "😀"}
TEXT = "secret-input: the coffee is wonderful"


@task
def indiscreet():
    """Logs the key of its own Connection, as no task should."""
    hook = AixplainHook("indiscreet")
    key = hook.platform.api_key
    logging.getLogger(__name__).info("The key is %s, of %r, %r and %r", key, hook, hook.platform, vars(hook))
    print("The key is", key)
    raise RuntimeError(f"the key is {key}")


@dag(start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), schedule=None)
def endings():
    AixplainRunModelOperator(task_id="failing_run", model_id="fail", data=TEXT)
    # A wait of RUN_SECONDS (tests/support/deployment.py): Airflow fails a task that resumes earlier.
    AixplainRunModelOperator(task_id="too_slow", model_id="echo", data=TEXT, parameters={"delay": 600}, timeout=5)
    AixplainRunModelOperator(task_id="on_the_worker", model_id="echo", data=TEXT, deferrable=False)
    AixplainRunModelOperator(
        task_id="no_such_model", model_id="nope", data=TEXT, retries=3, retry_delay=timedelta(seconds=1)
    )
    AixplainRunModelOperator(task_id="whole_response", model_id="echo", data=TEXT, multiple_outputs=False)
    AixplainRunModelOperator(task_id="stored_connection", model_id="echo", data=TEXT, aixplain_conn_id="stored")
    indiscreet()
    AixplainRunModelOperator(task_id="odd_values", model_id="echo", data=json.dumps({"data": ODD_VALUES}))


endings()
