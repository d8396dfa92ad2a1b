"""The trigger that starts a task, against the emulator, as a triggerer runs it; a dict holds the XComs."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest
from airflow.triggers.base import TaskSuccessEvent

from airflow_provider_aixplain.exceptions import (
    AixplainConfigurationError,
    AixplainError,
    AixplainInputError,
    AixplainPermanentError,
    AixplainRunFailed,
    AixplainUntrustedUrl,
    from_event,
)
from airflow_provider_aixplain.hooks.aixplain import AixplainHook
from airflow_provider_aixplain.observability.links import ASSET_LINK
from airflow_provider_aixplain.protocol.resumption import CLEARED, NOT_DURABLE
from airflow_provider_aixplain.protocol.usage import USAGE_KEY
from airflow_provider_aixplain.protocol.values import fields_with_values
from airflow_provider_aixplain.submission import KEY
from airflow_provider_aixplain.workerless import start_trigger, submission_slots, xcom_store
from airflow_provider_aixplain.workerless.start_settings import xcom_reference
from airflow_provider_aixplain.workerless.start_trigger import AixplainModelStartTrigger
from airflow_provider_aixplain.workerless.xcom_store import (
    RUN_KEY,
    IdempotencyRecord,
    XComIdempotencyStore,
)
from tests.support.deployment import AIRFLOW_3, Emulator
from tests.support.kinds import AGENT, MODEL, Kind
from tests.support.kinds import submissions as submitted
from tests.support.scripted import Handler, serve
from tests.support.task_log import TaskLog

pytestmark = [
    pytest.mark.usefixtures("connection"),
    pytest.mark.skipif(not AIRFLOW_3, reason="below Airflow 3.3 workers submit"),
]


class XComs(dict[tuple[str, str], Any]):
    """What Airflow keeps, by task and key, and the keys that were read."""

    def __init__(self) -> None:
        self.read: list[str] = []

    async def aset(self, key: str, value: Any, *, task_id: str, **_: Any) -> None:
        self[task_id, key] = json.loads(json.dumps(value))

    async def aget_one(self, *, key: str, task_id: str, **_: Any) -> Any:
        self.read.append(key)
        return self.get((task_id, key))

    def delete(self, key: str, *, task_id: str, **_: Any) -> None:
        self.pop((task_id, key), None)


class Task:
    """A task with its XComs, whose trigger may be started any number of times, in this try and in later ones."""

    def __init__(self, xcoms: XComs, kind: Kind = MODEL, **arguments: Any) -> None:
        self.xcoms = xcoms
        self.arguments = {**kind.echo("a", delay=0.3), "wait_time": 0.2, **arguments}
        self.tries = 1

    def trigger(self, kind: type[AixplainModelStartTrigger] = AixplainModelStartTrigger, **arguments: Any) -> Any:
        """Return the trigger as a triggerer makes it from what Airflow's database holds."""
        _, stored = kind(**{"end_from_trigger": True, **self.arguments, **arguments}).serialize()
        trigger = kind(**json.loads(json.dumps(stored)))
        place = {"dag_id": "dag", "task_id": "task", "run_id": "run", "map_index": -1}
        trigger.task_instance = SimpleNamespace(id=f"try {self.tries}", try_number=self.tries, **place)  # type: ignore[assignment]
        return trigger

    def start(self, **arguments: Any) -> Any:
        """Start a trigger and return its event."""

        async def run() -> Any:
            (event,) = [event async for event in self.trigger(**arguments).run()]
            return event

        return asyncio.run(run())

    def refused(self, **arguments: Any) -> AixplainError:
        """Start a trigger and return the error that a worker raises of its event."""
        payload = self.start(**arguments).payload
        assert payload["status"] == "refused", payload
        return from_event(json.loads(json.dumps(payload))["error"])

    def retry(self) -> None:
        self.tries += 1

    @property
    def record(self) -> dict[str, Any] | None:
        begun = self.xcoms.get(("task", KEY))
        return self.xcoms.get(("task", RUN_KEY), begun) if begun else None

    @record.setter
    def record(self, record: dict[str, Any]) -> None:
        self.xcoms["task", KEY] = self.xcoms["task", RUN_KEY] = record
        if not record["poll_url"]:
            del self.xcoms["task", RUN_KEY]

    def result(self) -> Any:
        return self.xcoms.get(("task", "return_value"))


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Task]:
    xcoms = XComs()
    monkeypatch.setattr(xcom_store, "XCom", xcoms)
    monkeypatch.setattr(start_trigger, "IN_FLIGHT_MARGIN", 0.1)
    monkeypatch.setattr(start_trigger, "NOT_FOUND_DELAY", 0)
    return lambda *kind, **arguments: Task(xcoms, *kind, **arguments)


