"""The trigger against the emulator, as a triggerer runs it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pendulum
import pytest
from airflow.triggers.base import BaseTrigger

from airflow_provider_aixplain.hooks.aixplain import AixplainHook
from airflow_provider_aixplain.triggers.aixplain import AixplainModelRunTrigger
from tests.airflow.deployment import Emulator

pytestmark = pytest.mark.usefixtures("connection")


@pytest.fixture(autouse=True)
def _nobody_lingers(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no worker here to wait for, and nobody who mends a Connection unless a test does."""
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "0")
    monkeypatch.setattr("airflow_provider_aixplain.triggers.aixplain.PATIENCE", 0)


def submit(model_id: str = "sentiment", **parameters: Any) -> str:
    return str(AixplainHook().run_async(model_id, "The coffee is wonderful.", parameters=parameters).url)


def event_of(trigger: BaseTrigger) -> dict[str, Any]:
    async def run() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    (payload,) = asyncio.run(run())
    assert set(payload) == {"status", "message", "response", "poll_url"}
    json.dumps(payload)
    return dict(payload)


def restored(trigger: BaseTrigger) -> BaseTrigger:
    """The trigger as another triggerer makes it from what the database holds."""
    path, stored = trigger.serialize()
    module, _, name = path.rpartition(".")
    assert (module, name) == (AixplainModelRunTrigger.__module__, "AixplainModelRunTrigger")
    return AixplainModelRunTrigger(**json.loads(json.dumps(stored)))


def test_it_fires_the_response_once() -> None:
    url = submit()
    event = event_of(restored(AixplainModelRunTrigger(url, wait_time=0.2)))
    assert (event["status"], event["message"], event["poll_url"]) == ("success", "", url)
    assert (event["response"]["data"], event["response"]["url"]) == ("positive", url)


def test_it_fires_only_when_the_worker_must_have_gone(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "1")
    url = submit(delay=0)
    assert event_of(AixplainModelRunTrigger(url))["status"] == "success"
    run = next(run for run in emulator.runs() if run["id"] == url.rpartition("/")[2])
    assert run["polled_at"][0] - run["submitted_at"] >= 2 - 0.1


def test_a_failed_run() -> None:
    event = event_of(AixplainModelRunTrigger(submit("fail"), wait_time=0.2))
    assert (event["status"], event["message"]) == ("failed", "this model always fails")
    assert event["response"]["error_code"] == "EMULATED_FAILURE"


def test_the_deadline_counts_from_the_submission(emulator: Emulator) -> None:
    url = submit("echo", delay=60)
    long_ago = pendulum.now("UTC").subtract(hours=1).isoformat()
    event = event_of(AixplainModelRunTrigger(url, timeout=3600, submitted_at=long_ago))
    assert event["status"] == "timeout"
    polls = next(run["polled_at"] for run in emulator.runs() if run["id"] == url.rpartition("/")[2])
    assert len(polls) == 1, "one poll is made however late it is"


def test_a_result_that_came_after_the_deadline_is_not_lost() -> None:
    long_ago = pendulum.now("UTC").subtract(hours=1).isoformat()
    event = event_of(AixplainModelRunTrigger(submit(delay=0), timeout=60, submitted_at=long_ago))
    assert event["status"] == "success"


def test_a_clock_that_went_back_does_no_harm() -> None:
    tomorrow = pendulum.now("UTC").add(days=1).isoformat()
    event = event_of(AixplainModelRunTrigger(submit(), wait_time=0.2, submitted_at=tomorrow))
    assert event["status"] == "success"


@pytest.mark.parametrize("arguments", [{"timeout": "5"}, {"timeout": -1}, {"wait_time": None}])
def test_bad_durations_are_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} is .*: give seconds"):
        AixplainModelRunTrigger("https://h/run", **arguments)


def test_a_run_that_the_platform_does_not_know(emulator: Emulator) -> None:
    event = event_of(AixplainModelRunTrigger(f"{emulator.url}/api/v1/data/unknown", wait_time=0.2))
    assert (event["status"], event["message"]) == ("error", "HTTP 404 (resource): no such run")


@pytest.mark.parametrize(
    ("poll_url", "conn_id", "named"),
    [
        ("https://evil.example/data/1", "aixplain_default", "trusted_origins"),
        ("https://models.aixplain.com/data/1", "no_key", "password is empty"),
        ("https://models.aixplain.com/data/1", "nowhere", "'nowhere' does not exist"),
    ],
)
def test_what_cannot_work_ends_the_wait(
    poll_url: str, conn_id: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_NO_KEY", '{"conn_type": "aixplain"}')
    event = event_of(AixplainModelRunTrigger(poll_url, conn_id))
    assert event["status"] == "error"
    assert named in event["message"]
