"""The trigger of a batch: when it stops, resumes and gives up."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_aixplain.batch import retrying
from airflow_provider_aixplain.batch.batch import Batch
from airflow_provider_aixplain.batch.engine import Engine, Limits
from airflow_provider_aixplain.batch.ledger import AttemptEvent
from airflow_provider_aixplain.hooks.aixplain import AixplainHook
from airflow_provider_aixplain.protocol.assets import Asset
from airflow_provider_aixplain.triggers import batch as trigger_module
from airflow_provider_aixplain.triggers.batch import AixplainBatchTrigger
from tests.support.deployment import AIRFLOW_3, Emulator, wait_until
from tests.unit.batch.batches import (
    begin_batch,
    delete,
    fail_calls,
    reopen,
    results,
    run,
    submitted,
    trigger_of,
)

pytestmark = pytest.mark.usefixtures("connection")
INTENT, ACCEPTED = AttemptEvent.INTENT, AttemptEvent.ACCEPTED


def events_of(trigger: AixplainBatchTrigger) -> list[Any]:
    async def take() -> list[Any]:
        return [event async for event in trigger.run()]

    return asyncio.run(take())


def test_a_stopped_trigger_awaits_the_answers_in_flight(place: str, emulator: Emulator, tag: str) -> None:
    """As in every deployment of a new version: the triggerer's event loop cancels all that runs in it."""
    texts = [f"{tag} {number}" for number in range(30)]
    batch = begin_batch(place, texts, delay=2)
    emulator.set_faults(submission_seconds=0.5)
    try:

        async def stop() -> None:
            trigger = trigger_of(batch, max_in_flight=10)
            task = asyncio.ensure_future(anext(trigger.run()))
            await asyncio.to_thread(wait_until, lambda: submitted(emulator, tag), "a submission", every=0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(stop())
    finally:
        emulator.set_faults()
    known = reopen(batch).ledger
    assert known.rows(INTENT) == []
    assert len(known.rows(ACCEPTED)) == sum(submitted(emulator, tag).values()) > 0
    run(batch, max_in_flight=30)
    assert submitted(emulator, tag) == Counter(texts)


@pytest.mark.parametrize("is_running", [True, False])
def test_a_fenced_trigger_resumes_if_the_new_owner_is_gone(
    place: str, emulator: Emulator, tag: str, is_running: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A triggerer that was frozen claims the batch, and is stopped by Airflow at once, or is not."""
    monkeypatch.setattr(trigger_module, "OWNER_CHECK_INTERVAL", 5 if is_running else 1)
    monkeypatch.setattr(retrying, "RETRY_DELAY", 0.01)
    texts = [f"{tag} {number}" for number in range(40)]
    batch = begin_batch(place, texts, delay=0.4)
    other, batch_id = Batch(place), batch.header.batch

    async def both() -> Any:
        trigger = trigger_of(batch, max_in_flight=5, wait_time=0.2)
        first = asyncio.ensure_future(anext(trigger.run()))
        await asyncio.to_thread(wait_until, lambda: submitted(emulator, tag), "a submission", every=0.01)
        fail_calls(monkeypatch, Batch, "read", {1, 3})
        if is_running:
            limits = Limits(max_in_flight=5, wait_time=0.2)
            await Engine(AixplainHook(), Asset("model", "echo"), other, batch_id, limits).run()
        else:
            await asyncio.to_thread(other.claim, batch_id, "a triggerer that is stopped now")
        return (await first).payload["error"]

    assert asyncio.run(both()) is None
    other.log.catch_up()
    assert other.log.is_fenced is not is_running
    assert {result["data"] for result in results(batch)} == set(texts)
    assert submitted(emulator, tag) == Counter(texts)


def test_a_storage_that_keeps_failing_ends_the_wait(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "RETRY_BUDGET", 0.05)
    monkeypatch.setattr(retrying, "RETRY_DELAY", 0.01)
    batch = begin_batch(place, ["a"])
    trigger = trigger_of(batch)
    fail_calls(monkeypatch, Batch, "read", range(10_000))
    with pytest.raises(OSError, match="SlowDown"):
        asyncio.run(trigger._is_finished_by_new_owner(batch))


@pytest.mark.parametrize("gone", ["the log", "its rows", "its place"])
def test_a_deleted_batch_ends_its_trigger(place: str, gone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trigger_module, "OWNER_CHECK_INTERVAL", 0.01)
    batch = begin_batch(place, ["a"])
    trigger = trigger_of(batch)
    if gone == "its place":
        begin_batch(place, ["of another model"])
    else:
        delete(batch, "log" if gone == "the log" else f"rows-{batch.header.batch}.jsonl")
    (event,) = events_of(trigger)
    error = event.payload["error"]
    assert error is None if gone == "the log" else "is incomplete" in str(error)


@pytest.mark.parametrize("in_triggerer", [True, False])
def test_it_waits_until_the_worker_is_released(
    tmp_path: Path, in_triggerer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "100000")
    trigger = trigger_of(begin_batch(f"file://{tmp_path}", ["a"], delay=0))
    waits, sleep = list[float](), asyncio.sleep
    if in_triggerer:
        trigger.trigger_id = 1  # type: ignore[assignment] # as a triggerer does

    async def record(seconds: float, *_: Any) -> None:
        waits.append(seconds)
        await sleep(0 if seconds > 1000 else seconds)

    async def first_event() -> Any:
        monkeypatch.setattr("airflow_provider_aixplain.triggers.worker_release.asyncio.sleep", record)
        return await anext(aiter(trigger.run()))

    assert asyncio.run(first_event()).payload["error"] is None
    assert any(seconds > 90_000 for seconds in waits) is (in_triggerer and AIRFLOW_3), "Airflow 2 has no delay"
