"""The same runs, waited for in the triggerer, ended there too, and waited for on workers."""

from __future__ import annotations

import pendulum
from airflow.providers.common.compat.sdk import dag

from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator

RUNS = 20


def mapped_runs(way: str, **arguments: bool):
    """Return a DAG of mapped runs.

    :param arguments: the operator's, that make the way.
    """

    @dag(
        dag_id=way,
        start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
        schedule=None,
        max_active_tasks=1000,
    )
    def runs():
        AixplainRunModelOperator.partial(task_id="run", model_id="echo", **arguments).expand(
            data=[f"text {number}" for number in range(RUNS)]
        )

    return runs()


mapped_runs("deferred")
mapped_runs("ended_by_triggers", end_from_trigger=True)
mapped_runs("blocking", deferrable=False)
