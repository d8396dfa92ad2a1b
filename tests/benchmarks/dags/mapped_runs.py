"""The same runs, waited for in the triggerer and on workers."""

from __future__ import annotations

import pendulum
from airflow.providers.common.compat.sdk import dag

from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator

RUNS = 20


def mapped_runs(deferrable: bool):
    """Return a DAG of mapped runs."""

    @dag(
        dag_id="deferred" if deferrable else "blocking",
        start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
        schedule=None,
        max_active_tasks=1000,
    )
    def runs():
        AixplainRunModelOperator.partial(task_id="run", model_id="echo", deferrable=deferrable).expand(
            data=[f"text {number}" for number in range(RUNS)]
        )

    return runs()


mapped_runs(deferrable=True)
mapped_runs(deferrable=False)