def test_it_submits_and_finishes_the_task(task: Any, kind: Kind, emulator: Emulator) -> None:
    text = f"a {kind.name} once"
    one = task(kind, **kind.echo(text, delay=0.3))
    assert isinstance(one.start(), TaskSuccessEvent)
    assert set(one.result()) == kind.fields
    other_keys = {"return_value", KEY, RUN_KEY, ASSET_LINK.xcom_key, USAGE_KEY}
    fields = {key: value for (_, key), value in one.xcoms.items() if key not in other_keys}
    assert fields == fields_with_values(one.result())
    assert one.record["poll_url"] == one.result()["url"]
    assert one.xcoms["task", USAGE_KEY]["last_id"] == one.result()["url"]
    assert text in (one.result()["data"], one.result().get("output"))
    assert submitted(emulator, text) == 1


def test_a_wait_keeps_no_connection_of_its_submission(task: Any) -> None:
    """Thousands of waits, of up to a day, would exhaust the file descriptors of a triggerer."""

    def sockets() -> int:
        return sum("socket:" in os.path.realpath(file.path) for file in os.scandir("/proc/self/fd"))

    async def run() -> None:
        before, trigger = sockets(), task(data="no socket").trigger()
        assert await trigger._submit_or_reattach() is None
        assert sockets() <= before

    asyncio.run(run())


def test_started_again_it_resumes_its_run(task: Any, kind: Kind, emulator: Emulator) -> None:
    text = f"a {kind.name} again"
    one = task(kind, **kind.echo(text, delay=0.3))
    for _ in range(3):
        assert isinstance(one.start(), TaskSuccessEvent)
    assert submitted(emulator, text) == 1


def test_only_a_first_start_does_not_read_the_usage(task: Any) -> None:
    """Each message takes its turn in the triggerer, and nothing can have been counted before the first submission."""
    one = task(data="counted")
    one.start()
    assert USAGE_KEY not in one.xcoms.read
    one.retry()
    one.xcoms["task", KEY] = None
    one.start()
    assert one.xcoms["task", USAGE_KEY]["runs"] == {"success": 2}


def test_usage_survives_a_rejection_in_the_same_try(task: Any) -> None:
    one = task(data="counted before a rejection")
    one.start()
    asyncio.run(one.trigger().store.clear())
    one.start()
    assert one.xcoms["task", USAGE_KEY]["runs"] == {"success": 2}


