"""A batch against the emulator: each row once, whatever is killed or frozen, whatever the platform answers."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_provider_aixplain.batch import engine as module
from airflow_provider_aixplain.batch import retrying
from airflow_provider_aixplain.batch.admission import FIRST_BACKOFF, RateLimiter
from airflow_provider_aixplain.batch.batch import Batch, BatchDeleted, read_results
from airflow_provider_aixplain.batch.commit_log import CommitLog, Fenced
from airflow_provider_aixplain.batch.ledger import AttemptEvent
from airflow_provider_aixplain.exceptions import AixplainPermanentError
from tests.support.deployment import Emulator, wait_until
from tests.support.scripted import Handler, serve
from tests.unit.batch import batches
from tests.unit.batch.batches import begin_batch, engine_of, outcomes, reopen, results, run, submitted

pytestmark = pytest.mark.usefixtures("connection")


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer to an earlier process is in flight in this test, so it is not awaited. Owners often check the log."""
    monkeypatch.setattr(module, "IN_FLIGHT_MARGIN", -100)
    monkeypatch.setattr(module, "WATCH_INTERVAL", 0.1)


def attempts_of(batch: Batch) -> list[tuple[str, float]]:
    """Return the event and the attempt of each record of an attempt."""
    return [(record["event"], record["attempt"]) for record in reopen(batch).log.read() if "attempt" in record]


def test_each_row_is_run_once(place: str, emulator: Emulator, tag: str) -> None:
    texts = [f"{tag} {number}" for number in range(40)]
    batch = begin_batch(place, texts, delay=0.3)
    run(batch, max_in_flight=7)
    assert submitted(emulator, tag) == Counter(texts)
    assert {result["key"]: result["data"] for result in results(batch)} == dict(enumerate(texts, start=1))
    runs = [run for run in emulator.runs() if str(run["payload"].get("data")).startswith(tag)]
    changes = sorted([(run["submitted_at"], 1) for run in runs] + [(run["finishes_at"], -1) for run in runs])
    assert max(itertools.accumulate(change for _, change in changes)) == 7, "no more are in flight"
    run(batch)
    assert submitted(emulator, tag) == Counter(texts), "a batch that has finished submits nothing"


def test_large_rows_are_read_in_bounded_memory(tmp_path: Path) -> None:
    batch = begin_batch(f"file://{tmp_path}/out", ["x" * 1_000_000] * 50, delay=0)
    tracemalloc.start()
    try:
        run(batch, max_in_flight=5)
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()


def test_a_burst_of_refusals_counts_once() -> None:
    limiter = RateLimiter(None)
    for _ in range(100):
        limiter.back_off(None, acquired_at=1.0)
    assert limiter._backoff == FIRST_BACKOFF
    limiter.back_off(1e9, acquired_at=time.monotonic())
    assert limiter._backoff == 2 * FIRST_BACKOFF
    assert limiter._next - time.monotonic() < 700, "no batch waits for years"


def test_results_can_be_read_while_it_runs(place: str, tag: str) -> None:
    batch = begin_batch(place, [f"{tag} {number}" for number in range(20)], delay=0.2)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(run, batch, max_in_flight=5)
        wait_until(lambda: len(list(read_results(place))) >= 5, "results", every=0.05)
        if place.startswith("file:"):
            file = Path(place.removeprefix("file://")) / "results.jsonl"
            lines = wait_until(lambda: file.read_text().splitlines()[4:], "five lines", every=0.05)
            assert json.loads(lines[0]) in read_results(place)
            assert '"event"' not in lines[0]
        assert not running.done()
    assert list(read_results(place)) == results(batch)


