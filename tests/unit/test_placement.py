"""Tasks without ``workerless/``, and the one import of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

import airflow_provider_aixplain
from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator
from airflow_provider_aixplain.placement import WorkerPlacement

PACKAGE = Path(airflow_provider_aixplain.__file__).parent


def test_only_one_module_imports_workerless() -> None:
    importing = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if path.parent.name != "workerless" and "airflow_provider_aixplain.workerless" in path.read_text()
    }
    assert importing == {"placement.py"}


@pytest.mark.usefixtures("connection")
def test_without_workerless_a_worker_starts_and_finishes_each_task(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("operators.base", "operators.run", "triggers.aixplain"):
        monkeypatch.setattr(f"airflow_provider_aixplain.{module}.PLACEMENT", WorkerPlacement())
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "0")
    arguments: Any = {"start_from_trigger": True, "end_from_trigger": True, "parameters": {"delay": 0}}
    task = AixplainRunModelOperator(task_id="run", model_id="echo", data="a", **arguments)
    assert task.start_trigger_args is None
    with pytest.raises(TaskDeferred) as deferred:
        task.execute({})
    trigger = deferred.value.trigger
    assert trigger.settings.end_from_trigger is False

    async def first_event() -> Any:
        return await anext(aiter(trigger.run()))

    event = asyncio.run(first_event()).payload
    assert task.resume_execution("resume_from_trigger", {**deferred.value.kwargs, "event": event}, {})["data"] == "a"
