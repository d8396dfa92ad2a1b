"""A batch against the emulator: each row once, whoever is killed, whatever the platform does."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from airflow_provider_aixplain.batch import engine as module
from airflow_provider_aixplain.batch import patience
from airflow_provider_aixplain.batch.engine import Engine, Gate, Limits
from airflow_provider_aixplain.batch.rows import Row
from airflow_provider_aixplain.batch.state import Header, State, Superseded
from airflow_provider_aixplain.exceptions import AixplainPermanentError
from airflow_provider_aixplain.hooks.aixplain import AixplainHook
from airflow_provider_aixplain.triggers import batch as trigger_module
from airflow_provider_aixplain.triggers.batch import AixplainBatchTrigger
from tests.airflow.deployment import Emulator, wait_until
from tests.airflow.services import ATTACH
from tests.unit.batch.batches import (
    KILLED,
    Trouble,
    batch_of,
    begun,
    end,
    engine_of,
    forget_failed,
    header_of,
    note,
    progress_of,
    published,
    results,
    run,
    submitted,
    trigger_of,
)
from tests.unit.transport.scripted import Handler, serve

pytestmark = pytest.mark.usefixtures("connection")


def test_each_row_is_run_once(place: str, emulator: Emulator, tag: str) -> None:
    texts = [f"{tag} {number}" for number in range(60)]
    state = begun(place, texts, delay=0.3)
    engine = run(state, max_in_flight=20)
    assert submitted(emulator, tag) == Counter(texts)
    assert {result["key"]: result["data"] for result in results(state)} == dict(enumerate(texts, start=1))
    assert engine.progress.totals.succeeded == 60
    run(state)
    assert submitted(emulator, tag) == Counter(texts), "a batch that is done submits nothing"


def test_no_more_are_in_flight_than_may_be(place: str, emulator: Emulator, tag: str) -> None:
    run(begun(place, [f"{tag} {number}" for number in range(30)], delay=0.5), max_in_flight=7)
    runs = [run for run in emulator.runs() if str(run["payload"].get("data")).startswith(tag)]
    events = sorted([(run["submitted_at"], 1) for run in runs] + [(run["over_at"], -1) for run in runs])
    most = in_flight = 0
    for _, change in events:
        in_flight += change
        most = max(most, in_flight)
    assert most == 7


def test_a_rate_limit_is_kept(place: str, tag: str) -> None:
    state = begun(place, [f"{tag} {number}" for number in range(10)], delay=0)
    run(state, max_per_second=10)
    times = [record["attempt"] for record in state.submissions.read() if record.get("is") == "begun"]
    assert all(later - earlier >= 0.095 for earlier, later in itertools.pairwise(times))


def test_failures_are_results_too(place: str) -> None:
    state = begun(place, ["a", "b"], delay=0)
    engine = run(state, model_id="fail")
    assert engine.progress.totals.failed == 2
    for result in results(state):
        assert (result["status"], result["error"]) == ("FAILED", "this model always fails")
        assert result["may_succeed"] is True
    assert forget_failed(state) == 2
    assert results(state) == []
    run(state, model_id="fail")
    assert len(results(state)) == 2


class Platform:
    """A platform that answers submissions as it is told to, and says of every run that it is over."""

    def __init__(self, answers: list[tuple[int, bytes, dict[str, str]]]) -> None:
        self.answers = answers
        self.submissions: list[float] = []
        self.on_submission: Callable[[], object] = lambda: None
        self.failing: set[str] = set()
        self.url = ""
        self._lock = threading.Lock()

    def __call__(self, http: Handler) -> None:
        if http.command == "GET":
            ended = "FAILED" if http.path in self.failing else "SUCCESS"
            told = {"completed": True, "status": ended, "data": "done", "usedCredits": 1}
            http.answer(200, json.dumps(told).encode())
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


def test_an_overloaded_platform_is_left_alone_by_all_rows_together(place: str, platform: Platform) -> None:
    platform.answers = [(429, b"{}", {"Retry-After": "1"})]
    state = begun(place, [str(number) for number in range(5)])
    run(state, "scripted", max_in_flight=1)
    assert len(platform.submissions) == 6, "one was refused, and submitted again"
    assert platform.submissions[1] - platform.submissions[0] >= 0.8
    assert all(result["status"] == "SUCCESS" for result in results(state))


def test_a_submission_that_may_have_arrived_is_not_repeated(place: str, platform: Platform) -> None:
    platform.answers = [(503, b"{}", {})]
    state = begun(place, ["a", "b"])
    engine = run(state, "scripted", max_in_flight=1)
    assert len(platform.submissions) == 2
    assert engine.progress.orphaned == [1]
    first, second = sorted(results(state), key=lambda result: result["row"])
    assert (first["status"], first["may_succeed"], second["status"]) == ("FAILED", True, "SUCCESS")


def test_a_success_at_once_with_a_warning_is_a_success(place: str, platform: Platform) -> None:
    ended = {"completed": True, "status": "SUCCESS", "data": "hi", "error_message": "a warning", "usedCredits": 1}
    platform.answers = [(200, json.dumps(ended).encode(), {}), (200, b'{"status": "ABORTED"}', {})]
    state = begun(place, ["a", "b"])
    run(state, "scripted", max_in_flight=1)
    first, second = sorted(results(state), key=lambda result: result["row"])
    assert (first["status"], first["data"], first["error"]) == ("SUCCESS", "hi", None)
    assert (second["status"], second["error"]) == ("FAILED", "ABORTED: the platform gives no reason")


def test_what_every_row_would_be_refused_for_ends_the_batch(place: str, platform: Platform) -> None:
    platform.answers = [(402, b'{"error": "no credits left"}', {})]
    state = begun(place, [str(number) for number in range(5)])
    with pytest.raises(AixplainPermanentError, match="no credits left"):
        run(state, "scripted", max_in_flight=1)
    assert len(platform.submissions) == 1
    assert results(state) == []
    run(state, "scripted")
    assert len(results(state)) == 5, "nothing was lost"


def test_no_more_credits_are_spent_than_may_be(place: str, platform: Platform) -> None:
    state = begun(place, [str(number) for number in range(9)])
    engine = run(state, "scripted", max_in_flight=1, max_credits=3)
    assert engine.is_spent
    assert len(platform.submissions) == len(results(state)) == 3
    run(state, "scripted", max_credits=100)
    assert len(platform.submissions) == len(results(state)) == 9


def test_who_is_superseded_stops_and_takes_nothing_away(
    place: str, emulator: Emulator, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A triggerer that stood still, and comes back while another one is at it."""
    monkeypatch.setattr(module, "LAG", -60)  # nothing is under way anywhere here
    texts = [f"{tag} {number}" for number in range(60)]
    state = begun(place, texts, delay=0.3)

    async def both() -> None:
        engines = [engine_of(state, max_in_flight=10) for _ in range(2)]
        first = asyncio.ensure_future(engines[0].run())
        while engines[0].progress.totals.done < 15:  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(0.01)
        await engines[1].run()
        with pytest.raises(Superseded):
            await first

    asyncio.run(both())
    assert {result["data"] for result in results(state)} == set(texts)
    again = {text: count for text, count in submitted(emulator, tag).items() if count > 1}
    assert set(again) <= {texts[int(str(key)) - 1] for key in progress_of(state).orphaned}


