"""A batch against the emulator: each row once, whatever is killed or frozen, whatever the platform answers."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_aixplain.batch import engine as module
from airflow_provider_aixplain.batch import retrying
from airflow_provider_aixplain.batch.admission import FIRST_BACKOFF, RateLimiter
from airflow_provider_aixplain.batch.batch import Batch, BatchDeleted, read_results
from airflow_provider_aixplain.batch.commit_log import CommitLog, Fenced
from airflow_provider_aixplain.batch.engine import Engine, Limits
from airflow_provider_aixplain.batch.ledger import AttemptEvent
from airflow_provider_aixplain.exceptions import AixplainPermanentError
from airflow_provider_aixplain.hooks.aixplain import AixplainHook
from airflow_provider_aixplain.inputs.rows import Row
from airflow_provider_aixplain.triggers import batch as trigger_module
from airflow_provider_aixplain.triggers.batch import AixplainBatchTrigger
from tests.support.deployment import Emulator, wait_until
from tests.support.scripted import Handler, serve
from tests.unit.batch.batches import (
    Engines,
    Trouble,
    begun,
    engine_of,
    event,
    id_of,
    ledger_of,
    note,
    reader,
    requeue_failed,
    results,
    run,
    submitted,
    trigger_of,
)

pytestmark = pytest.mark.usefixtures("connection")
INTENT, ACCEPTED, REJECTED = AttemptEvent.INTENT, AttemptEvent.ACCEPTED, AttemptEvent.REJECTED


async def until(condition: Callable[[], Any]) -> None:
    while not condition():  # noqa: ASYNC110 # nothing announces it
        await asyncio.sleep(0.01)


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer to an earlier process is in flight in this test, so it is not awaited."""
    monkeypatch.setattr(module, "IN_FLIGHT_MARGIN", -100)


def intents(batch: Batch) -> list[float]:
    return [record["attempt"] for record in reader(batch).log.read() if record["event"] == "intent"]


def test_each_row_is_run_once(place: str, emulator: Emulator, tag: str) -> None:
    texts = [f"{tag} {number}" for number in range(60)]
    batch = begun(place, texts, delay=0.3)
    engine = run(batch, max_in_flight=20)
    assert submitted(emulator, tag) == Counter(texts)
    assert {result["key"]: result["data"] for result in results(batch)} == dict(enumerate(texts, start=1))
    assert engine.ledger.totals.succeeded == 60
    run(batch)
    assert submitted(emulator, tag) == Counter(texts), "a batch that has finished submits nothing"


def test_no_more_runs_are_in_flight_than_allowed(place: str, emulator: Emulator, tag: str) -> None:
    run(begun(place, [f"{tag} {number}" for number in range(30)], delay=0.5), max_in_flight=7)
    runs = [run for run in emulator.runs() if str(run["payload"].get("data")).startswith(tag)]
    events = sorted([(run["submitted_at"], 1) for run in runs] + [(run["finishes_at"], -1) for run in runs])
    assert max(itertools.accumulate(change for _, change in events)) == 7


def test_a_rate_limit_is_kept(place: str, tag: str) -> None:
    batch = begun(place, [f"{tag} {number}" for number in range(10)], delay=0)
    run(batch, max_per_second=10)
    assert all(later - earlier >= 0.095 for earlier, later in itertools.pairwise(sorted(intents(batch))))


def test_a_burst_of_refusals_counts_once() -> None:
    limiter = RateLimiter(None)
    for _ in range(100):
        limiter.back_off(None, acquired_at=1.0)
    assert limiter._backoff == FIRST_BACKOFF
    limiter.back_off(1e9, acquired_at=time.monotonic())
    assert limiter._backoff == 2 * FIRST_BACKOFF
    assert limiter._next - time.monotonic() < 700, "no batch waits for years"


def test_failures_are_results_too(place: str) -> None:
    batch = begun(place, ["a", "b"], delay=0)
    spent = 0.0
    for _ in range(2):
        engine = run(batch, model_id="fail")
        assert engine.ledger.totals.failed == 2
        assert engine.ledger.totals.credits > spent, "failed attempts were paid for"
        spent = engine.ledger.totals.credits
        for result in results(batch):
            assert (result["status"], result["error"]) == ("FAILED", "this model always fails")
            assert result["may_succeed"] is True
        assert requeue_failed(batch) == 2
        assert results(batch) == []
        assert ledger_of(batch).totals.credits == pytest.approx(spent)


