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
from contextlib import nullcontext
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
from airflow_provider_aixplain.protocol.assets import Asset
from tests.support.deployment import Emulator, wait_until
from tests.support.scripted import Handler, serve
from tests.unit.batch.batches import (
    Engines,
    FailingCalls,
    begin_batch,
    commit_event,
    delete,
    engine_of,
    event,
    header_of,
    id_of,
    ledger_of,
    reopen,
    requeue_failed,
    results,
    rows_of,
    run,
    submitted,
    until,
)

pytestmark = pytest.mark.usefixtures("connection")
INTENT, ACCEPTED, REJECTED = AttemptEvent.INTENT, AttemptEvent.ACCEPTED, AttemptEvent.REJECTED


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer to an earlier process is in flight in this test, so it is not awaited."""
    monkeypatch.setattr(module, "IN_FLIGHT_MARGIN", -100)


def test_each_row_is_run_once(place: str, emulator: Emulator, tag: str) -> None:
    texts = [f"{tag} {number}" for number in range(40)]
    batch = begin_batch(place, texts, delay=0.3)
    engine = run(batch, max_in_flight=7)
    assert submitted(emulator, tag) == Counter(texts)
    assert {result["key"]: result["data"] for result in results(batch)} == dict(enumerate(texts, start=1))
    assert engine.ledger.totals.succeeded == 40
    runs = [run for run in emulator.runs() if str(run["payload"].get("data")).startswith(tag)]
    changes = sorted([(run["submitted_at"], 1) for run in runs] + [(run["finishes_at"], -1) for run in runs])
    assert max(itertools.accumulate(change for _, change in changes)) == 7, "no more are in flight"
    run(batch)
    assert submitted(emulator, tag) == Counter(texts), "a batch that has finished submits nothing"


def test_a_rate_limit_is_kept(tmp_path: Path, platform: Platform) -> None:
    run(begin_batch(f"file://{tmp_path}", list("abcdefghij")), "scripted", max_per_second=10)
    intents = [record["attempt"] for record in reopen(Batch(f"file://{tmp_path}")).log.read() if is_intent(record)]
    assert all(later - earlier >= 0.095 for earlier, later in itertools.pairwise(sorted(intents)))


def is_intent(record: dict[str, Any]) -> bool:
    return record["event"] == "intent"


def test_a_burst_of_refusals_counts_once() -> None:
    limiter = RateLimiter(None)
    for _ in range(100):
        limiter.back_off(None, acquired_at=1.0)
    assert limiter._backoff == FIRST_BACKOFF
    limiter.back_off(1e9, acquired_at=time.monotonic())
    assert limiter._backoff == 2 * FIRST_BACKOFF
    assert limiter._next - time.monotonic() < 700, "no batch waits for years"


def test_results_can_be_read_while_it_runs(place: str, tag: str) -> None:
    texts = [f"{tag} {number}" for number in range(20)]
    batch = begin_batch(place, texts, delay=0.2)

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
    run(begin_batch(place, [f"{tag} new"], delay=0))
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


WARNING = b'{"completed": true, "status": "SUCCESS", "data": "hi", "error_message": "a warning", "usedCredits": 1}'


@pytest.mark.parametrize(
    ("answer", "submissions", "expected"),
    [
        ((429, b"{}", {"Retry-After": "1"}), 3, {"status": "SUCCESS", "data": "done"}),
        ((503, b"{}", {}), 2, {"status": "FAILED", "may_succeed": True}),
        ((200, WARNING, {}), 2, {"status": "SUCCESS", "data": "hi", "error": None}),
        ((200, b'{"status": "ABORTED"}', {}), 2, {"error": "ABORTED: the platform gives no reason"}),
    ],
    ids=["overloaded", "may have arrived", "immediate success with a warning", "immediate failure"],
)
def test_an_answer_decides_whether_a_row_is_submitted_again(
    place: str, platform: Platform, answer: Any, submissions: int, expected: dict[str, Any]
) -> None:
    platform.answers = [answer]
    batch = begin_batch(place, ["a", "b"])
    engine = run(batch, "scripted", max_in_flight=1)
    assert len(platform.submissions) == submissions
    if submissions > 2:
        assert platform.submissions[1] - platform.submissions[0] >= 0.8
    assert engine.ledger.orphaned == ([1] if answer[0] == 503 else [])
    first, second = sorted(results(batch), key=lambda result: result["row"])
    assert expected.items() <= first.items()
    assert second["status"] == "SUCCESS"


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ([(402, b'{"error": "no credits left"}', {})], "no credits left"),
        ([(401, b'{"error": "wrong key"}', {})] * 2, "wrong key"),  # the key is read again once
    ],
)
def test_a_refusal_of_every_row_ends_the_batch(place: str, platform: Platform, answers: Any, error: str) -> None:
    platform.answers = [*answers]
    batch = begin_batch(place, [str(number) for number in range(5)])
    with pytest.raises(AixplainPermanentError, match=error):
        run(batch, "scripted", max_in_flight=1)
    assert len(platform.submissions) == len(answers)
    assert results(batch) == []
    run(batch, "scripted")
    assert len(results(batch)) == 5, "nothing was lost"


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
        batch = begin_batch(place, ["a", "b"])
        run(batch, "rotated")
    assert [result["status"] for result in results(batch)] == ["SUCCESS"] * 2


@pytest.mark.usefixtures("no_wait")
@pytest.mark.parametrize("is_restart", [False, True])
def test_a_new_owner_stops_the_old_one(
    place: str, emulator: Emulator, tag: str, is_restart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if all rows are submitted, so that the old owner has no command to commit."""
    monkeypatch.setattr(module, "WATCH_INTERVAL", 0.2)
    texts = [f"{tag} {number}" for number in range(20)]
    new_texts = [f"{tag} new"] if is_restart else texts
    batch = begin_batch(place, texts, delay=1)

    async def both() -> None:
        old = engine_of(batch, max_in_flight=20)
        first = asyncio.ensure_future(old.run())
        await until(lambda: old.open_runs == 20)
        if is_restart:
            begin_batch(place, new_texts, delay=0)
        await engine_of(batch).run()
        with pytest.raises(Fenced):
            await first

    asyncio.run(both())
    assert {result["data"] for result in results(batch)} == set(new_texts)
    assert submitted(emulator, tag) == Counter({*texts, *new_texts})