def test_who_only_polls_sees_that_it_is_superseded(place: str, emulator: Emulator, tag: str) -> None:
    """It has nothing more to submit, and so nothing to write by which it would notice."""
    texts = [f"{tag} {number}" for number in range(10)]
    state = begun(place, texts, delay=1)

    async def both() -> None:
        engines = [engine_of(state) for _ in range(2)]
        first = asyncio.ensure_future(engines[0].run())
        while len(progress_of(state).accepted) < 10:  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(0.01)
        await engines[1].run()
        with pytest.raises(Superseded):
            await first

    asyncio.run(both())
    assert {result["data"] for result in results(state)} == set(texts)
    assert submitted(emulator, tag) == Counter(texts)


def test_a_worker_that_begins_anew_stops_who_is_still_at_it(
    place: str, emulator: Emulator, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a task is cleared: its old trigger may go on for a while."""
    texts = [f"{tag} old {number}" for number in range(60)]
    state = begun(place, texts, delay=0.3)

    async def both() -> None:
        old = engine_of(state, max_in_flight=10)
        running = asyncio.ensure_future(old.run())
        while old.progress.totals.done < 15:  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(0.01)
        new = begun(place, [f"{tag} new"], delay=0)
        with pytest.raises(Superseded):
            await running
        await engine_of(new).run()

    asyncio.run(both())
    assert [result["data"] for result in results(state)] == [f"{tag} new"]
    assert sum(submitted(emulator, f"{tag} old").values()) < 60
    assert submitted(emulator, f"{tag} new") == {f"{tag} new": 1}


def test_who_is_stopped_before_it_begins_does_nothing(place: str, emulator: Emulator, tag: str) -> None:
    state = begun(place, [tag])
    engine = engine_of(state)
    engine.stop_from_elsewhere()
    asyncio.run(engine.run())
    assert submitted(emulator, tag) == {}


def test_a_row_whose_time_is_up_is_asked_for_again_and_not_paid_twice(place: str, emulator: Emulator, tag: str) -> None:
    state = begun(place, [f"{tag} {number}" for number in range(3)], delay=1)
    run(state, timeout=0.3)
    assert [(result["status"], result["is_known"]) for result in results(state)] == [("FAILED", False)] * 3
    assert forget_failed(state) == 3
    run(state)
    assert [result["status"] for result in results(state)] == ["SUCCESS"] * 3
    assert set(submitted(emulator, tag).values()) == {1}


def test_what_failed_tries_have_cost_is_kept(place: str) -> None:
    state = begun(place, ["a", "b"], delay=0)
    spent = 0.0
    for _ in range(3):
        engine = run(state, model_id="fail")
        assert engine.progress.totals.credits > spent
        spent = engine.progress.totals.credits
        forget_failed(state)
        assert progress_of(state).totals.credits == pytest.approx(spent)


def test_a_burst_of_refusals_counts_once() -> None:
    gate = Gate(None)
    for _ in range(100):
        gate.pause(None, passed_at=1.0)
    assert gate._pause == module.FIRST_PAUSE
    gate.pause(1e9, passed_at=time.monotonic())
    assert gate._pause == 2 * module.FIRST_PAUSE
    assert gate._next - time.monotonic() < 700, "nobody waits for years"


def test_rows_that_cannot_be_read_on_lose_no_answer_under_way(
    place: str, emulator: Emulator, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{tag} {number}" for number in range(10)]
    state = begun(place, texts, delay=1)
    emulator.set_faults(submission_seconds=0.5)
    read = State.rows

    def rows(self: State, batch: str) -> Iterator[Row]:
        reads.append(self)
        if len(reads) == 3:  # the second time has found what is to be submitted
            raise OSError("Stale file handle")
        yield from read(self, batch)

    reads: list[State] = []
    try:
        with monkeypatch.context() as patch:
            patch.setattr(State, "rows", rows)
            patch.setattr(patience, "PATIENCE", -1)
            with pytest.raises(OSError, match="Stale"):
                run(state)
    finally:
        emulator.set_faults()
    assert progress_of(state).begun == {}
    run(state)
    assert {result["data"] for result in results(state)} == set(texts)
    assert submitted(emulator, tag) == Counter(texts)
    assert progress_of(state).orphaned == []


@pytest.mark.parametrize("name", ["header", "claim", "progress", "rows"])
def test_trouble_of_the_storage_is_waited_for(
    place: str, emulator: Emulator, tag: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{tag} {number}" for number in range(10)]
    state = begun(place, texts, delay=0)
    monkeypatch.setattr(patience, "PAUSE", 0.01)
    monkeypatch.setattr(module, "READ_AT_A_TIME", 3)
    engine = engine_of(state)
    trouble = Trouble(monkeypatch, State, name, {1, 3})
    asyncio.run(engine.run())
    assert trouble.calls >= 2
    assert submitted(emulator, tag) == Counter(texts)


def test_rows_that_could_not_be_read_on_are_read_from_there(
    place: str, emulator: Emulator, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{tag} {number}" for number in range(10)]
    state = begun(place, texts, delay=0)
    read, stops = State.rows, iter([4, 6, 0])

    def rows(self: State, batch: str) -> Iterator[Row]:
        stop = next(stops, 99)
        for number, row in enumerate(read(self, batch)):
            if number == stop:
                raise OSError("reset")
            yield row

    monkeypatch.setattr(patience, "PAUSE", 0.01)
    monkeypatch.setattr(module, "READ_AT_A_TIME", 3)
    monkeypatch.setattr(State, "rows", rows)
    run(state)
    assert submitted(emulator, tag) == Counter(texts)


def test_who_asks_what_others_have_written_is_not_told_of_before(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    state = begun(place, ["a"])
    engine = engine_of(state)
    looks: list[asyncio.Event] = []

    async def look() -> list[Any]:
        goes_on = asyncio.Event()
        looks.append(goes_on)
        await goes_on.wait()
        return []

    async def ask() -> None:
        monkeypatch.setattr(engine._state.submissions, "anews", look)
        first = asyncio.ensure_future(engine._hear())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        later = [asyncio.ensure_future(engine._hear()) for _ in range(3)]
        await asyncio.sleep(0)
        looks[0].set()
        await first
        while len(looks) < 2:  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(0.001)
        assert not any(task.done() for task in later)
        looks[1].set()
        await asyncio.gather(*later)
        assert len(looks) == 2, "one for all that have asked"

    asyncio.run(ask())


def test_a_key_that_was_rotated_is_read_again(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
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
        state = begun(place, ["a", "b"])
        run(state, "rotated")
    assert [result["status"] for result in results(state)] == ["SUCCESS"] * 2


def events_of(trigger: AixplainBatchTrigger) -> list[Any]:
    async def take() -> list[Any]:
        return [event async for event in trigger.run()]

    return asyncio.run(take())


def test_the_trigger_runs_it(place: str, emulator: Emulator, tag: str) -> None:
    state = begun(place, [f"{tag} {number}" for number in range(20)], delay=0.2)
    trigger = trigger_of(state, wait_time=0.2)
    path, stored = trigger.serialize()
    assert path.endswith(".AixplainBatchTrigger")
    (event,) = events_of(AixplainBatchTrigger(**json.loads(json.dumps(stored))))
    assert event.payload == {"batch": batch_of(state), "error": None}
    assert len(results(state)) == 20
    assert emulator.runs()[-1]["polled_at"]


def test_a_trigger_that_is_stopped_waits_for_the_answers_under_way(place: str, emulator: Emulator, tag: str) -> None:
    """As in every deployment of a new version: the triggerer's event loop cancels all that runs in it."""
    texts = [f"{tag} {number}" for number in range(30)]
    state = begun(place, texts, delay=2)
    emulator.set_faults(submission_seconds=0.5)
    try:

        async def stop() -> None:
            trigger = trigger_of(state, max_in_flight=10)
            task = asyncio.ensure_future(anext(trigger.run()))
            while not submitted(emulator, tag):  # noqa: ASYNC110 # nobody tells
                await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(stop())
    finally:
        emulator.set_faults()
    known = progress_of(state)
    assert known.begun == {}
    assert len(known.accepted) == sum(submitted(emulator, tag).values()) > 0
    run(state, max_in_flight=30)
    assert submitted(emulator, tag) == Counter(texts)


@pytest.mark.parametrize("goes_on", [True, False])
def test_who_has_taken_over_is_waited_for_as_long_as_he_goes_on(
    place: str, emulator: Emulator, tag: str, goes_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A triggerer that stood still takes over, and is stopped by Airflow at once, or is not."""
    monkeypatch.setattr(trigger_module, "LOOK_EVERY", 5 if goes_on else 1)
    monkeypatch.setattr(patience, "PAUSE", 0.01)
    texts = [f"{tag} {number}" for number in range(40)]
    state = begun(place, texts, delay=0.4)
    other = State(place)

    async def both() -> Any:
        trigger = trigger_of(state, max_in_flight=5, wait_time=0.2)
        first = asyncio.ensure_future(anext(trigger.run()))
        while not submitted(emulator, tag):  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(0.02)
        Trouble(monkeypatch, State, "progress", {1, 3})
        if goes_on:
            await Engine(AixplainHook(), "echo", other, batch_of(state), Limits(max_in_flight=5, wait_time=0.2)).run()
        else:
            await asyncio.to_thread(other.claim, batch_of(state), "a triggerer that is stopped now")
        return (await first).payload["error"]

    assert asyncio.run(both()) is None
    assert not other.submissions.is_superseded
    other.submissions.news()
    assert other.submissions.is_superseded is not goes_on
    assert {result["data"] for result in results(state)} == set(texts)
    assert submitted(emulator, tag) == Counter(texts)


def test_a_storage_that_stays_in_trouble_ends_the_wait_for_another(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trigger_module, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(patience, "PATIENCE", 0.05)
    monkeypatch.setattr(patience, "PAUSE", 0.01)
    state = begun(place, ["a"])
    Trouble(monkeypatch, State, "progress", set(range(10_000)))
    with pytest.raises(OSError, match="SlowDown"):
        asyncio.run(trigger_of(state)._is_done_by_other(state))


@pytest.mark.parametrize("gone", ["all of it", "its rows", "its place"])
def test_a_batch_that_is_gone_ends(place: str, gone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trigger_module, "LOOK_EVERY", 0.01)
    state = begun(place, ["a"])
    batch = batch_of(state)
    trigger = AixplainBatchTrigger(str(state), batch, "fail", "aixplain_default", {})
    if gone == "its place":
        rows = state.storage.content(f"rows-{batch}.jsonl")
        assert rows is not None
        state = begun(place, ["of another model"])
        with state.storage.writing(f"rows-{batch}.jsonl") as file:
            file.write(rows)  # its worker has not come to delete them
    else:
        state.storage.remove([Header.name(1) if gone == "all of it" else f"rows-{batch}.jsonl"])
    (event,) = events_of(trigger)
    error = event.payload["error"]
    assert error is None if gone == "all of it" else "is not whole" in str(error)
    assert list(state.results.read()) == []


def test_killed_at_any_moment_it_is_whole_in_the_end(
    place: str, emulator: Emulator, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With SIGKILL, again and again: submissions are rows, and at most those whose answer was in flight at a kill."""
    texts = [f"{tag} {number}" for number in range(150)]
    state = begun(place, texts, delay=0.4)
    dice = random.Random(7)
    monkeypatch.setenv("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(state), ATTACH], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(dice.uniform(0.05, 0.8))  # any moment is meant
        process.send_signal(signal.SIGKILL)
        process.wait()
    monkeypatch.setattr(module, "LAG", -60)  # whoever was at it is dead
    engine = run(state, max_in_flight=50)
    assert {result["data"] for result in results(state)} == set(texts)
    counts = submitted(emulator, tag)
    assert set(counts) == set(texts)
    again = {text: count for text, count in counts.items() if count > 1}
    orphaned = Counter(texts[int(str(key)) - 1] for key in engine.progress.orphaned)
    assert all(count - 1 <= orphaned[text] for text, count in again.items())


# Who stands still while a submission is under way, and goes on when another one has taken over


def times_out_after(seconds: float, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = json.loads(emulator.connection)
    extra = {**connection["extra"], "timeout": seconds}
    monkeypatch.setenv("AIRFLOW_CONN_AIXPLAIN_DEFAULT", json.dumps({**connection, "extra": extra}))


def test_frozen_at_any_moment_it_is_whole_in_the_end(
    place: str, emulator: Emulator, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Again and again another one takes over, and those who stood still go on in any order."""
    times_out_after(2, emulator, monkeypatch)
    monkeypatch.setenv("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")
    texts = [f"{tag} {number}" for number in range(100)]
    state = begun(place, texts, delay=0.5)
    dice = random.Random(tag)
    frozen: list[subprocess.Popen[bytes]] = []
    gone: list[subprocess.Popen[bytes]] = []
    emulator.set_faults(submission_seconds=0.3)
    try:
        for _ in range(8):
            process = subprocess.Popen([sys.executable, "-c", KILLED, str(state), ATTACH, "1"], stdout=subprocess.PIPE)
            frozen.append(process)
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(dice.uniform(0.1, 1.2))  # any moment is meant
            process.send_signal(signal.SIGSTOP)
            if len(frozen) > 2:
                gone.append(frozen.pop(dice.randrange(len(frozen))))
                gone[-1].send_signal(signal.SIGCONT)
            if dice.random() < 0.3:
                with suppress(Superseded):  # by one who goes on in the middle of his claim
                    state.forget_failed(state.go_on(header_of(state)))
        for process in frozen:
            process.send_signal(signal.SIGCONT)
        for process in [*frozen, *gone]:
            process.wait(60)
    finally:
        emulator.set_faults()
        for process in [*frozen, *gone]:
            process.kill()
            process.communicate()
    monkeypatch.setattr(module, "LAG", -2)
    forget_failed(state)
    run(state, max_in_flight=50)
    assert {result["data"] for result in published(state)} == set(texts)
    counts = submitted(emulator, tag)
    orphaned = Counter(texts[int(str(key)) - 1] for key in progress_of(state).orphaned)
    assert all(count - 1 <= orphaned[text] for text, count in counts.items())


def test_who_stood_still_while_he_submitted_fails_no_row(
    place: str, emulator: Emulator, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """His requests time out then, and his successor has submitted the rows again."""
    times_out_after(3, emulator, monkeypatch)
    monkeypatch.setattr(module, "LAG", -3)
    texts = [f"{tag} {number}" for number in range(2)]
    state = begun(place, texts, delay=4)
    emulator.set_faults(submission_seconds=1.5)
    command = [sys.executable, "-c", KILLED, str(state), ATTACH]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: len(submitted(emulator, tag)) == 2, "both submissions")
            process.send_signal(signal.SIGSTOP)
            emulator.set_faults()

            async def takes_over() -> None:
                successor = asyncio.ensure_future(engine_of(state).run())
                await asyncio.to_thread(
                    wait_until, lambda: len(progress_of(state).accepted) == 2, "both submissions again"
                )
                await asyncio.sleep(2)  # until what stands still has waited for longer than it does
                process.send_signal(signal.SIGCONT)
                await asyncio.to_thread(process.wait, 60)
                await successor

            asyncio.run(takes_over())
        finally:
            emulator.set_faults()
            process.kill()
    assert {result["data"] for result in results(state)} == set(texts)
    assert submitted(emulator, tag) == Counter(texts * 2)
    assert Counter(progress_of(state).orphaned) == {1: 1, 2: 1}


def test_a_success_that_only_the_answer_to_a_submission_tells_is_kept(place: str, platform: Platform) -> None:
    state, other = begun(place, ["a"]), State(place)
    platform.answers = [(201, b'{"status": "SUCCESS", "completed": true, "data": "done"}', {})]
    platform.on_submission = lambda: other.claim(batch_of(state), "a triggerer")
    with pytest.raises(Superseded):
        run(state, "scripted")
    assert [result["data"] for result in results(state)] == ["done"]


def test_who_is_superseded_fails_no_row_that_may_have_been_accepted(place: str, platform: Platform) -> None:
    state, other = begun(place, ["a"]), State(place)
    platform.answers = [(503, b"{}", {})]
    platform.on_submission = lambda: other.claim(batch_of(state), "a triggerer")
    with pytest.raises(Superseded):
        run(state, "scripted")
    assert list(state.results.read()) == []
    assert progress_of(state).orphaned == [1]


@pytest.mark.parametrize("late", [["begun"], ["begun", "not sent"]])
def test_who_stood_still_at_the_gate_hides_no_submission_of_his_successor(
    place: str, platform: Platform, late: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """He notes that he begins, sees his successor, and takes it back. That one was killed before he had the answer."""
    monkeypatch.setattr(module, "LAG", -60)
    state = begun(place, ["a"])
    note(state, 0, 2.0, "begun")
    for what in late:
        note(state, 0, 1.0, what)
    run(state, "scripted")
    assert progress_of(state).orphaned[0] == 1
    assert len(platform.submissions) == 1


def test_what_is_told_while_one_settles_hides_no_submission(
    place: str, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LAG", -60)
    monkeypatch.setattr("airflow_provider_aixplain.batch.journal.LIST_EVERY", 0)
    state, other = begun(place, ["a"]), State(place)
    note(state, 0, 2.0, "begun")
    other.claim(batch_of(state), "an engine that stands still")
    engine = engine_of(state, "scripted")
    hear, times = engine._hear, itertools.count()

    async def hears() -> None:
        if next(times) == 0:
            record = {"batch": batch_of(state), "row": 0, "attempt": 1.0}
            other.submissions.append([{**record, "is": "begun"}, {**record, "is": "not sent"}])
        await hear()

    monkeypatch.setattr(engine, "_hear", hears)
    asyncio.run(engine.run())
    assert progress_of(state).orphaned == [1]
    assert len(platform.submissions) == 1


@pytest.mark.parametrize("failing", ["/run/1", "/run/2"])
def test_of_two_runs_that_were_accepted_both_are_asked_for(place: str, platform: Platform, failing: str) -> None:
    """One who stood still has got his answer late. Each has cost a credit."""
    state = begun(place, ["a"])
    platform.failing = {failing}
    for attempt in (1.0, 2.0):
        note(state, 0, attempt, "begun")
        note(state, 0, attempt, "accepted", url=f"{platform.url}/run/{attempt:.0f}")
    run(state, "scripted")
    assert platform.submissions == []
    assert [result["status"] for result in results(state)] == ["SUCCESS"]
    # The one that has failed is known to only if it was asked for first.
    assert progress_of(state).totals.credits == (2 if failing == "/run/2" else 1)


def test_what_has_become_known_at_the_gate_is_not_submitted(
    place: str, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer has come late, while all wait as the platform has asked them to."""
    state = begun(place, ["a"])
    engine = engine_of(state, "scripted")
    passed = engine._gate.passed

    async def waits() -> float:
        record = {"row": 0, "attempt": 1.0, "is": "accepted", "url": f"{platform.url}/run/1"}
        engine._heed([{"batch": batch_of(state), **record}])
        return await passed()

    monkeypatch.setattr(engine._gate, "passed", waits)
    asyncio.run(engine.run())
    assert platform.submissions == []
    assert not [record for record in state.submissions.read() if "is" in record], "nor noted"
    assert [result["attempt"] for result in results(state)] == [1.0]


def test_what_is_told_once_more_of_a_run_that_has_failed_is_not_another_one(
    place: str, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = begun(place, ["a"])
    note(state, 0, 1.0, "accepted", url=f"{platform.url}/run/1")
    platform.failing = {"/run/1"}
    engine = engine_of(state, "scripted")
    await_run = engine._hook.await_run

    async def meanwhile(url: str, *arguments: Any, **named: Any) -> Any:
        engine._heed([{"batch": batch_of(state), "row": 0, "attempt": 1.0, "is": "accepted", "url": url}])
        return await await_run(url, *arguments, **named)

    monkeypatch.setattr(engine._hook, "await_run", meanwhile)
    asyncio.run(engine.run())
    assert [result["status"] for result in results(state)] == ["FAILED"]


@pytest.mark.parametrize("may_succeed", [True, False])
def test_a_late_failure_of_an_attempt_that_is_over_takes_no_success_away(
    place: str, emulator: Emulator, tag: str, may_succeed: bool
) -> None:
    state = begun(place, [tag], delay=1)
    note(state, 0, 1.0, "begun")
    end(state, 0, 1.0, "failed")
    forget_failed(state)

    async def both() -> None:
        engine = engine_of(state)
        running = asyncio.ensure_future(engine.run())
        while not progress_of(state).accepted:  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(0.01)
        await asyncio.to_thread(partial(end, state, 0, 1.0, "failed", may_succeed=may_succeed))
        await running
        assert engine.progress.totals.succeeded == 1

    asyncio.run(both())
    assert [result["status"] for result in published(state)] == ["SUCCESS"]
    assert submitted(emulator, tag) == {tag: 1}


def test_it_needs_a_batch_that_is_there(place: str) -> None:
    with pytest.raises(Superseded, match="deleted"):
        asyncio.run(Engine(AixplainHook(), "echo", State(place), "gone", Limits()).run())
