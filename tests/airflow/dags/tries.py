"""Tasks that need several tries, for different reasons."""

from __future__ import annotations

import os
import signal
from datetime import timedelta

import pendulum
from airflow.sdk import dag, get_current_context

from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator

RETRIES = {"retries": 5, "retry_delay": timedelta(seconds=1)}


def die_on_the_first_try():
    if get_current_context()["ti"].try_number == 1:
        os.kill(os.getpid(), signal.SIGKILL)


class KilledBeforeTheDeferral(AixplainRunModelOperator):
    def defer(self, **kwargs):
        die_on_the_first_try()
        super().defer(**kwargs)


class KilledBeforeTheAnswerIsRecorded(AixplainRunModelOperator):
    def _submit(self):
        response = super()._submit()
        die_on_the_first_try()
        return response


class KilledWithTheResult(AixplainRunModelOperator):
    def execute_complete(self, context, event):
        response = super().execute_complete(context, event)
        die_on_the_first_try()
        return response


@dag(start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), schedule=None)
def tries():
    AixplainRunModelOperator(
        task_id="timed_out",
        model_id="echo",
        data="timed_out",
        parameters={"delay": 20},
        timeout=1,
        retries=20,
        retry_delay=timedelta(seconds=1),
    )
    KilledBeforeTheDeferral(task_id="before_deferral", model_id="echo", data="before_deferral", **RETRIES)
    KilledBeforeTheAnswerIsRecorded(task_id="orphan", model_id="echo", data="orphan", **RETRIES)
    KilledWithTheResult(task_id="with_result", model_id="echo", data="with_result", **RETRIES)
    AixplainRunModelOperator(task_id="cleared", model_id="echo", data="cleared", **RETRIES)


tries()
