"""The trigger against the emulator, as a triggerer runs it."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import certifi
import pendulum
import pytest
from airflow.triggers.base import BaseTrigger

from airflow_provider_aixplain.client.account import Platform
from airflow_provider_aixplain.client.aio import MAX_RESPONSE_BYTES
from airflow_provider_aixplain.hooks.aixplain import AixplainHook
from airflow_provider_aixplain.protocol.wait import Wait
from airflow_provider_aixplain.triggers.aixplain import AixplainModelRunTrigger
from tests.support.deployment import AIRFLOW_3, Emulator, Processes
from tests.support.scripted import Handler, Server, serve

pytestmark = pytest.mark.usefixtures("connection")


@pytest.fixture(autouse=True)
def _no_worker_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no worker to wait for, and nobody fixes a Connection unless a test does."""
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "0")
    monkeypatch.setattr("airflow_provider_aixplain.triggers.aixplain.RETRY_BUDGET", 0)


def submit(model_id: str = "sentiment", **parameters: Any) -> str:
    return str(AixplainHook().run_async(model_id, "The coffee is wonderful.", parameters=parameters).url)


def events_of(trigger: BaseTrigger, *, in_triggerer: bool = True) -> list[Any]:
    if in_triggerer:
        trigger.trigger_id = 1  # type: ignore[assignment] # as a triggerer does

    async def run() -> list[Any]:
        return [event async for event in trigger.run()]

    return asyncio.run(run())


def event_of(trigger: BaseTrigger) -> dict[str, Any]:
    (event,) = events_of(trigger)
    payload = event.payload
    assert set(payload) == {"status", "message", "response", "poll_url"}
    json.dumps(payload)
    return dict(payload)


def restored(trigger: BaseTrigger) -> BaseTrigger:
    """The trigger as another triggerer makes it from what the database holds."""
    path, stored = trigger.serialize()
    module, _, name = path.rpartition(".")
    assert (module, name) == (AixplainModelRunTrigger.__module__, "AixplainModelRunTrigger")
    return AixplainModelRunTrigger(**json.loads(json.dumps(stored)))


def test_it_fires_one_event_with_the_response() -> None:
    url = submit()
    event = event_of(restored(AixplainModelRunTrigger(url, wait_time=0.2)))
    assert (event["status"], event["message"], event["poll_url"]) == ("success", "", url)
    assert (event["response"]["data"], event["response"]["url"]) == ("positive", url)


@pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2 has no worker release delay")
def test_it_polls_only_after_the_worker_is_released(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "1")
    url = submit(delay=0)
    assert event_of(AixplainModelRunTrigger(url))["status"] == "success"
    run = next(run for run in emulator.runs() if run["id"] == url.rpartition("/")[2])
    assert run["polled_at"][0] - run["submitted_at"] >= 2 - 0.1


def test_an_inline_trigger_waits_for_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """``dag.test()`` runs triggers in the process of the task."""
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "100000")
    (event,) = events_of(restored(AixplainModelRunTrigger(submit(), wait_time=0.2)), in_triggerer=False)
    assert event.payload["response"]["data"] == "positive"


def test_a_failed_run_is_reported() -> None:
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


def test_a_result_after_the_deadline_is_not_lost() -> None:
    long_ago = pendulum.now("UTC").subtract(hours=1).isoformat()
    event = event_of(AixplainModelRunTrigger(submit(delay=0), timeout=60, submitted_at=long_ago))
    assert event["status"] == "success"


def test_a_clock_that_was_set_back_is_harmless() -> None:
    tomorrow = pendulum.now("UTC").add(days=1).isoformat()
    event = event_of(AixplainModelRunTrigger(submit(), wait_time=0.2, submitted_at=tomorrow))
    assert event["status"] == "success"


@pytest.mark.parametrize("arguments", [{"timeout": "5"}, {"timeout": -1}, {"wait_time": None}])
def test_bad_durations_are_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} is .*: give seconds"):
        AixplainModelRunTrigger("https://h/run", **arguments)


def test_an_unknown_run_is_an_error(emulator: Emulator) -> None:
    event = event_of(AixplainModelRunTrigger(f"{emulator.url}/api/v1/data/unknown", wait_time=0.2))
    assert (event["status"], event["message"]) == ("error", "HTTP 404 (resource): no such run")