class Platform:
    """A platform that answers submissions from a script, and reports every run as completed."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes, dict[str, str]]] = []
        self.submissions: list[float] = []
        self.on_submission: Callable[[], object] = lambda: None
        self.revoked_key = ""
        self.failing_run = ""
        self.url = ""

    def __call__(self, http: Handler) -> None:
        if http.command == "GET":
            outcome = "FAILED" if http.path == self.failing_run else "SUCCESS"
            answer = {"completed": True, "status": outcome, "data": "done", "usedCredits": 1}
            http.answer(200, json.dumps(answer).encode())
            return
        self.submissions.append(time.monotonic())
        accepted = 201, json.dumps({"data": f"{self.url}/run"}).encode(), dict[str, str]()
        status, body, headers = self.answers.pop(0) if self.answers else accepted
        self.on_submission()
        if http.headers["x-api-key"] == self.revoked_key:
            status = 401
        http.answer(status, body, **headers)


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    script = Platform()
    with serve(script) as server:
        script.url = server.url
        monkeypatch.setenv("AIRFLOW_CONN_SCRIPTED", json.dumps({"host": server.url, "password": "key"}))
        yield script


def test_a_rate_limit_is_kept(tmp_path: Path, platform: Platform) -> None:
    batch = begin_batch(f"file://{tmp_path}", list("abcdefghij"))
    run(batch, "scripted", max_per_second=10)
    intents = sorted(attempt for event, attempt in attempts_of(batch) if event == "intent")
    assert all(later - earlier >= 0.095 for earlier, later in itertools.pairwise(intents))


WARNING = b'{"completed": true, "status": "SUCCESS", "data": "hi", "error_message": "a warning", "usedCredits": 1}'


@pytest.mark.parametrize(
    ("answer", "submissions", "outcome", "expected"),
    [
        ((429, b"{}", {"Retry-After": "1"}), 3, "success", {"status": "SUCCESS", "data": "done"}),
        ((503, b"{}", {}), 2, "orphaned", {"status": "FAILED", "may_succeed": True}),
        ((422, b"{}", {}), 2, "refused", {"status": "FAILED"}),
        ((200, WARNING, {}), 2, "success", {"status": "SUCCESS", "data": "hi", "error": None}),
        ((200, b'{"status": "ABORTED"}', {}), 2, "failed", {"error": "ABORTED: the platform gives no reason"}),
    ],
    ids=["overloaded", "may have arrived", "refused", "immediate success with a warning", "immediate failure"],
)
def test_an_answer_decides_whether_a_row_is_submitted_again(
    place: str, platform: Platform, answer: Any, submissions: int, outcome: str, expected: dict[str, Any]
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
    assert outcomes(engine) == Counter([outcome, "success"])


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ([(402, b'{"error": "no credits left"}', {})], "no credits left"),
        ([(401, b'{"error": "wrong key"}', {})] * 2, "wrong key"),  # the key is read again once
    ],
)
def test_a_refusal_of_every_row_ends_the_batch(place: str, platform: Platform, answers: Any, error: str) -> None:
    platform.answers = [*answers]
    batch = begin_batch(place, list("abcde"))
    engine = engine_of(batch, "scripted", max_in_flight=1)
    with pytest.raises(AixplainPermanentError, match=error):
        asyncio.run(engine.run())
    assert outcomes(engine) == {"refused": 1}
    assert len(platform.submissions) == len(answers)
    assert results(batch) == []
    run(batch, "scripted")
    assert len(results(batch)) == 5, "nothing was lost"


def test_a_rotated_key_is_read_again(place: str, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = json.dumps({"host": platform.url, "password": "new"})
    platform.revoked_key = "key"
    platform.on_submission = lambda: monkeypatch.setenv("AIRFLOW_CONN_SCRIPTED", connection)
    batch = begin_batch(place, ["a", "b"])
    run(batch, "scripted")
    assert [result["status"] for result in results(batch)] == ["SUCCESS"] * 2


@pytest.mark.usefixtures("no_wait")
@pytest.mark.parametrize("is_restart", [False, True])
def test_a_new_owner_stops_the_old_one(place: str, emulator: Emulator, tag: str, is_restart: bool) -> None:
    """Even if all rows are submitted, so that the old owner has no command to commit."""
    texts = [f"{tag} {number}" for number in range(20)]
    new_texts = [f"{tag} new"] if is_restart else texts
    batch = begin_batch(place, texts, delay=1)
    old = engine_of(batch, max_in_flight=20)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(asyncio.run, old.run())
        wait_until(lambda: old.open_runs == 20, "all runs", every=0.01)
        run(begin_batch(place, new_texts, delay=0) if is_restart else batch)
        with pytest.raises(Fenced):
            running.result()
    assert {result["data"] for result in results(batch)} == set(new_texts)
    assert submitted(emulator, tag) == Counter({*texts, *new_texts})


def test_only_one_of_two_workers_begins_or_resumes(place: str) -> None:
    late = Batch(place)
    late.read()
    batch = begin_batch(place, ["a"])
    with pytest.raises(Fenced, match="a retry resumes it"):
        late.begin([], batches.make_header)
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
    assert outcomes(run(batch, timeout=0.3)) == {"timeout": 3}
    assert [(result["status"], result["is_known"]) for result in results(batch)] == [("FAILED", False)] * 3
    assert batches.requeue_failed(batch) == 3
    assert outcomes(run(batch)) == {"success": 3}
    assert [result["status"] for result in results(batch)] == ["SUCCESS"] * 3
    assert set(submitted(emulator, tag).values()) == {1}, "and is not paid twice"


def test_a_run_that_is_older_than_the_timeout_is_awaited(tmp_path: Path, emulator: Emulator, tag: str) -> None:
    """A retry starts soon after the run has timed out, when a first poll finds it in progress."""
    batch = begin_batch(f"file://{tmp_path}/out", [tag])
    payload, headers = {"data": tag, "delay": 2}, {"x-api-key": "any"}
    answer = requests.post(f"{emulator.url}/api/v1/execute/echo", json=payload, headers=headers, timeout=30).json()
    fields = {"batch": batch.header.batch, "url": answer["data"]}
    accepted = batches.attempt_record(0, time.time() - 30, AttemptEvent.ACCEPTED, **fields)
    reopen(batch).log.append([accepted], fenced=False)
    assert outcomes(run(batch, timeout=20)) == {"success": 1}


def test_a_late_intent_is_given_up(place: str, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert [event for event, _ in attempts_of(batch)] == ["intent", "rejected", "intent", "accepted", "result"]
    assert len(platform.submissions) == 1


@pytest.mark.parametrize(
    ("kind", "name"),
    [(Batch, "claim"), (Batch, "rows"), (module, "islice"), (CommitLog, "append"), (CommitLog, "catch_up")],
)
def test_a_storage_that_fails_for_a_while_is_retried(
    place: str, emulator: Emulator, tag: str, kind: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{tag} {number}" for number in range(10)]
    monkeypatch.setattr(retrying, "RETRY_DELAY", 0.01)
    monkeypatch.setattr(module, "ROWS_PER_READ", 3)
    engine = engine_of(begin_batch(place, texts, delay=0))
    calls = batches.fail_calls(monkeypatch, kind, name, {1, 3})
    asyncio.run(engine.run())
    assert len(calls) >= 2
    assert submitted(emulator, tag) == Counter(texts)


@pytest.mark.parametrize("failing", [1, 2])
def test_all_accepted_runs_of_a_row_are_polled(place: str, platform: Platform, failing: int) -> None:
    """A process that was frozen got its answer late. Each run has cost a credit."""
    batch = begin_batch(place, ["a"])
    platform.failing_run = f"/run/{failing}"
    accepted = partial(batches.attempt_record, 0, event=AttemptEvent.ACCEPTED, batch=batch.header.batch)
    records = [accepted(attempt, url=f"{platform.url}/run/{attempt}") for attempt in (1, 2)]
    reopen(batch).log.append(records, fenced=False)
    run(batch, "scripted")
    assert platform.submissions == []
    assert [result["status"] for result in results(batch)] == ["SUCCESS"]
    # The one that has failed is known only if it was polled first.
    assert reopen(batch).ledger.totals.credits == (2 if failing == 2 else 1)


def test_a_row_accepted_late_is_not_submitted(place: str, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer to an earlier process arrives while all rows back off."""
    batch = begin_batch(place, ["a"])
    engine = engine_of(batch, "scripted")
    acquire = engine._rate_limiter.acquire
    late = batches.attempt_record(0, 1.0, AttemptEvent.ACCEPTED, batch=batch.header.batch, url=f"{platform.url}/run")

    async def wait() -> float:
        engine.ledger.apply(late)
        return await acquire()

    monkeypatch.setattr(engine._rate_limiter, "acquire", wait)
    asyncio.run(engine.run())
    assert platform.submissions == []
    assert attempts_of(batch) == [("result", 1.0)], "no intent"