def test_started_again_without_a_connection_it_keeps_waiting(
    task: Any, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a triggerer starts while the secrets backend is unavailable."""
    one = task(data="out of reach", parameters={"delay": 30}, timeout=0.3)
    one.start()
    monkeypatch.delenv("AIRFLOW_CONN_AIXPLAIN_DEFAULT")
    assert one.start(timeout=2).payload["status"] == "timeout"
    assert submitted(emulator, "out of reach") == 1


def test_a_record_of_another_version_is_read(task: Any, emulator: Emulator) -> None:
    one = task(data="another version")
    one.start()
    one.record = {**one.record, "unknown": 1}
    one.start()
    assert submitted(emulator, "another version") == 1


def test_a_second_start_keeps_the_deadline(task: Any) -> None:
    one = task(data="late", parameters={"delay": 30}, timeout=0.5)
    start = time.monotonic()
    assert one.start().payload["status"] == "timeout"
    assert one.start().payload["status"] == "timeout"
    assert time.monotonic() - start < 3
    one.retry()
    start = time.monotonic()
    assert one.start().payload["status"] == "timeout"
    assert time.monotonic() - start >= 0.5, "a later try has a timeout of its own"


def test_a_retry_resumes_the_run(task: Any, kind: Kind, emulator: Emulator) -> None:
    text = f"a {kind.name} retried"
    one = task(kind, **kind.echo(text, delay=1), timeout=0)
    assert one.start().payload["status"] == "timeout"
    one.retry()
    assert isinstance(one.start(timeout=10), TaskSuccessEvent)
    assert submitted(emulator, text) == 1


def test_a_retry_without_durable_submits_again(task: Any, emulator: Emulator, task_log: TaskLog) -> None:
    one = task(data="fleeting", durable=False)
    for _ in range(2):
        one.start(timeout=0, parameters={"delay": 60})
    assert submitted(emulator, "fleeting") == 1, "the same try"
    one.retry()
    one.start()
    assert submitted(emulator, "fleeting") == 2
    assert str(task_log).count(f"task: {NOT_DURABLE}") == 1


@pytest.mark.parametrize("changed", [{"data": "other input"}, {"model_id": "language"}])
def test_changed_input_is_submitted(task: Any, emulator: Emulator, changed: dict[str, Any]) -> None:
    before = len(emulator.runs())
    one = task(data="changed", parameters={"delay": 30}, timeout=0)
    one.start()
    one.retry()
    one.start(**changed)
    one.start(**changed)
    assert len(emulator.runs()) == before + 2


def test_a_retry_submits_a_failed_run_again(task: Any, kind: Kind, emulator: Emulator) -> None:
    before = len(emulator.runs())
    one = task(kind, **kind.fail(delay=0.2))
    for submissions in (1, 1, 2):
        if submissions == 2:
            one.retry()
        assert one.start().payload["status"] == "failed"
        assert len(emulator.runs()) == before + submissions


def test_an_unknown_run_is_submitted_again(task: Any, emulator: Emulator) -> None:
    one = task(data="unknown")
    one.start()
    del one.xcoms["task", "return_value"]
    one.record = {**one.record, "poll_url": f"{emulator.url}/api/v1/data/unknown"}
    one.retry()
    assert isinstance(one.start(), TaskSuccessEvent)
    assert submitted(emulator, "unknown") == 2


def test_a_task_cleared_after_success_runs_again(task: Any, kind: Kind, emulator: Emulator, task_log: TaskLog) -> None:
    text = f"a {kind.name} cleared"
    one = task(kind, **kind.echo(text, delay=0.2), multiple_outputs=True)
    one.start()
    first = one.result()
    one.retry()
    slow = {kind.parameters: {"delay": 60}, "timeout": 0}
    assert one.start(**slow).payload["status"] == "timeout"
    assert one.result() is None, "what comes after must not read the last result"
    assert not kind.fields & {key for _, key in one.xcoms}
    assert submitted(emulator, text) == 2
    assert str(task_log).count(f"task: {CLEARED}") == 1
    one.retry()
    one.start(**slow)
    assert submitted(emulator, text) == 2, "that run was not delivered"
    assert first["url"] != one.record["poll_url"]


class TestOrphans:
    @pytest.fixture
    def orphan(self, task: Any, kind: Kind) -> Any:
        """A task with a submission whose outcome is unknown."""
        one = task(kind, **kind.echo("orphan", delay=0.1))
        one.start()
        one.record = {**one.record, "poll_url": None, "submitted_at": "2026-01-01T00:00:00Z"}
        one.xcoms.pop(("task", "return_value"))
        return one

    @pytest.mark.parametrize("is_retry", [True, False])
    def test_an_orphan_is_submitted_again(self, orphan: Task, emulator: Emulator, is_retry: bool) -> None:
        before = submitted(emulator, "orphan")
        if is_retry:
            orphan.retry()
        assert isinstance(orphan.start(), TaskSuccessEvent)
        assert submitted(emulator, "orphan") == before + 1

    def test_an_orphan_can_fail_the_task_until_it_is_cleared(self, orphan: Task, emulator: Emulator) -> None:
        before = submitted(emulator, "orphan")
        for _ in range(2):
            error = orphan.refused(on_orphaned_submission="fail")
            assert isinstance(error, AixplainPermanentError)
            assert "unknown whether the platform accepted it" in str(error)
        assert submitted(emulator, "orphan") == before
        orphan.retry()
        assert isinstance(orphan.start(on_orphaned_submission="fail"), TaskSuccessEvent)
        assert submitted(emulator, "orphan") == before + 1

    def test_a_submission_in_flight_elsewhere_is_awaited(
        self, orphan: Task, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another triggerer, which was considered dead, is submitting."""
        before = submitted(emulator, "orphan")
        found = {**orphan.record, "submitted_at": pendulum.now("UTC").isoformat()}  # type: ignore[dict-item]
        orphan.record = found
        answered = {**found, "poll_url": orphan.xcoms["task", "url"]}
        read, reads = XComIdempotencyStore.read, 0

        async def read_later(record: XComIdempotencyStore) -> IdempotencyRecord | None:
            nonlocal reads
            reads += 1
            if reads == 3:
                orphan.record = answered
            return await read(record)

        monkeypatch.setattr(XComIdempotencyStore, "read", read_later)
        assert isinstance(orphan.start(), TaskSuccessEvent)
        assert submitted(emulator, "orphan") == before
        assert reads == 3


@pytest.mark.parametrize("frozen", ["before its intent was written", "after"])
def test_a_frozen_trigger_adopts_the_run_of_its_successor(
    task: Any, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, frozen: str
) -> None:
    data = f"frozen {frozen}"
    one = task(data=data)
    monkeypatch.setattr(start_trigger, "_lease_duration", lambda: 0.1)
    write, writes = XComIdempotencyStore.write, 0

    async def slow_write(store: XComIdempotencyStore, intent: IdempotencyRecord) -> None:
        nonlocal writes
        writes += 1
        if frozen == "after":
            await write(store, intent)
        if writes == 1:
            await asyncio.sleep(0.2)
            others = replace(intent, submitted_at=pendulum.now("UTC").isoformat())
            await write(store, others)
            await write(store, replace(others, poll_url=(await AixplainHook().arun_async("echo", data)).url))
        if frozen != "after":
            await write(store, intent)

    monkeypatch.setattr(XComIdempotencyStore, "write", slow_write)
    assert isinstance(one.start(), TaskSuccessEvent)
    assert submitted(emulator, data) == 1
    assert writes == 1
    assert isinstance(task(data=data).start(), TaskSuccessEvent)
    assert submitted(emulator, data) == 1


def test_a_frozen_trigger_without_successor_submits(
    task: Any, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = iter([0.0, 10.0])
    monkeypatch.setattr(start_trigger, "_lease_duration", lambda: next(limits))
    assert isinstance(task(data="frozen alone").start(), TaskSuccessEvent)
    assert submitted(emulator, "frozen alone") == 1


class TestRefusals:
    @pytest.mark.parametrize(
        ("status_code", "kind", "is_remembered"),
        [(400, AixplainPermanentError, False), (429, AixplainError, False), (503, AixplainError, True)],
    )
    def test_a_submission_refused_by_the_platform(
        self, task: Any, monkeypatch: pytest.MonkeyPatch, status_code: int, kind: type, is_remembered: bool
    ) -> None:
        with serve(lambda http: http.answer(status_code, b'{"error": "no"}')) as server:
            monkeypatch.setenv("AIRFLOW_CONN_REFUSING", json.dumps({"host": server.url, "password": "key"}))
            one = task(data="a", aixplain_conn_id="refusing")
            error = one.refused()
            assert type(error) is kind
            assert error.status_code == status_code
            assert error.retryable is (kind is AixplainError)
            assert bool(one.record) is is_remembered

    def test_a_run_that_fails_at_once(self, task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        with serve(lambda http: http.answer(200, b'{"status": "FAILED", "error_message": "no"}')) as server:
            monkeypatch.setenv("AIRFLOW_CONN_FAILING", json.dumps({"host": server.url, "password": "key"}))
            one = task(data="a", aixplain_conn_id="failing")
            assert type(one.refused()) is AixplainRunFailed
            assert one.record is None

    @pytest.mark.parametrize(
        ("arguments", "kind", "named"),
        [
            ({"data": None}, AixplainInputError, "data"),
            ({"data": xcom_reference("other", "nothing", is_required=True)}, AixplainInputError, "'nothing'"),
            ({"data": "a", "aixplain_conn_id": "no_key"}, AixplainConfigurationError, "password is empty"),
        ],
    )
    def test_invalid_settings_send_nothing(
        self, task: Any, monkeypatch: pytest.MonkeyPatch, arguments: Any, kind: type, named: str
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_NO_KEY", '{"conn_type": "aixplain"}')
        one = task(**arguments)
        error = one.refused()
        assert type(error) is kind
        assert named in str(error)
        assert one.record is None

    def test_an_untrusted_poll_url_is_refused_and_recorded(self, task: Any, emulator: Emulator) -> None:
        """It is recorded, so that a retry resumes the run once its origin is trusted."""
        one = task(data="foreign to a trigger")
        emulator.set_faults(foreign_poll_urls=1)
        try:
            assert type(one.refused()) is AixplainUntrustedUrl
        finally:
            emulator.set_faults()
        one.retry()
        assert type(one.refused()) is AixplainUntrustedUrl
        assert submitted(emulator, "foreign to a trigger") == 1

    def test_a_lost_answer_leaves_an_intent(self, task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        with serve(Handler.reset) as server:
            monkeypatch.setenv("AIRFLOW_CONN_RESETTING", json.dumps({"host": server.url, "password": "key"}))
            one = task(data="a", aixplain_conn_id="resetting")
            assert "may have received the submission" in str(one.refused())
            assert one.record["poll_url"] is None


def test_a_final_answer_is_recorded(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(lambda http: http.answer(200, b'{"status": "SUCCESS", "data": "hi"}')) as server:
        monkeypatch.setenv("AIRFLOW_CONN_AT_ONCE", json.dumps({"host": server.url, "password": "key"}))
        one = task(data="a", aixplain_conn_id="at_once")
        assert isinstance(one.start(), TaskSuccessEvent)
        assert one.result()["data"] == "hi"
        del one.xcoms["task", "return_value"]
        assert isinstance(one.start(), TaskSuccessEvent)
        assert one.result()["data"] == "hi"
        one.retry()
        del one.xcoms["task", "return_value"]
        assert isinstance(one.start(), TaskSuccessEvent)
        assert len(server.asked) == 1
        one.xcoms.clear()
        event = one.start(end_from_trigger=False, reason_not_end_from_trigger="something")
        assert event.payload["response"]["data"] == "hi"
        monkeypatch.delenv("AIRFLOW_CONN_AT_ONCE")
        assert one.start().payload["response"]["data"] == "hi", "a recorded response needs no Connection"


def test_references_are_replaced_by_xcoms(task: Any, emulator: Emulator) -> None:
    data = {"data": [xcom_reference("other", "list", is_required=True), {"a": "b"}], "more": 1}
    one = task(data=data)
    one.xcoms["other", "list"] = ["{{ no template }}", None]
    one.start()
    assert one.result()["data"] == [["{{ no template }}", None], {"a": "b"}]
    model = task(data="b", model_id=xcom_reference("other", "model", is_required=True))
    model.retry()
    model.xcoms["other", "model"] = "echo"
    model.start()
    assert model.result()["data"] == "b"
    optional = task(data={"data": xcom_reference("other", "nothing", is_required=False)})
    optional.tries = 3
    optional.start()
    assert optional.result()["data"] is None
    second = task(AGENT, query="c", session_id=xcom_reference("first", "session_id", is_required=True))
    second.tries = 4
    first = AixplainHook().run_agent_async("echo-agent", "a", variables={"delay": 0.1})
    second.xcoms["first", "session_id"] = first.additional_fields["sessionId"]
    second.start()
    assert second.result()["session_id"] == first.additional_fields["sessionId"]


def test_a_task_ended_during_its_submission_records_the_poll_url(
    task: Any, emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    one = task(data="ended")

    async def end() -> None:
        trigger = one.trigger()
        waiting = asyncio.ensure_future(anext(aiter(trigger.run())))
        while not submitted(emulator, "ended"):  # noqa: ASYNC110 # the emulator is another process
            await asyncio.sleep(0.02)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await trigger.on_kill()

    emulator.set_faults(submission_seconds=0.5)
    try:
        asyncio.run(end())
    finally:
        emulator.set_faults()
    printed = capsys.readouterr().out
    assert "The run continues and is billed" in printed
    assert one.record["poll_url"] in printed


def test_a_task_ended_before_its_submission_records_nothing(
    task: Any, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission_slots, "MAX_CONCURRENT_SUBMISSIONS", 1)
    first, second = task(data="sent"), task(data="not sent")

    async def end() -> None:
        sending = asyncio.ensure_future(anext(aiter(first.trigger().run())))
        while not submitted(emulator, "sent"):  # noqa: ASYNC110 # the emulator is another process
            await asyncio.sleep(0.02)
        trigger = second.trigger()
        trigger.task_instance.task_id = "second"
        waiting = asyncio.ensure_future(anext(aiter(trigger.run())))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert isinstance(await sending, TaskSuccessEvent)

    emulator.set_faults(submission_seconds=1)
    try:
        asyncio.run(end())
    finally:
        emulator.set_faults()
    assert ("second", KEY) not in second.xcoms
    assert submitted(emulator, "not sent") == 0


def test_a_failing_store_costs_no_run_and_loses_no_result(
    task: Any, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = task(data="broken record")
    works = 0
    aset = one.xcoms.aset

    async def broken(key: str, *arguments: Any, **place: Any) -> None:
        nonlocal works
        works -= key in (KEY, RUN_KEY)
        if works < 0:
            raise RuntimeError("the database is down")
        await aset(key, *arguments, **place)

    monkeypatch.setattr(one.xcoms, "aset", broken)
    with pytest.raises(RuntimeError):
        one.start()
    assert submitted(emulator, "broken record") == 0
    works = 1
    assert one.start().payload["response"]["data"] == "broken record"
    assert submitted(emulator, "broken record") == 1


def test_workers_finish_tasks_while_many_xcoms_are_pushed(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's triggerer stores one XCom after the other, so with a long queue a worker is faster."""
    monkeypatch.setattr(xcom_store, "MAX_PENDING_PUSHES", 150)
    one = task(data="queue", parameters={"delay": 0})
    aset = one.xcoms.aset
    waiting, most = 0, 0

    async def slow(key: str, value: Any, **place: Any) -> None:
        nonlocal waiting, most
        if key not in (KEY, RUN_KEY):
            waiting += 1
            most = max(most, waiting)
            await asyncio.sleep(0.3)
            waiting -= 1
        await aset(key, value, **place)

    monkeypatch.setattr(one.xcoms, "aset", slow)

    async def run_all() -> list[Any]:
        triggers = [one.trigger() for _ in range(30)]
        for index, trigger in enumerate(triggers):
            trigger.task_instance.task_id = f"task {index}"
        return await asyncio.gather(*(anext(aiter(trigger.run())) for trigger in triggers))

    events = asyncio.run(run_all())
    ended = [event for event in events if isinstance(event, TaskSuccessEvent)]
    assert 0 < len(ended) < len(events)
    assert most <= xcom_store.MAX_PENDING_PUSHES
    assert all(
        event.payload["response"]["data"] == "queue" for event in events if not isinstance(event, TaskSuccessEvent)
    )
