"""Templates that a triggerer renders for a trigger that starts a task."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_provider_aixplain.exceptions import AixplainInputError, from_event
from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator
from airflow_provider_aixplain.workerless.start_settings import xcom_reference
from airflow_provider_aixplain.workerless.start_trigger import AixplainModelStartTrigger
from tests.support.deployment import AIRFLOW_3, Emulator
from tests.support.task_log import TaskLog

pytestmark = [
    pytest.mark.usefixtures("connection"),
    pytest.mark.skipif(not AIRFLOW_3, reason="below Airflow 3.3 workers submit"),
]
PAYLOAD = '{"data": "hi", "max_tokens": 100000}'
CONTEXT = {"nothing": None, "payload": PAYLOAD, "run_id": "1"}


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Any:
    class Store:
        """Holds the XCom of one other task, and no submission."""

        try_id = "1"

        async def read(self) -> None: ...

        async def write(self, submission: Any) -> None: ...

        async def pull(self, task_id: str, key: str) -> str:
            return PAYLOAD

    monkeypatch.setattr(AixplainModelStartTrigger, "store", Store())

    def start(**arguments: Any) -> Any:
        given = {"model_id": "echo", "data": "a", "parameters": {"delay": 0}, "wait_time": 0.2, **arguments}
        trigger: Any = AixplainModelStartTrigger(**given)
        trigger.template_fields = AixplainRunModelOperator.template_fields
        trigger.render_template_fields(dict(CONTEXT))

        async def run() -> Any:
            (event,) = [event async for event in trigger.run()]
            return event.payload

        return asyncio.run(run())

    return start


def test_a_missing_value_is_refused(start: Any, emulator: Emulator) -> None:
    before = len(emulator.runs())
    payload = start(data={"a": ["{{ nothing }}"]})
    assert payload["status"] == "refused"
    error = from_event(payload["error"])
    assert isinstance(error, AixplainInputError)
    assert str(error).startswith("data['a'][0]: its template rendered to None")
    assert len(emulator.runs()) == before


@pytest.mark.parametrize("data", ["{{ payload }}", xcom_reference("a", "return_value", is_required=False)])
def test_a_payload_from_outside_is_warned_about(start: Any, task_log: TaskLog, data: Any) -> None:
    assert start(data=data)["status"] == "success"
    (warning,) = task_log.lines()
    assert "sets data, max_tokens" in warning