def test_results_can_be_read_while_it_runs(place: str, tag: str) -> None:
    texts = [f"{tag} {number}" for number in range(20)]
    batch = begun(place, texts, delay=0.2)

    async def read() -> None:
        running = asyncio.ensure_future(engine_of(batch, max_in_flight=5).run())
        await asyncio.to_thread(wait_until, lambda: len(list(read_results(place))) >= 5, "results", every=0.05)
        assert not running.done()
        if place.startswith("file:"):
            lines = (Path(place.removeprefix("file://")) / "results.jsonl").read_text().splitlines()
            assert len(lines) >= 5
            assert "is" not in json.loads(lines[0])
        await running

    asyncio.run(read())
    assert list(read_results(place)) == results(batch)
    run(begun(place, [f"{tag} new"], delay=0))
    assert [result["data"] for result in read_results(place)] == [f"{tag} new"]


class Platform:
    """A platform that answers submissions from a script, and reports every run as completed."""

    def __init__(self, answers: list[tuple[int, bytes, dict[str, str]]]) -> None:
        self.answers = answers
        self.submissions: list[float] = []
        self.on_submission: Callable[[], object] = lambda: None
        self.failing: set[str] = set()
        self.url = ""
        self._lock = threading.Lock()

    def __call__(self, http: Handler) -> None:
        if http.command == "GET":
            status = "FAILED" if http.path in self.failing else "SUCCESS"
            answer = {"completed": True, "status": status, "data": "done", "usedCredits": 1}
            http.answer(200, json.dumps(answer).encode())
            return
        with self._lock:
            self.submissions.append(time.monotonic())
            status, body, headers = self.answers.pop(0) if self.answers else (201, b"", {})
        self.on_submission()
        url = f"http://127.0.0.1:{http.server.server_address[1]}/run/{len(self.submissions)}"  # type: ignore[misc]
        http.answer(status, body or json.dumps({"data": url}).encode(), **headers)


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    script = Platform([])
    with serve(script) as server:
        script.url = server.url
        monkeypatch.setenv("AIRFLOW_CONN_SCRIPTED", json.dumps({"host": server.url, "password": "key"}))
        yield script


def test_an_overloaded_platform_delays_all_rows(place: str, platform: Platform) -> None:
    platform.answers = [(429, b"{}", {"Retry-After": "1"})]
    batch = begun(place, [str(number) for number in range(5)])
    run(batch, "scripted", max_in_flight=1)
    assert len(platform.submissions) == 6, "one was refused, and submitted again"
    assert platform.submissions[1] - platform.submissions[0] >= 0.8
    assert all(result["status"] == "SUCCESS" for result in results(batch))


def test_a_submission_that_may_have_arrived_is_not_repeated(place: str, platform: Platform) -> None:
    platform.answers = [(503, b"{}", {})]
    batch = begun(place, ["a", "b"])
    engine = run(batch, "scripted", max_in_flight=1)
    assert len(platform.submissions) == 2
    assert engine.ledger.orphaned == [1]
    first, second = sorted(results(batch), key=lambda result: result["row"])
    assert (first["status"], first["may_succeed"], second["status"]) == ("FAILED", True, "SUCCESS")


def test_an_immediate_success_with_a_warning_is_a_success(place: str, platform: Platform) -> None:
    answer = {"completed": True, "status": "SUCCESS", "data": "hi", "error_message": "a warning", "usedCredits": 1}
    platform.answers = [(200, json.dumps(answer).encode(), {}), (200, b'{"status": "ABORTED"}', {})]
    batch = begun(place, ["a", "b"])
    run(batch, "scripted", max_in_flight=1)
    first, second = sorted(results(batch), key=lambda result: result["row"])
    assert (first["status"], first["data"], first["error"]) == ("SUCCESS", "hi", None)
    assert (second["status"], second["error"]) == ("FAILED", "ABORTED: the platform gives no reason")


def test_a_refusal_of_every_row_ends_the_batch(place: str, platform: Platform) -> None:
    platform.answers = [(402, b'{"error": "no credits left"}', {})]
    batch = begun(place, [str(number) for number in range(5)])
    with pytest.raises(AixplainPermanentError, match="no credits left"):
        run(batch, "scripted", max_in_flight=1)
    assert len(platform.submissions) == 1
    assert results(batch) == []
    run(batch, "scripted")
    assert len(results(batch)) == 5, "nothing was lost"