@pytest.mark.parametrize("status", [201, 503])
def test_a_fenced_process_commits_only_facts(place: str, platform: Platform, status: int) -> None:
    """A success is a fact. That a row has failed because no answer came is a decision of the owner."""
    batch = begin_batch(place, ["a"])
    other = reopen(batch)
    platform.answers = [(status, b'{"status": "SUCCESS", "completed": true, "data": "done"}', {})]
    platform.on_submission = lambda: other.claim(other.header.batch, "a triggerer")
    with nullcontext() if status == 201 else pytest.raises(Fenced):
        run(batch, "scripted")
    assert [result["data"] for result in results(batch)] == (["done"] if status == 201 else [])
    assert reopen(batch).ledger.orphaned == ([] if status == 201 else [1])


@pytest.mark.usefixtures("no_wait")
def test_a_folder_deleted_while_it_runs_stops_it(place: str, tag: str, emulator: Emulator) -> None:
    """In object storage, objects can still be put into a folder that was deleted."""
    batch = begin_batch(place, [f"{tag} {number}" for number in range(40)], delay=0.5)
    engine, late = engine_of(batch, max_in_flight=2), engine_of(batch)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(asyncio.run, engine.run())
        wait_until(lambda: engine.open_runs, "a run", every=0.01)
        batches.delete(batch, "log")
        with pytest.raises(BatchDeleted):
            running.result()
    assert sum(submitted(emulator, tag).values()) < 40
    with pytest.raises(BatchDeleted, match="was deleted"):
        asyncio.run(late.run())