def test_only_one_of_two_workers_begins_or_resumes(place: str) -> None:
    batch, late = Batch(place), Batch(place)
    for worker in (batch, late):
        worker.read()
    batch.begin(rows_of(["a"]), header_of(1))
    with pytest.raises(Fenced, match="a retry resumes it"):
        late.begin(rows_of(["b"]), header_of(1))
    first, second = reopen(batch), reopen(batch)
    first.resume()
    with pytest.raises(Fenced, match="a retry resumes it"):
        second.resume()


def test_an_engine_that_is_stopped_before_it_runs_does_nothing(place: str, emulator: Emulator, tag: str) -> None:
    engine = engine_of(begin_batch(place, [tag]))
    engine.stop()
    asyncio.run(engine.run())
    assert submitted(emulator, tag) == {}


def test_a_row_that_has_timed_out_is_polled_again(place: str, emulator: Emulator, tag: str) -> None:
    batch = begin_batch(place, [f"{tag} {number}" for number in range(3)], delay=1)
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
    batch = begin_batch(place, ["a"])
    engine = engine_of(batch, "scripted")
    commit, freezes = engine._committer.commit, iter([1.0])

    async def freeze_once(record: dict[str, Any], *, fenced: bool) -> None:
        await commit(record, fenced=fenced)
        if fenced:
            await asyncio.sleep(next(freezes, 0))

    monkeypatch.setattr(engine._committer, "commit", freeze_once)
    asyncio.run(engine.run())
    kinds = [record["event"] for record in reopen(batch).log.read() if "attempt" in record]
    assert kinds == ["intent", "rejected", "intent", "accepted", "result"]
    assert len(platform.submissions) == 1


