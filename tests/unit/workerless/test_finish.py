"""The trigger that finishes a task, against the emulator."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.triggers.base import TaskSuccessEvent
from pytest_mock import MockerFixture

from airflow_provider_aixplain.protocol.assets import Asset
from airflow_provider_aixplain.protocol.usage import RunUsage, add_usage
from airflow_provider_aixplain.triggers.aixplain import AixplainModelRunTrigger
from tests.support.deployment import AIRFLOW_3
from tests.unit.triggers.test_aixplain import events_of, restored, submit

MODEL = Asset("model", "sentiment")

pytestmark = pytest.mark.usefixtures("connection")


@pytest.mark.parametrize("arguments", [{}, {"do_xcom_push": False}])
def test_an_inline_trigger_finishes_no_task(
    arguments: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """``dag.test()`` runs triggers in the process of the task."""
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "100000")
    caplog.set_level("INFO")
    trigger = restored(AixplainModelRunTrigger(submit(), wait_time=0.2, end_from_trigger=True, **arguments))
    (event,) = events_of(trigger, in_triggerer=False)
    assert not isinstance(event, TaskSuccessEvent)
    assert event.payload["response"]["data"] == "positive"
    logged = caplog.text + capsys.readouterr().out
    assert "warning" not in logged.lower()
    assert "end_from_trigger is ignored" in logged


@pytest.mark.skipif(not AIRFLOW_3, reason="below Airflow 3.3 no trigger finishes a task")
def test_a_success_finishes_the_task_at_once(monkeypatch: pytest.MonkeyPatch, mocker: MockerFixture) -> None:
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "600")
    pushed = mocker.patch("airflow_provider_aixplain.workerless.xcom_store.XCom.aset")
    earlier = add_usage(None, RunUsage("earlier", {"failed": 1}, Decimal("0.1")), MODEL)
    settings: dict[str, Any] = {"end_from_trigger": True, "do_xcom_push": False, "usage": earlier}
    trigger = restored(AixplainModelRunTrigger(submit(), wait_time=0.2, model_id="sentiment", **settings))
    trigger.task_instance = SimpleNamespace(id=1, dag_id="dag", task_id="task", run_id="run", map_index=-1)
    (event,) = events_of(trigger)
    assert isinstance(event, TaskSuccessEvent)
    ((key, record),) = (call.args for call in pushed.call_args_list)
    assert key == "aixplain_usage"
    assert record["runs"] == {"failed": 1, "success": 1}
    assert Decimal(record["credits"]) > Decimal("0.1")


def test_a_worker_finishes_a_failed_task() -> None:
    trigger = AixplainModelRunTrigger(submit("fail"), end_from_trigger=True, do_xcom_push=False, wait_time=0.2)
    (event,) = events_of(trigger)
    assert not isinstance(event, TaskSuccessEvent)
    assert event.payload["status"] == "failed"


def test_a_worker_finishes_if_xcoms_cannot_be_pushed() -> None:
    """Outside a triggerer no process receives XComs of a trigger."""
    (event,) = events_of(AixplainModelRunTrigger(submit(), end_from_trigger=True, wait_time=0.2))
    assert not isinstance(event, TaskSuccessEvent)
    assert event.payload["response"]["data"] == "positive"
