"""The trigger that finishes a task, against the emulator."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.triggers.base import TaskSuccessEvent

from airflow_provider_aixplain.triggers.aixplain import AixplainModelRunTrigger
from tests.unit.triggers.test_aixplain import events_of, restored, submit

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


def test_a_success_finishes_the_task_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "600")
    trigger = AixplainModelRunTrigger(submit(), end_from_trigger=True, do_xcom_push=False, wait_time=0.2)
    (event,) = events_of(restored(trigger))
    assert isinstance(event, TaskSuccessEvent)


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