# Real processes that are killed and frozen


def finish(batch: Batch, emulator: Emulator, texts: list[str], tag: str) -> None:
    """Check that each row has one result, and that submissions beyond the rows are named."""
    run(batch, max_in_flight=50)
    assert Counter(result["data"] for result in results(batch)) == Counter(texts)
    counts = submitted(emulator, tag)
    assert set(counts) == set(texts)
    assert counts - Counter(texts) <= Counter(texts[int(str(key)) - 1] for key in reopen(batch).ledger.orphaned)


@pytest.mark.usefixtures("no_wait")
def test_killed_at_any_moment_it_is_complete(place: str, emulator: Emulator, tag: str) -> None:
    texts = [f"{tag} {number}" for number in range(150)]
    batch = begin_batch(place, texts, delay=0.4)
    dice = random.Random(7)
    with batches.engines_of(batch) as start:
        for _ in range(8):
            pid = start()
            time.sleep(dice.uniform(0.1, 0.8))  # any moment is meant
            os.kill(pid, signal.SIGKILL)
    finish(batch, emulator, texts, tag)


@pytest.mark.usefixtures("no_wait")
def test_frozen_at_any_moment_it_is_complete(
    place: str, emulator: Emulator, tag: str, connection: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """New processes take over again and again, and those that were frozen resume in any order."""
    connection["extra"]["timeout"] = 1
    monkeypatch.setenv("AIRFLOW_CONN_AIXPLAIN_DEFAULT", json.dumps(connection))
    texts = [f"{tag} {number}" for number in range(80)]
    batch = begin_batch(place, texts, delay=0.3)
    dice = random.Random(tag)
    frozen: list[int] = []
    emulator.set_faults(submission_seconds=0.2)
    try:
        with batches.engines_of(batch, "0.5", "0.3", "0.5") as start:
            for _ in range(8):
                pid = start()
                time.sleep(dice.uniform(0.1, 0.8))  # any moment is meant
                with suppress(ProcessLookupError):  # it has ended, if one that was frozen before its claim was resumed
                    os.kill(pid, signal.SIGSTOP)
                    frozen.append(pid)
                if len(frozen) > 2:
                    os.kill(frozen.pop(dice.randrange(len(frozen))), signal.SIGCONT)
                if dice.random() < 0.3:
                    batches.requeue_failed(batch)
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
    finally:
        emulator.set_faults()
    batches.requeue_failed(batch)
    finish(batch, emulator, texts, tag)
