"""The sensor: when it polls, when it defers, how it finishes."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)

from airflow_provider_aixplain.exceptions import AixplainAwaitedRunFailed, AixplainInputError, AixplainUntrustedUrl
from airflow_provider_aixplain.hooks.aixplain import AixplainHook
from airflow_provider_aixplain.sensors.aixplain import AixplainModelRunSensor
from airflow_provider_aixplain.triggers.aixplain import AixplainModelRunTrigger
from tests.support.deployment import Emulator
from tests.support.kinds import AGENT
from tests.support.public_api import RESPONSE_FIELDS
from tests.support.scripted import Handler, serve

pytestmark = pytest.mark.usefixtures("connection")
CONTEXT: Any = {}
DONE = b'{"completed": true, "data": "a"}'


def submit(model_id: str = "sentiment", **parameters: Any) -> str:
    return str(AixplainHook().run_async(model_id, "The coffee is wonderful.", parameters=parameters).url)


def sensor(poll_url: str, **arguments: Any) -> AixplainModelRunSensor:
    return AixplainModelRunSensor(task_id="wait", poll_url=poll_url, **arguments)


def deferred(task: AixplainModelRunSensor) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as raised:
        task.execute(CONTEXT)
    return raised.value


def test_it_defers_for_a_running_run(emulator: Emulator) -> None:
    url = submit(delay=60)
    left = deferred(sensor(url, wait_time=2, timeout=timedelta(hours=1), model_id="sentiment"))
    assert isinstance(left.trigger, AixplainModelRunTrigger)
    _, stored = left.trigger.serialize()
    assert {name: stored[name] for name in ("poll_url", "wait_time", "timeout", "model_id")} == {
        "poll_url": url,
        "wait_time": 2,
        "timeout": 3600,
        "model_id": "sentiment",
    }
    (run,) = [run for run in emulator.runs() if url.endswith(run["id"])]
    assert len(run["polled_at"]) == 1, "asked once on the worker: it might have been over"


def test_an_execution_timeout_bounds_the_wait() -> None:
    left = deferred(sensor(submit(delay=60), execution_timeout=timedelta(seconds=7)))
    assert isinstance(left.trigger, AixplainModelRunTrigger)
    assert left.trigger.settings.timeout == 7


def test_a_finished_run_needs_no_trigger() -> None:
    url = submit()
    AixplainHook().sync_poll(url)
    task = sensor(url, model_id="sentiment")
    response = task.execute(CONTEXT)
    assert [link.name for link in task.operator_extra_links] == ["aiXplain page"]
    assert set(response) == RESPONSE_FIELDS
    assert (response["status"], response["data"], response["url"]) == ("SUCCESS", "positive", url)


@pytest.mark.parametrize("arguments", [{"agent_id": "echo-agent"}, {"agent_id": "echo-agent", "deferrable": False}])
def test_a_run_of_an_agent_returns_its_fields(arguments: dict[str, Any]) -> None:
    submitted = AixplainHook().run_agent_async("echo-agent", "Hello", variables={"delay": 0.1})
    AixplainHook().sync_poll(str(submitted.url))
    result = sensor(str(submitted.url), **arguments).execute(CONTEXT)
    assert set(result) == AGENT.fields
    ids = submitted.additional_fields
    assert (result["output"], result["session_id"], result["request_id"]) == (
        "Hello",
        ids["sessionId"],
        ids["requestId"],
    )
    assert set(sensor(str(submitted.url)).execute(CONTEXT)) == RESPONSE_FIELDS


def test_a_trigger_knows_the_agent() -> None:
    submitted = AixplainHook().run_agent_async("echo-agent", "Hello", variables={"delay": 60})
    left = deferred(sensor(str(submitted.url), agent_id="echo-agent"))
    assert isinstance(left.trigger, AixplainModelRunTrigger)
    assert (left.trigger.settings.agent_id, left.trigger.settings.model_id) == ("echo-agent", "")
    event = {"status": "timeout", "message": "not over", "response": None, "poll_url": "http://a/b"}
    with pytest.raises(AirflowSensorTimeout, match=r"^Agent echo-agent: stopped waiting; the run continues: not over"):
        sensor("http://a/b", agent_id="echo-agent").execute_complete(CONTEXT, event)


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_it_can_poke_on_the_worker(mode: str) -> None:
    url = submit(delay=0.1)
    AixplainHook().sync_poll(url)
    task = sensor(url, deferrable=False, mode=mode, poke_interval=0.2)
    assert task.poke(CONTEXT)
    if mode == "poke":  # else Airflow 2 asks its database when the first poke was
        assert task.execute(CONTEXT)["data"] == "positive"


@pytest.mark.parametrize("arguments", [{}, {"deferrable": False}, {"deferrable": False, "silent_fail": True}])
def test_a_failed_run_is_not_retried(arguments: dict[str, Any]) -> None:
    """Another poke would find the same."""
    url = submit("fail", delay=0)
    AixplainHook().sync_poll(url)
    message = r"The run: the run failed: this model always fails; poll URL: http"
    with pytest.raises(AixplainAwaitedRunFailed, match=message) as raised:
        sensor(url, **arguments).execute(CONTEXT)
    assert isinstance(raised.value, AirflowFailException)


def test_pokes_survive_a_key_rotation(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(http: Handler) -> None:
        is_old = http.headers["x-api-key"] == "old"
        http.answer(401 if is_old else 200, b"{}" if is_old else DONE)

    with serve(answer) as server:
        fields = {"host": server.url, "password": "old"}
        monkeypatch.setenv("AIRFLOW_CONN_ROTATED", json.dumps(fields))
        task = sensor(f"{server.url}/1", aixplain_conn_id="rotated", deferrable=False)
        assert task.poke(CONTEXT) is False
        monkeypatch.setenv("AIRFLOW_CONN_ROTATED", json.dumps({**fields, "password": "new"}))
        assert task.poke(CONTEXT) is False, "refused with the old one, but then it has read the new one"
        assert task.poke(CONTEXT)


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [({}, 0), ({"deferrable": False, "mode": "reschedule"}, 0), ({"deferrable": False, "mode": "poke"}, 1)],
)
def test_only_the_process_that_waits_logs_the_steps(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, arguments: dict[str, Any], lines: int
) -> None:
    """A worker that polls once would log them before the trigger, or the next worker, logs them again."""
    caplog.set_level("INFO")
    body = b'{"completed": %s, "data": {"steps": [{"agent": "Ann", "output": "yes"}]}}'
    with serve(lambda http: http.answer(200, body % (b"true" if len(server.asked) == 3 else b"false"))) as server:
        monkeypatch.setenv("AIRFLOW_CONN_STEPS", json.dumps({"host": server.url, "password": "key"}))
        task = sensor(f"{server.url}/run", aixplain_conn_id="steps", **arguments)
        for polls in (1, 2, 3):
            assert bool(task.poke(CONTEXT)) == (polls == 3)
            logged = [record for record in caplog.records if "Step 1: Ann" in record.getMessage()]
            assert len(logged) == (1 if polls == 3 else lines)


def test_soft_fail_skips_before_and_after_the_deferral() -> None:
    url = submit("fail", delay=0)
    AixplainHook().sync_poll(url)
    pokes = [{"soft_fail": True, "deferrable": False}, {"never_fail": True, "deferrable": False}]
    for arguments in ({"soft_fail": True}, *pokes):
        with pytest.raises(AirflowSkipException):
            sensor(url, **arguments).execute(CONTEXT)
    task = sensor(submit("fail", delay=60), soft_fail=True)
    left = deferred(task)
    event = {"status": "failed", "message": "no", "response": None, "poll_url": task.poll_url}
    with pytest.raises(AirflowSkipException):
        task.resume_execution(left.method_name, {**(left.kwargs or {}), "event": event}, CONTEXT)


def test_a_timeout_raises_the_sensors_error() -> None:
    event = {"status": "timeout", "message": "not over", "response": None, "poll_url": "http://a/b"}
    with pytest.raises(AirflowSensorTimeout, match="stopped waiting; the run continues: not over"):
        sensor("http://a/b").execute_complete(CONTEXT, event)
    with pytest.raises(AirflowSensorTimeout):
        sensor(submit(delay=60), deferrable=False, timeout=0.3, poke_interval=0.1).execute(CONTEXT)


def test_an_untrusted_poll_url_is_refused() -> None:
    with pytest.raises(AixplainUntrustedUrl):
        sensor("https://elsewhere.example.com/api/v1/data/1").execute(CONTEXT)


@pytest.mark.parametrize(
    ("arguments", "named"), [({"wait_time": -1}, "wait_time is -1"), ({"polling": "often"}, "polling is 'often'")]
)
def test_bad_arguments_are_named_when_the_dag_is_read(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(AixplainInputError, match=named):
        sensor("http://a/b", **arguments)
