"""The same rows as one batch, as mapped tasks, and in threads of one task with the platform's own package."""

from __future__ import annotations

import os

import pendulum
from airflow.sdk import dag, task

from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator
from airflow_provider_aixplain.operators.batch import AixplainBatchRunOperator

ROWS = int(os.environ["BENCH_ROWS"])
IN_FLIGHT = int(os.environ["BENCH_IN_FLIGHT"])
TEXTS = [f"row {number}" for number in range(ROWS)]
ARGUMENTS = {"start_date": pendulum.datetime(2026, 1, 1, tz="UTC"), "schedule": None, "max_active_tasks": ROWS}


@dag(**ARGUMENTS)
def batch():
    AixplainBatchRunOperator(
        task_id="run",
        model_id="echo",
        input=TEXTS,
        result_path=f"file://{os.environ['BENCH_RESULTS']}",
        max_in_flight=IN_FLIGHT,
    )


@dag(**ARGUMENTS)
def mapped():
    AixplainRunModelOperator.partial(
        task_id="run", model_id="echo", end_from_trigger=True, multiple_outputs=False
    ).expand(data=TEXTS)


@dag(**ARGUMENTS)
def threads():
    @task.external_python(task_id="run", python=os.environ["BENCH_PEER"], expect_airflow=False)
    def run(texts, threads):
        from concurrent.futures import ThreadPoolExecutor

        import aixplain.factories  # noqa: F401 # threads that import it at the same time fail
        from aixplain.modules.model import Model

        model = Model(id="echo")
        with ThreadPoolExecutor(threads) as pool:
            responses = list(pool.map(lambda text: model.run(text, timeout=300), texts))
        return [response.data for response in responses]

    run(TEXTS, IN_FLIGHT)


batch()
mapped()
threads()