def test_no_more_credits_are_spent_than_allowed(place: str, platform: Platform) -> None:
    batch = begun(place, [str(number) for number in range(9)])
    engine = run(batch, "scripted", max_in_flight=1, max_credits=3)
    assert engine.is_spent
    assert len(platform.submissions) == len(results(batch)) == 3
    run(batch, "scripted", max_credits=100)
    assert len(platform.submissions) == len(results(batch)) == 9


def test_a_rotated_key_is_read_again(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(http: Handler) -> None:
        if http.headers["x-api-key"] == "old":
            monkeypatch.setenv("AIRFLOW_CONN_ROTATED", json.dumps({"host": server.url, "password": "new"}))
            http.answer(401, b"{}")
        elif http.command == "GET":
            http.answer(200, b'{"completed": true, "data": "done"}')
        else:
            http.answer(201, json.dumps({"data": f"{server.url}/run"}).encode())

    with serve(answer) as server:
        monkeypatch.setenv("AIRFLOW_CONN_ROTATED", json.dumps({"host": server.url, "password": "old"}))
        batch = begun(place, ["a", "b"])
        run(batch, "rotated")
    assert [result["status"] for result in results(batch)] == ["SUCCESS"] * 2


@pytest.mark.usefixtures("no_wait")
@pytest.mark.parametrize("seconds", [0.3, 1])
def test_a_new_owner_stops_the_old_one(
    place: str, emulator: Emulator, tag: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if all is submitted, so that the old one has no command by which it would notice."""
    monkeypatch.setattr(module, "WATCH_INTERVAL", 0.2)
    texts = [f"{tag} {number}" for number in range(40)]
    batch = begun(place, texts, delay=seconds)

    async def both() -> None:
        engines = [engine_of(batch, max_in_flight=10 if seconds < 1 else 40) for _ in range(2)]
        first = asyncio.ensure_future(engines[0].run())
        await until(lambda: engines[0].ledger.totals.done > 10 or engines[0].open_runs == 40)
        await engines[1].run()
        with pytest.raises(Fenced):
            await first

    asyncio.run(both())
    assert {result["data"] for result in results(batch)} == set(texts)
    again = submitted(emulator, tag) - Counter(texts)
    assert again <= Counter(texts[int(str(key)) - 1] for key in ledger_of(batch).orphaned)
    assert seconds < 1 or not again


def test_a_restart_stops_the_engine_of_the_old_batch(place: str, emulator: Emulator, tag: str) -> None:
    """As when a task is cleared: its old trigger may run for a while."""
    batch = begun(place, [f"{tag} old {number}" for number in range(60)], delay=0.3)

    async def both() -> None:
        old = engine_of(batch, max_in_flight=10)
        running = asyncio.ensure_future(old.run())
        await until(lambda: old.ledger.totals.done > 10)
        new = begun(place, [f"{tag} new"], delay=0)
        with pytest.raises(Fenced):
            await running
        await engine_of(new).run()

    asyncio.run(both())
    assert [result["data"] for result in results(batch)] == [f"{tag} new"]
    assert sum(submitted(emulator, f"{tag} old").values()) < 60
    assert submitted(emulator, f"{tag} new") == {f"{tag} new": 1}


def test_an_engine_that_is_stopped_before_it_runs_does_nothing(place: str, emulator: Emulator, tag: str) -> None:
    engine = engine_of(begun(place, [tag]))
    engine.stop()
    asyncio.run(engine.run())
    assert submitted(emulator, tag) == {}


def test_a_row_that_has_timed_out_is_polled_again(place: str, emulator: Emulator, tag: str) -> None:
    batch = begun(place, [f"{tag} {number}" for number in range(3)], delay=1)
    run(batch, timeout=0.3)
    assert [(result["status"], result["is_known"]) for result in results(batch)] == [("FAILED", False)] * 3
    assert requeue_failed(batch) == 3
    run(batch)
    assert [result["status"] for result in results(batch)] == ["SUCCESS"] * 3
    assert set(submitted(emulator, tag).values()) == {1}, "and is not paid twice"


def test_an_intent_that_took_too_long_is_given_up(
    place: str, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the process is frozen between the commit of the intent and the request."""
    monkeypatch.setattr(module, "INTENT_LIFETIME", 0.5)
    batch = begun(place, ["a"])
    engine = engine_of(batch, "scripted")
    commit, freezes = engine._committer.commit, iter([1.0])

    async def freeze_once(record: dict[str, Any], *, fenced: bool) -> None:
        await commit(record, fenced=fenced)
        if fenced:
            await asyncio.sleep(next(freezes, 0))

    monkeypatch.setattr(engine._committer, "commit", freeze_once)
    asyncio.run(engine.run())
    kinds = [record["event"] for record in reader(batch).log.read() if "attempt" in record]
    assert kinds == ["intent", "rejected", "intent", "accepted", "result"]
    assert len(platform.submissions) == 1


def test_rows_that_cannot_be_read_lose_no_answer_in_flight(
    place: str, emulator: Emulator, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{tag} {number}" for number in range(10)]
    batch = begun(place, texts, delay=1)
    emulator.set_faults(submission_seconds=0.5)
    read = Batch.rows

    def rows(self: Batch) -> Iterator[Row]:
        yield from itertools.islice(read(self), 5)
        time.sleep(0.5)  # until the first ones are submitted
        raise OSError("Stale file handle")

    try:
        with monkeypatch.context() as patch:
            patch.setattr(module, "ROWS_PER_READ", 5)
            patch.setattr(Batch, "rows", rows)
            patch.setattr(retrying, "RETRY_BUDGET", -1)
            with pytest.raises(OSError, match="Stale"):
                run(batch)
    finally:
        emulator.set_faults()
    assert ledger_of(batch).rows(INTENT) == []
    assert sum(submitted(emulator, tag).values()) == 5
    run(batch)
    assert {result["data"] for result in results(batch)} == set(texts)
    assert submitted(emulator, tag) == Counter(texts)
    assert ledger_of(batch).orphaned == []


@pytest.mark.parametrize(
    ("kind", "name"),
    [(Batch, "claim"), (Batch, "rows"), (module, "islice"), (CommitLog, "append"), (CommitLog, "catch_up")],
)
def test_a_storage_that_fails_for_a_while_is_retried(
    place: str, emulator: Emulator, tag: str, kind: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{tag} {number}" for number in range(10)]
    batch = begun(place, texts, delay=0)
    monkeypatch.setattr(retrying, "RETRY_DELAY", 0.01)
    monkeypatch.setattr(module, "ROWS_PER_READ", 3)
    engine = engine_of(batch)
    trouble = Trouble(monkeypatch, kind, name, {1, 3})
    asyncio.run(engine.run())
    assert trouble.calls >= 2
    assert submitted(emulator, tag) == Counter(texts)


@pytest.mark.parametrize("failing", ["/run/1", "/run/2"])
def test_all_accepted_runs_of_a_row_are_polled(place: str, platform: Platform, failing: str) -> None:
    """A process that was frozen got its answer late. Each run has cost a credit."""
    batch = begun(place, ["a"])
    platform.failing = {failing}
    for attempt in (1.0, 2.0):
        note(batch, 0, attempt, INTENT)
        note(batch, 0, attempt, ACCEPTED, url=f"{platform.url}/run/{attempt:.0f}")
    run(batch, "scripted")
    assert platform.submissions == []
    assert [result["status"] for result in results(batch)] == ["SUCCESS"]
    # The one that has failed is known only if it was polled first.
    assert ledger_of(batch).totals.credits == (2 if failing == "/run/2" else 1)


def test_a_row_accepted_late_is_not_submitted(place: str, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer to an earlier process comes while all rows back off."""
    batch = begun(place, ["a"])
    engine = engine_of(batch, "scripted")
    acquire = engine._rate_limiter.acquire

    async def wait() -> float:
        engine.ledger.apply(event(batch, 0, 1.0, ACCEPTED, url=f"{platform.url}/run/1"))
        return await acquire()

    monkeypatch.setattr(engine._rate_limiter, "acquire", wait)
    asyncio.run(engine.run())
    assert platform.submissions == []
    assert intents(batch) == []
    assert [result["attempt"] for result in results(batch)] == [1.0]


def test_a_fenced_process_keeps_a_success_that_only_it_knows(place: str, platform: Platform) -> None:
    batch = begun(place, ["a"])
    other, batch_id = reader(batch), id_of(batch)
    platform.answers = [(201, b'{"status": "SUCCESS", "completed": true, "data": "done"}', {})]
    platform.on_submission = lambda: other.claim(batch_id, "a triggerer")
    run(batch, "scripted")
    assert [result["data"] for result in results(batch)] == ["done"]


def test_a_fenced_process_fails_no_row(place: str, platform: Platform) -> None:
    batch = begun(place, ["a"])
    other, batch_id = reader(batch), id_of(batch)
    platform.answers = [(503, b"{}", {})]
    platform.on_submission = lambda: other.claim(batch_id, "a triggerer")
    with pytest.raises(Fenced):
        run(batch, "scripted")
    assert results(batch) == []
    assert ledger_of(batch).orphaned == [1]


# The trigger


def events_of(trigger: AixplainBatchTrigger) -> list[Any]:
    async def take() -> list[Any]:
        return [event async for event in trigger.run()]

    return asyncio.run(take())


def test_the_trigger_runs_it(place: str, emulator: Emulator, tag: str) -> None:
    batch = begun(place, [f"{tag} {number}" for number in range(20)], delay=0.2)
    trigger = trigger_of(batch, wait_time=0.2)
    path, stored = trigger.serialize()
    assert path.endswith(".AixplainBatchTrigger")
    (event,) = events_of(AixplainBatchTrigger(**json.loads(json.dumps(stored))))
    assert event.payload == {"batch": id_of(batch), "error": None}
    assert len(results(batch)) == 20
    assert emulator.runs()[-1]["polled_at"]


def test_a_stopped_trigger_awaits_the_answers_in_flight(place: str, emulator: Emulator, tag: str) -> None:
    """As in every deployment of a new version: the triggerer's event loop cancels all that runs in it."""
    texts = [f"{tag} {number}" for number in range(30)]
    batch = begun(place, texts, delay=2)
    emulator.set_faults(submission_seconds=0.5)
    try:

        async def stop() -> None:
            trigger = trigger_of(batch, max_in_flight=10)
            task = asyncio.ensure_future(anext(trigger.run()))
            await until(lambda: submitted(emulator, tag))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(stop())
    finally:
        emulator.set_faults()
    known = ledger_of(batch)
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
    batch = begun(place, texts, delay=0.4)
    other, batch_id = Batch(place), id_of(batch)

    async def both() -> Any:
        trigger = trigger_of(batch, max_in_flight=5, wait_time=0.2)
        first = asyncio.ensure_future(anext(trigger.run()))
        await until(lambda: submitted(emulator, tag))
        Trouble(monkeypatch, Batch, "read", {1, 3})
        if is_running:
            await Engine(AixplainHook(), "echo", other, batch_id, Limits(max_in_flight=5, wait_time=0.2)).run()
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
    batch = begun(place, ["a"])
    trigger = trigger_of(batch)
    Trouble(monkeypatch, Batch, "read", set(range(10_000)))
    with pytest.raises(OSError, match="SlowDown"):
        asyncio.run(trigger._is_finished_by_new_owner(batch))


def delete(batch: Batch, what: str) -> None:
    if not batch.store.is_file_system:
        batch.store._path.fs.rm(batch.store._full(what), recursive=True)
    else:
        path = Path(str(batch).removeprefix("file://")) / what
        path.rename(path.with_name("deleted"))


@pytest.mark.parametrize("gone", ["the log", "its rows", "its place"])
def test_a_deleted_batch_ends_its_trigger(place: str, gone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trigger_module, "OWNER_CHECK_INTERVAL", 0.01)
    batch = begun(place, ["a"])
    trigger = trigger_of(batch)
    if gone == "its place":
        begun(place, ["of another model"])
    else:
        delete(batch, "log" if gone == "the log" else f"rows-{id_of(batch)}.jsonl")
    (event,) = events_of(trigger)
    error = event.payload["error"]
    assert error is None if gone == "the log" else "is incomplete" in str(error)


def test_a_folder_deleted_while_it_runs_stops_it(
    place: str, tag: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into a folder of an object storage that was deleted, objects can still be put."""
    monkeypatch.setattr(module, "WATCH_INTERVAL", 0.1)
    batch = begun(place, [f"{tag} {number}" for number in range(40)], delay=0.5)

    async def delete_it() -> None:
        engine = engine_of(batch, max_in_flight=2)
        running = asyncio.ensure_future(engine.run())
        await until(lambda: engine.open_runs)
        await asyncio.to_thread(delete, batch, "log")
        with pytest.raises(BatchDeleted):
            await running

    asyncio.run(delete_it())
    assert sum(submitted(emulator, tag).values()) < 40


def test_an_engine_needs_a_batch(place: str) -> None:
    with pytest.raises(Fenced, match="deleted"):
        asyncio.run(Engine(AixplainHook(), "echo", Batch(place), "gone", Limits()).run())


# Real processes that are killed and frozen


def check(batch: Batch, emulator: Emulator, texts: list[str], tag: str) -> None:
    """Each row has one result, and submissions beyond the rows are named."""
    assert Counter(result["data"] for result in results(batch)) == Counter(texts)
    counts = submitted(emulator, tag)
    assert set(counts) == set(texts)
    assert counts - Counter(texts) <= Counter(texts[int(str(key)) - 1] for key in ledger_of(batch).orphaned)


def test_killed_at_any_moment_it_is_complete(
    place: str, emulator: Emulator, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{tag} {number}" for number in range(150)]
    batch = begun(place, texts, delay=0.4)
    dice = random.Random(7)
    with Engines(batch) as engines:
        for _ in range(8):
            pid = engines.start()
            time.sleep(dice.uniform(0.1, 0.8))  # any moment is meant
            os.kill(pid, signal.SIGKILL)
            engines.wait(pid)
    monkeypatch.setattr(module, "IN_FLIGHT_MARGIN", -100)  # all earlier processes are dead
    run(batch, max_in_flight=50)
    check(batch, emulator, texts, tag)


def time_out_after(seconds: float, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = json.loads(emulator.connection)
    extra = {**connection["extra"], "timeout": seconds}
    monkeypatch.setenv("AIRFLOW_CONN_AIXPLAIN_DEFAULT", json.dumps({**connection, "extra": extra}))


def test_frozen_at_any_moment_it_is_complete(
    place: str, emulator: Emulator, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New processes take over again and again, and those that were frozen resume in any order."""
    time_out_after(1, emulator, monkeypatch)
    texts = [f"{tag} {number}" for number in range(80)]
    batch = begun(place, texts, delay=0.3)
    dice = random.Random(tag)
    frozen: list[int] = []
    emulator.set_faults(submission_seconds=0.2)
    try:
        with Engines(batch, "0.5", "0.3", "0.5") as engines:
            for _ in range(8):
                frozen.append(engines.start())
                time.sleep(dice.uniform(0.1, 0.8))  # any moment is meant
                os.kill(frozen[-1], signal.SIGSTOP)
                if len(frozen) > 2:
                    os.kill(frozen.pop(dice.randrange(len(frozen))), signal.SIGCONT)
                if dice.random() < 0.3:
                    requeue_failed(batch)
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
            for pid in engines.pids:
                engines.wait(pid)
    finally:
        emulator.set_faults()
    monkeypatch.setattr(module, "IN_FLIGHT_MARGIN", -100)
    requeue_failed(batch)
    run(batch, max_in_flight=50)
    check(batch, emulator, texts, tag)


def test_a_process_frozen_while_it_submits_fails_no_row(
    place: str, emulator: Emulator, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its requests time out then, and its successor has submitted the rows again."""
    time_out_after(1.5, emulator, monkeypatch)
    monkeypatch.setattr(module, "IN_FLIGHT_MARGIN", -100)
    texts = [f"{tag} {number}" for number in range(2)]
    batch = begun(place, texts, delay=3)
    emulator.set_faults(submission_seconds=1)
    try:
        with Engines(batch) as engines:
            pid = engines.start()
            wait_until(lambda: len(submitted(emulator, tag)) == 2, "both submissions", every=0.02)
            os.kill(pid, signal.SIGSTOP)
            emulator.set_faults()

            async def take_over() -> None:
                engine = engine_of(batch)
                successor = asyncio.ensure_future(engine.run())
                await until(lambda: engine.open_runs == 2)
                await asyncio.sleep(1)  # until the requests of the frozen process have timed out
                os.kill(pid, signal.SIGCONT)
                await asyncio.to_thread(engines.wait, pid)
                await successor

            asyncio.run(take_over())
    finally:
        emulator.set_faults()
    assert {result["data"] for result in results(batch)} == set(texts)
    assert submitted(emulator, tag) == Counter(texts * 2)
    assert Counter(ledger_of(batch).orphaned) == {1: 1, 2: 1}