@pytest.mark.parametrize(
    ("kind", "name"),
    [(Batch, "claim"), (Batch, "rows"), (module, "islice"), (CommitLog, "append"), (CommitLog, "catch_up")],
)
def test_a_storage_that_fails_for_a_while_is_retried(
    place: str, emulator: Emulator, tag: str, kind: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{tag} {number}" for number in range(10)]
    batch = begin_batch(place, texts, delay=0)
    monkeypatch.setattr(retrying, "RETRY_DELAY", 0.01)
    monkeypatch.setattr(module, "ROWS_PER_READ", 3)
    engine = engine_of(batch)
    failing = FailingCalls(monkeypatch, kind, name, {1, 3})
    asyncio.run(engine.run())
    assert failing.calls >= 2
    assert submitted(emulator, tag) == Counter(texts)


@pytest.mark.parametrize("failing", ["/run/1", "/run/2"])
def test_all_accepted_runs_of_a_row_are_polled(place: str, platform: Platform, failing: str) -> None:
    """A process that was frozen got its answer late. Each run has cost a credit."""
    batch = begin_batch(place, ["a"])
    platform.failing = {failing}
    for attempt in (1.0, 2.0):
        commit_event(batch, 0, attempt, INTENT)
        commit_event(batch, 0, attempt, ACCEPTED, url=f"{platform.url}/run/{attempt:.0f}")
    run(batch, "scripted")
    assert platform.submissions == []
    assert [result["status"] for result in results(batch)] == ["SUCCESS"]
    # The one that has failed is known only if it was polled first.
    assert ledger_of(batch).totals.credits == (2 if failing == "/run/2" else 1)


def test_a_row_accepted_late_is_not_submitted(place: str, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer to an earlier process arrives while all rows back off."""
    batch = begin_batch(place, ["a"])
    engine = engine_of(batch, "scripted")
    acquire = engine._rate_limiter.acquire

    async def wait() -> float:
        engine.ledger.apply(event(batch, 0, 1.0, ACCEPTED, url=f"{platform.url}/run/1"))
        return await acquire()

    monkeypatch.setattr(engine._rate_limiter, "acquire", wait)
    asyncio.run(engine.run())
    assert platform.submissions == []
    assert not any(map(is_intent, reopen(batch).log.read()))
    assert [result["attempt"] for result in results(batch)] == [1.0]


@pytest.mark.parametrize("status", [201, 503])
def test_a_fenced_process_commits_only_facts(place: str, platform: Platform, status: int) -> None:
    """A success is a fact. That a row has failed because no answer came is a decision of the owner."""
    batch = begin_batch(place, ["a"])
    other, batch_id = reopen(batch), id_of(batch)
    platform.answers = [(status, b'{"status": "SUCCESS", "completed": true, "data": "done"}', {})]
    platform.on_submission = lambda: other.claim(batch_id, "a triggerer")
    with nullcontext() if status == 201 else pytest.raises(Fenced):
        run(batch, "scripted")
    assert [result["data"] for result in results(batch)] == (["done"] if status == 201 else [])
    assert ledger_of(batch).orphaned == ([] if status == 201 else [1])


def test_a_folder_deleted_while_it_runs_stops_it(
    place: str, tag: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into a folder of an object storage that was deleted, objects can still be put."""
    monkeypatch.setattr(module, "WATCH_INTERVAL", 0.1)
    batch = begin_batch(place, [f"{tag} {number}" for number in range(40)], delay=0.5)

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
        asyncio.run(Engine(AixplainHook(), Asset("model", "echo"), Batch(place), "gone", Limits()).run())


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
    batch = begin_batch(place, texts, delay=0.4)
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


def test_frozen_at_any_moment_it_is_complete(
    place: str, emulator: Emulator, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New processes take over again and again, and those that were frozen resume in any order."""
    connection = json.loads(emulator.connection)
    connection["extra"]["timeout"] = 1
    monkeypatch.setenv("AIRFLOW_CONN_AIXPLAIN_DEFAULT", json.dumps(connection))
    texts = [f"{tag} {number}" for number in range(80)]
    batch = begin_batch(place, texts, delay=0.3)
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
