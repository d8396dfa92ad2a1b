"""DAGs of ``test_faults.py``: mapped runs, runs that triggers start, and batches of a model and of an agent."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

import pendulum
from airflow.providers.common.compat.sdk import DAG, dag, get_current_context, task

from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator
from airflow_provider_aixplain.operators.batch import AixplainBatchRunOperator

PARKED_FOR = 600
BATCHES = {
    "model": {"model_id": "echo", "max_in_flight": 100},
    "agent": {"agent_id": "echo-agent", "max_in_flight": 20},
}


class Parking(AixplainRunModelOperator):
    """In the first try of the first run, stops between submission and deferral, to be killed there.

    The process id of its worker is written to the file PARKING.
    """

    def defer(self, **kwargs):
        ti = get_current_context()["ti"]
        if "PARKING" in os.environ and (ti.map_index, ti.try_number) == (0, 1):
            Path(os.environ["PARKING"]).write_text(str(os.getppid()))
            time.sleep(PARKED_FOR)
        super().defer(**kwargs)


@dag(start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), schedule=None, params={"runs": 10, "seconds": 10})
def faults():
    @task
    def inputs(params=None):
        return [{"data": f"input {index}"} for index in range(params["runs"])]

    Parking.partial(
        task_id="run",
        model_id="echo",
        parameters={"delay": "{{ params.seconds }}"},
        retries=5,
        retry_delay=timedelta(seconds=1),
        multiple_outputs=False,
    ).expand_kwargs(inputs())


@dag(start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), schedule=None, params={"seconds": 10})
def started():
    for index in range(60):
        AixplainRunModelOperator(
            task_id=f"run_{index}",
            model_id="echo",
            data=f"input {index}",
            parameters={"delay": "{{ params.seconds }}"},
            start_from_trigger=True,
            end_from_trigger=True,
            multiple_outputs=False,
        )


@dag(start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), schedule=None, params={"runs": 10})
def spending():
    """Runs of all kinds that cost something: mapped ones, of which every tenth fails, and ones in triggers."""

    @task
    def inputs(params=None):
        return [
            {"data": f"input {index}", "model_id": "echo" if index % 10 else "fail"} for index in range(params["runs"])
        ]

    AixplainRunModelOperator.partial(
        task_id="spend",
        parameters={"delay": 8},
        retries=2,
        retry_delay=timedelta(seconds=1),
        multiple_outputs=False,
    ).expand_kwargs(inputs())
    for index in range(30):
        AixplainRunModelOperator(
            task_id=f"spend_{index}",
            model_id="echo" if index % 3 else "fail",
            data=f"input {index} of a trigger",
            parameters={"delay": 8},
            retries=2,
            retry_delay=timedelta(seconds=1),
            start_from_trigger=index % 2 == 0,
            end_from_trigger=True,
            multiple_outputs=False,
        )


faults()
started()
spending()
for kind, arguments in BATCHES.items():
    with DAG(f"batch_{kind}", schedule=None, params={"input": "", "result_path": ""}):
        AixplainBatchRunOperator(
            task_id="batch",
            **arguments,
            input="{{ params.input }}",
            result_path="{{ params.result_path }}",
            data="data",
            parameter_columns={"delay": "delay"},
            retries=100,
            retry_delay=timedelta(seconds=1),
        )