@pytest.mark.parametrize(
    ("poll_url", "conn_id", "named"),
    [
        ("https://evil.example/data/1", "aixplain_default", "trusted_origins"),
        ("https://models.aixplain.com/data/1", "no_key", "password is empty"),
    ],
)
def test_a_permanent_error_ends_the_wait(
    poll_url: str, conn_id: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_NO_KEY", '{"conn_type": "aixplain"}')
    event = event_of(AixplainModelRunTrigger(poll_url, conn_id))
    assert event["status"] == "error"
    assert named in event["message"]


def answering(monkeypatch: pytest.MonkeyPatch, *answers: Any, extra: dict[str, Any] | None = None) -> Any:
    """A server that gives these answers to polls, the last one again and again, and a Connection to it."""

    def script(http: Handler) -> None:
        status, body, *headers = answers[min(len(server.asked), len(answers)) - 1]
        http.answer(status, body, **(headers[0] if headers else {}))

    @contextmanager
    def serving() -> Iterator[Server]:
        nonlocal server
        with serve(script) as server:
            fields = {"conn_type": "aixplain", "host": server.url, "password": "k3y", "extra": extra or {}}
            monkeypatch.setenv("AIRFLOW_CONN_SCRIPTED", json.dumps(fields))
            yield server

    server: Any = None
    return serving()


OVER = b'{"completed": true, "data": "hi"}'


def test_a_large_response_is_left_to_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    large = json.dumps({"completed": True, "data": "x" * MAX_RESPONSE_BYTES}).encode()
    with answering(monkeypatch, (200, large)) as server:
        event = event_of(AixplainModelRunTrigger(f"{server.url}/run", "scripted"))
    assert (event["status"], event["response"]) == ("success", None)
    assert len(server.asked) == 1


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
@pytest.mark.parametrize("is_state_first", [True, False])
def test_a_large_answer_of_an_unfinished_run_continues_the_wait(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, encoding: str, is_state_first: bool
) -> None:
    caplog.set_level("INFO")
    state = {"status": "IN_PROGRESS", "completed": False}
    steps = [{"id": index, "agent": {"name": "Ann"}, "output": "x" * 20_000} for index in range(250)]
    data = {"data": {"steps": steps}}
    large = json.dumps({**state, **data} if is_state_first else {**data, **state}).encode()
    large = gzip.compress(large) if encoding == "gzip" else large
    headers = {"Content-Encoding": encoding, "Content-Length": str(len(large))}
    with answering(monkeypatch, (200, large, headers), (200, large, headers), (200, OVER)) as server:
        event = event_of(AixplainModelRunTrigger(f"{server.url}/run", "scripted", wait_time=0.2))
    assert (event["status"], event["response"]["data"], len(server.asked)) == ("success", "hi", 3)
    lines = [record.getMessage() for record in caplog.records if "Step" in record.getMessage()]
    assert lines == [f"Step {number}: Ann" for number in range(1, 7)], "each step that fits is logged once"


def test_a_response_of_the_largest_size_is_in_the_event(monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.dumps({"completed": True, "data": ""}).encode()
    body = body.replace(b'""', b'"%s"' % (b"x" * (MAX_RESPONSE_BYTES - len(body))))
    with answering(monkeypatch, (200, body)) as server:
        event = event_of(AixplainModelRunTrigger(f"{server.url}/run", "scripted"))
    assert len(event["response"]["data"]) > MAX_RESPONSE_BYTES - 100


def test_the_platforms_retry_after_delays_the_next_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(monkeypatch, (429, b"", {"Retry-After": "2"}), (200, OVER)) as server:
        start = time.monotonic()
        assert event_of(AixplainModelRunTrigger(f"{server.url}/run", "scripted"))["status"] == "success"
        assert time.monotonic() - start >= 2


@pytest.mark.parametrize("secrets", ["no Connection", "no key in it", "no backend"])
def test_the_wait_survives_a_missing_connection(monkeypatch: pytest.MonkeyPatch, secrets: str) -> None:
    """As when a triggerer starts while the secrets backend is down: the run is paid, and must not be given up."""
    monkeypatch.setattr("airflow_provider_aixplain.triggers.aixplain.RETRY_BUDGET", 60)
    read = AixplainHook.aread_account
    tries = 0

    async def unsteady(hook: AixplainHook) -> Platform:
        nonlocal tries
        tries += 1
        if tries > 4:
            monkeypatch.setenv("AIRFLOW_CONN_SCRIPTED", there)
        elif secrets == "no backend":
            raise RuntimeError("the vault is sealed")
        return await read(hook)

    with answering(monkeypatch, (200, OVER)) as server:
        there = os.environ["AIRFLOW_CONN_SCRIPTED"]
        if secrets == "no key in it":
            monkeypatch.setenv("AIRFLOW_CONN_SCRIPTED", '{"conn_type": "aixplain"}')
        else:
            monkeypatch.delenv("AIRFLOW_CONN_SCRIPTED")
        monkeypatch.setattr(AixplainHook, "aread_account", unsteady)
        event = event_of(AixplainModelRunTrigger(f"{server.url}/run", "scripted", wait_time=0.2))
    assert (event["status"], tries) == ("success", 5)


def test_the_wait_survives_a_key_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_aixplain.triggers.aixplain.RETRY_BUDGET", 60)

    def script(http: Handler) -> None:
        if len(server.asked) == 5:
            monkeypatch.setenv("AIRFLOW_CONN_ROTATED", json.dumps({"host": server.url, "password": "new"}))
        http.answer(*((200, OVER) if http.headers["x-api-key"] == "new" else (401, b"")))

    with serve(script) as server:
        monkeypatch.setenv("AIRFLOW_CONN_ROTATED", json.dumps({"host": server.url, "password": "old"}))
        event = event_of(AixplainModelRunTrigger(f"{server.url}/run", "rotated", wait_time=0.2))
    assert event["status"] == "success"
    assert [asked.headers["x-api-key"] for asked in server.asked] == ["old"] * 5 + ["new"]


def test_the_wait_survives_a_half_written_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is refused, and the Connection is read again while somebody has not yet written its host."""
    monkeypatch.setattr("airflow_provider_aixplain.triggers.aixplain.RETRY_BUDGET", 60)
    read, reads = AixplainHook.read_account, 0

    def unsteady(hook: AixplainHook) -> Platform:
        nonlocal reads
        reads += 1
        fields = {"password": "old" if reads == 1 else "new", **({} if reads == 2 else {"host": server.url})}
        monkeypatch.setenv("AIRFLOW_CONN_HALF", json.dumps(fields))
        return read(hook)

    async def aunsteady(hook: AixplainHook) -> Platform:
        return unsteady(hook)

    def script(http: Handler) -> None:
        http.answer(*((200, OVER) if http.headers["x-api-key"] == "new" else (401, b"")))

    monkeypatch.setattr(AixplainHook, "read_account", unsteady)
    monkeypatch.setattr(AixplainHook, "aread_account", aunsteady)
    with serve(script) as server:
        event = event_of(AixplainModelRunTrigger(f"{server.url}/run", "half", wait_time=0.2))
        assert (event["status"], reads) == ("success", 3)
        reads = 0
        outcome = AixplainHook("half").wait_for_run(f"{server.url}/run", Wait(0.2, 60, retry_budget=60))
        assert (outcome.status, reads) == ("success", 3)


def test_the_wait_survives_an_untrusted_certificate(
    certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes(Path(certifi.where()).read_bytes())
    with serve(lambda http: http.answer(200, OVER), certificate) as server:
        fields = {"host": server.url, "password": "key", "extra": {"verify": str(trusted)}}
        monkeypatch.setenv("AIRFLOW_CONN_TLS", json.dumps(fields))
        threading.Timer(1, lambda: trusted.write_bytes(certificate.read_bytes())).start()
        event = event_of(AixplainModelRunTrigger(f"{server.url}/run", "tls", wait_time=0.2))
    assert event["status"] == "success"
    assert len(server.asked) == 1


def test_the_wait_survives_every_fault_of_the_emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of all polls fail, each in its own way, for 40 runs that wait in one event loop."""
    with Processes(tmp_path / "emulator") as processes:
        emulator = Emulator(processes, 1, {"timeout": 0.5})
        monkeypatch.setenv("AIRFLOW_CONN_FAULTY", emulator.connection)
        monkeypatch.setattr("airflow_provider_aixplain.triggers.aixplain.RETRY_BUDGET", 60)
        hook = AixplainHook("faulty")
        urls = [str(hook.run_async("echo", f"input {index}").url) for index in range(40)]
        emulator.set_faults(rate=0.5)

        async def wait() -> list[Any]:
            triggers = [AixplainModelRunTrigger(url, "faulty", wait_time=0.2) for url in urls]
            return await asyncio.gather(*(anext(aiter(trigger.run())) for trigger in triggers))

        responses = [event.payload["response"] for event in asyncio.run(wait())]
        made = emulator.set_faults()
        runs = len(emulator.runs())
    assert [response["data"] for response in responses] == [f"input {index}" for index in range(40)]
    assert min(made.values()) > 0
    assert runs == 40


@pytest.mark.parametrize("age", [-1e6, 0.0, 1e6])
def test_a_clock_that_jumps_loses_no_result(monkeypatch: pytest.MonkeyPatch, age: float) -> None:
    """The run is polled before the wait ends, whatever the age of the submission."""
    with answering(monkeypatch, (200, OVER)) as server:
        submitted_at = pendulum.now("UTC").subtract(seconds=age).isoformat()
        event = event_of(AixplainModelRunTrigger(f"{server.url}/run", "scripted", submitted_at=submitted_at))
    assert event["status"] == "success"


def test_a_connection_that_never_exists_times_out() -> None:
    """Airflow reports the same while its secrets backend is down, so it is no refusal."""
    event = event_of(AixplainModelRunTrigger("https://models.aixplain.com/data/1", "nowhere", wait_time=0.2, timeout=2))
    assert event["status"] == "timeout"
    assert "'nowhere' does not exist" in event["message"]
