"""Run by ``airflow dags test`` in one process, without a scheduler or a triggerer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from airflow.providers.common.compat.sdk import DAG, get_current_context, task

from airflow_provider_aixplain.exceptions import AixplainInputError
from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator

with DAG("inline", schedule=None):
    ended = AixplainRunModelOperator(task_id="ended", model_id="echo", data="ended", end_from_trigger=True)
    mapped = AixplainRunModelOperator.partial(task_id="mapped", model_id="echo").expand(data=["m1", "m2"])

    @task.aixplain(model_id="echo")
    async def upper(text: str) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"data": text.upper()}

    @task.aixplain_batch(model_id="echo", result_path=os.environ["INLINE_RESULTS"])
    async def rows() -> AsyncIterator[str]:
        for text in ("r1", "r2"):
            yield text

    @task
    def nested() -> list[str]:
        context: Any = get_current_context()
        waiting = AixplainRunModelOperator(task_id="waiting", model_id="echo", data="nested", deferrable=False)
        data = waiting.execute(context)["data"]
        try:
            AixplainRunModelOperator(task_id="deferring", model_id="echo", data="refused").execute(context)
        except AixplainInputError as error:
            return [data, str(error)]
        raise AssertionError("deferral was not refused")

    @task
    def report(results: dict[str, Any]) -> None:
        print("RESULTS", results["ended"], list(results["mapped"]), results["upper"], results["rows"]["succeeded"])

    report(
        {  # type: ignore[arg-type] # XComs until it runs
            "ended": ended.output["data"],
            "mapped": mapped.output["data"],
            "upper": upper("upper")["data"],
            "rows": rows(),
        }
    )
    nested()
