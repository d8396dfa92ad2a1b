"""The operators of models and agents: what they send, when they defer, how they end."""

from __future__ import annotations

import copy
import json
import logging
import time
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import MagicMock, Mock

import pendulum
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator, TaskDeferred

from airflow_provider_aixplain.client.account import Platform
from airflow_provider_aixplain.decorators.aixplain import AixplainDecoratedOperator
from airflow_provider_aixplain.decorators.batch import AixplainBatchDecoratedOperator
from airflow_provider_aixplain.exceptions import (
    AixplainConfigurationError,
    AixplainError,
    AixplainInputError,
    AixplainPermanentError,
    AixplainRunFailed,
    AixplainRunTimeout,
    AixplainUntrustedUrl,
)
from airflow_provider_aixplain.files import Upload
from airflow_provider_aixplain.operators.base import GRACE
from airflow_provider_aixplain.operators.batch import AixplainBatchRunOperator
from airflow_provider_aixplain.protocol.resumption import CLEARED, NOT_DURABLE, Submission
from airflow_provider_aixplain.protocol.values import fields_with_values
from airflow_provider_aixplain.sensors.aixplain import AixplainModelRunSensor
from airflow_provider_aixplain.submission import MAX_STORED_RESPONSE, seconds_since
from airflow_provider_aixplain.triggers.aixplain import AixplainModelRunTrigger
from tests.support.deployment import AIRFLOW_3, Emulator
from tests.support.kinds import AGENT, MODEL, REVIEW, Kind, submissions
from tests.support.public_api import RESPONSE_FIELDS
from tests.support.scripted import Handler, serve
from tests.support.task_log import TaskLog
from tests.unit.triggers.test_aixplain import event_of

pytestmark = pytest.mark.usefixtures("connection")
CONTEXT: Any = {}


def operator(kind: Kind = MODEL, **arguments: Any) -> Any:
    return kind.operator(**{"task_id": "analyse", **kind.default, **arguments})


def test_the_trigger_stores_neither_key_nor_input(kind: Kind, emulator: Emulator) -> None:
    before = pendulum.now("UTC")
    with pytest.raises(TaskDeferred) as deferred:
        operator(kind, wait_time=2, timeout=timedelta(hours=1)).execute(CONTEXT)
    trigger = deferred.value.trigger
    assert deferred.value.method_name == "resume_from_trigger"
    assert isinstance(trigger, AixplainModelRunTrigger)
    _, stored = trigger.serialize()
    assert deferred.value.kwargs == {"settings": stored, "stored": {}}
    assert all(isinstance(value, (str, float, bool)) or value is None for value in stored.values()), "flat JSON"
    run = {"poll_url", "aixplain_conn_id", "wait_time", "timeout", "submitted_at", "deferred_at"}
    assert set(stored) == run | {
        "end_from_trigger",
        "do_xcom_push",
        "multiple_outputs",
        "polling",
        "asset_page",
        "usage",
        "model_id",
        "agent_id",
    }
    assert stored["end_from_trigger"] is False
    assert stored["poll_url"].startswith(emulator.url)
    assert (stored["aixplain_conn_id"], stored["wait_time"]) == ("aixplain_default", 2)
    assert stored["timeout"] == 3600
    assert before <= pendulum.parse(stored["submitted_at"]) <= pendulum.now("UTC")  # type: ignore[operator]
    assert (stored["model_id"], stored["agent_id"]) == (
        kind.default.get("model_id", ""),
        kind.default.get("agent_id", ""),
    )
    assert kind.input_of(emulator.runs()[-1]) == kind.payload(REVIEW)


def test_it_can_wait_on_the_worker() -> None:
    response = operator(deferrable=False, wait_time=0.2).execute(CONTEXT)
    assert set(response) == RESPONSE_FIELDS
    assert (response["status"], response["data"]) == ("SUCCESS", "positive")
    json.dumps(response)


def test_it_can_return_without_waiting(kind: Kind, emulator: Emulator) -> None:
    response = operator(kind, wait_for_completion=False).execute(CONTEXT)
    assert set(response) == kind.fields
    assert (response["status"], response["completed"]) == ("IN_PROGRESS", False)
    assert response["url"].startswith(emulator.url)


def test_a_final_answer_to_the_submission_is_returned(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(http: Any) -> None:
        http.answer(200, json.dumps({"status": status, "data": "hi", "error_message": message}).encode())

    with serve(answer) as server:
        monkeypatch.setenv("AIRFLOW_CONN_AT_ONCE", json.dumps({"host": server.url, "password": "key"}))
        status, message = "SUCCESS", ""
        assert operator(kind, aixplain_conn_id="at_once").execute(CONTEXT)["data"] == "hi"
        status, message = "FAILED", "the platform's words"
        with pytest.raises(AixplainRunFailed, match=rf"^{kind.name.title()} \S+: .*the platform's words"):
            operator(kind, aixplain_conn_id="at_once").execute(CONTEXT)


def test_a_poll_url_in_the_url_field_is_polled(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(http: Any) -> None:
        accepted = {"status": "IN_PROGRESS", "requestId": "r", "url": f"{server.url}/sdk/runs/r"}
        done = {"completed": True, "status": "DONE", "data": "hi", "usedCredits": 0.0}
        http.answer(200, json.dumps(accepted if http.command == "POST" else done).encode())

    with serve(answer) as server:
        monkeypatch.setenv("AIRFLOW_CONN_PIPELINE", json.dumps({"host": server.url, "password": "key"}))
        task = operator(aixplain_conn_id="pipeline", deferrable=False)
        warning = Mock()
        monkeypatch.setattr(task.log, "warning", warning)
        assert task.execute(CONTEXT)["data"] == "hi"
    shown = [call.args[0] % call.args[1:] for call in warning.call_args_list]
    assert any("succeeded with a warning: the platform reports the unknown status 'DONE'" in line for line in shown)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"wait_time": -1}, "wait_time is -1: give seconds, from 0 to 1e\\+09"),
        ({"wait_time": "soon"}, "wait_time is 'soon'"),
        ({"wait_time": None}, "wait_time is None"),
        ({"timeout": -0.1}, "timeout is -0.1"),
        ({"timeout": float("inf")}, "timeout is inf"),
        ({"timeout": float("nan")}, "timeout is nan"),
        ({"timeout": 10**400}, "timeout is 1000"),
        ({"timeout": True}, "timeout is True"),
        ({"timeout": timedelta(seconds=-1)}, "timeout is"),
    ],
)
def test_bad_durations_are_named_when_the_dag_is_read(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(AixplainInputError, match=named):
        operator(**arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({"model_id": ""}, AixplainInputError, "model_id is ''"),
        ({"data": None}, AixplainInputError, "data is None"),
        ({"data": {"a": [object()]}}, AixplainInputError, r"data\['a'\]\[0\] is a object"),
        ({"parameters": {"a": {1}}}, AixplainInputError, r"parameters\['a'\] is a set"),
        ({"aixplain_conn_id": "empty_key"}, AixplainConfigurationError, "password is empty"),
        ({"aixplain_conn_id": "odd_type"}, AixplainConfigurationError, "api_key_type is 'odd'"),
        ({"aixplain_conn_id": "odd_host"}, AixplainConfigurationError, "host is 'https://no url'"),
        ({"aixplain_conn_id": "insecure"}, AixplainConfigurationError, "unencrypted"),
    ],
)
def test_bad_input_is_named_and_nothing_is_sent(
    arguments: dict[str, Any], error: type[Exception], named: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for conn_id, fields in {
        "empty_key": {"host": emulator.url},
        "odd_type": {"host": emulator.url, "password": "key", "extra": {"api_key_type": "odd"}},
        "odd_host": {"host": "no url", "password": "key"},
        "insecure": {"host": "http://a.example", "password": "key"},
    }.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps({"conn_type": "aixplain", **fields}))
    before = len(emulator.runs())
    with pytest.raises(error, match=named) as raised:
        operator(**arguments).execute(CONTEXT)
    assert isinstance(raised.value, AirflowFailException), "a retry cannot fix it"
    assert len(emulator.runs()) == before


def test_a_connection_that_does_not_exist_is_named() -> None:
    with pytest.raises(AixplainConfigurationError, match="'nowhere' does not exist: create one of type aixplain"):
        operator(aixplain_conn_id="nowhere").execute(CONTEXT)


def test_a_refused_submission_is_not_retried(kind: Kind) -> None:
    message = rf"{kind.name.title()} nope: .*HTTP 404 \(resource\): no {kind.name} nope"
    with pytest.raises(AixplainPermanentError, match=message) as raised:
        operator(kind, **{f"{kind.name}_id": "nope"}).execute(CONTEXT)
    assert (raised.value.status_code, raised.value.category, raised.value.retryable) == (404, "resource", False)


@pytest.mark.parametrize(
    ("status_code", "retryable"), [(402, False), (429, True), (489, True), (503, True), (505, None)]
)
def test_errors_of_the_platform_state_whether_to_retry(
    status_code: int, retryable: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(lambda http: http.answer(status_code, b'{"error": "the platform\'s words"}')) as server:
        monkeypatch.setenv("AIRFLOW_CONN_TROUBLE", json.dumps({"host": server.url, "password": "k3y-nobody-sees"}))
        with pytest.raises(AixplainError, match="the platform's words") as raised:
            operator(aixplain_conn_id="trouble").execute(CONTEXT)
    assert raised.value.retryable is retryable
    assert isinstance(raised.value, AirflowFailException) is (retryable is False)
    assert len(server.asked) == 1
    assert "k3y-nobody-sees" not in f"{raised.value!r} {vars(raised.value)}"


@pytest.mark.parametrize(
    ("status", "error", "fails_for_good"),
    [
        ("failed", AixplainRunFailed, False),
        ("timeout", AixplainRunTimeout, False),
        ("error", AixplainPermanentError, True),
    ],
)
def test_an_event_without_result_raises_its_error(
    status: str, error: type[AixplainError], fails_for_good: bool
) -> None:
    event = {"status": status, "message": "the platform's words", "response": None, "poll_url": "https://h/run"}
    with pytest.raises(error, match=r"Model sentiment: .*the platform's words; poll URL: https://h/run$") as raised:
        operator().execute_complete(CONTEXT, event)
    assert isinstance(raised.value, AirflowFailException) is fails_for_good


def test_the_key_is_in_no_log(connection: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        operator(deferrable=False, wait_time=0.2).execute(CONTEXT)
        with pytest.raises(AixplainRunFailed):
            operator(model_id="fail", deferrable=False, wait_time=0.2).execute(CONTEXT)
    assert caplog.text
    assert str(connection["password"]) not in caplog.text


class TestStream:
    """The text is written to the log as it comes, and returned as a whole."""

    def test_the_whole_text_is_returned(self, emulator: Emulator) -> None:
        text = "First line.\n" + "a long line of many words " * 20
        response = operator(model_id="echo", data={"data": text}, stream=True).execute(CONTEXT)
        assert set(response) == RESPONSE_FIELDS
        assert (response["status"], response["completed"], response["data"]) == ("SUCCESS", True, text)
        assert response["usage"]["total_tokens"] > 0
        assert emulator.runs()[-1]["payload"] == {"data": text, "options": {"stream": True}}
        json.dumps(response)

    def test_a_failed_stream_raises_the_reason(self) -> None:
        with pytest.raises(AixplainRunFailed, match="Model fail: the run failed: this model always fails"):
            operator(model_id="fail", stream=True, parameters={"delay": 0}).execute(CONTEXT)

    def test_a_model_without_streaming_is_refused(self, emulator: Emulator) -> None:
        before = len(emulator.runs())
        with pytest.raises(AirflowFailException, match="'sentiment' does not support streaming"):
            operator(stream=True).execute(CONTEXT)
        assert len(emulator.runs()) == before

    def test_a_cut_or_late_stream_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def answer(http: Any) -> None:
            if http.command == "GET":
                http.answer(200, b'{"id": "a", "supportsStreaming": true}')
            else:
                http.answer(200, b'data: {"data": "Hel"}\n\n' * pieces, **{"Content-Type": "text/event-stream"})

        with serve(answer) as server:
            monkeypatch.setenv("AIRFLOW_CONN_STREAMING", json.dumps({"host": server.url, "password": "key"}))
            pieces = 1
            with pytest.raises(AixplainError, match="The stream was cut") as raised:
                operator(aixplain_conn_id="streaming", stream=True).execute(CONTEXT)
            assert raised.value.retryable
            pieces = 9
            with pytest.raises(AixplainRunTimeout, match="its stream did not finish within 0 s"):
                operator(aixplain_conn_id="streaming", stream=True, timeout=0).execute(CONTEXT)

    def test_it_defers_if_the_platform_does_not_stream(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def answer(http: Any) -> None:
            if http.command == "GET":
                http.answer(200, b'{"id": "a", "supportsStreaming": true}')
            else:
                body = json.dumps({"status": "IN_PROGRESS", "data": f"{server.url}/run"}).encode()
                http.answer(201, body, **{"Content-Type": "application/json"})

        with serve(answer) as server:
            monkeypatch.setenv("AIRFLOW_CONN_STREAMING", json.dumps({"host": server.url, "password": "key"}))
            with pytest.raises(TaskDeferred) as deferred:
                operator(aixplain_conn_id="streaming", stream=True).execute(CONTEXT)
        assert isinstance(deferred.value.trigger, AixplainModelRunTrigger)
        assert deferred.value.trigger.settings.poll_url == f"{server.url}/run"

    def test_stream_and_no_completion_exclude_each_other(self) -> None:
        with pytest.raises(AixplainInputError, match="stream and wait_for_completion=False: choose one"):
            operator(stream=True, wait_for_completion=False)


def test_a_file_is_uploaded_before_the_run(tmp_path: Path, emulator: Emulator) -> None:
    path = tmp_path / "review.txt"
    path.write_text("What a terrible disappointment")
    run = operator(data={"text": Upload(f"file://{tmp_path}/{{{{ name }}}}.txt")}, deferrable=False)
    run.render_template_fields({"name": "review", "task": run})  # type: ignore[typeddict-item]
    assert run.execute(CONTEXT)["data"] == "negative"
    assert emulator.runs()[-1]["payload"]["text"].startswith("s3://")


class Store(dict[str, Any]):
    """What Airflow 3.3 gives a task as its state store: get, set and delete by key."""

    def set(self, key: str, value: Any) -> None:
        self[key] = json.loads(json.dumps(value))

    def delete(self, key: str) -> None:
        self.pop(key, None)


class Tries:
    """The tries of one task, one after the other, with the store that they share."""

    def __init__(self, kind: Kind = MODEL, **arguments: Any) -> None:
        self.kind = kind
        self.store = Store()
        self.arguments = {"deferrable": False, "wait_time": 0.2, "task_id": "tries", **arguments}
        self.max_tries = 0
        self.try_number = 1
        self.xcoms: list[str] = []
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = json.loads(json.dumps(value))

    @property
    def submission(self) -> dict[str, Any]:
        """The record of the submission, without that of the usage."""
        stored = self.store.get("aixplain_submission", {})
        return {name: value for name, value in stored.items() if name != "usage"}

    @property
    def usage(self) -> dict[str, Any]:
        """The usage record, of which the XCom is a replica."""
        assert self.store["aixplain_submission"]["usage"] == self.pushed["aixplain_usage"]
        usage: dict[str, Any] = self.pushed["aixplain_usage"]
        return usage

    def run(self, **arguments: Any) -> Any:
        task = operator(self.kind, **{**self.arguments, **arguments})
        from_server = SimpleNamespace(xcom_keys_to_clear=self.xcoms)
        tries = {"max_tries": self.max_tries, "try_number": self.try_number}
        instance = SimpleNamespace(**tries, _ti_context_from_server=from_server, xcom_push=self.xcom_push)
        context: Any = {"task_state_store": self.store, "ti": instance}
        self.xcoms, self.pushed = [], {}  # Airflow deletes them when a task starts again
        self.try_number += 1
        response = task.execute(context)
        self.xcoms = ["return_value"] if task.do_xcom_push else []
        return response


class TestLaterTries:
    """A later try finds the run of an earlier one."""

    def test_a_running_run_is_resumed(self, kind: Kind, emulator: Emulator) -> None:
        text = f"a {kind.name} goes on"
        tries = Tries(kind, **kind.echo(text, delay=1.0))
        with pytest.raises(AixplainRunTimeout):
            tries.run(timeout=0)
        assert text in str(tries.run()["data"])
        assert submissions(emulator, text) == 1

    def test_a_resumed_run_keeps_its_age_with_a_new_timeout(self, kind: Kind, emulator: Emulator) -> None:
        text = f"a {kind.name} is deferred"
        tries = Tries(kind, **kind.echo(text, delay=60), deferrable=True, timeout=100)
        settings = []
        for _ in range(2):
            with pytest.raises(TaskDeferred) as deferred:
                tries.run()
            settings.append(deferred.value.trigger.settings)
        first, second = settings
        assert (second.poll_url, second.submitted_at) == (first.poll_url, first.submitted_at)
        assert second.deferred_at > first.deferred_at
        assert 100 <= first.timeout < second.timeout < 110
        assert submissions(emulator, text) == 1

    def test_a_lost_result_is_read_again(self, kind: Kind, emulator: Emulator) -> None:
        text = f"a {kind.name}'s answer is lost on its way"
        tries = Tries(kind, **kind.echo(text, delay=0.1))
        assert tries.run() == tries.run()
        assert submissions(emulator, text) == 1

    def test_a_lost_stream_is_returned_again(self, emulator: Emulator) -> None:
        """It has no poll URL, so its record has the response."""
        tries = Tries(model_id="echo", data="a lost stream", stream=True, parameters={"delay": 0})
        assert tries.run() == tries.run()
        assert submissions(emulator, "a lost stream") == 1
        assert tries.usage["runs"] == {"success": 1}
        tries.max_tries += 1  # the task is cleared
        tries.run()
        assert tries.usage["runs"] == {"success": 2}

    def test_a_large_response_is_not_stored(self) -> None:
        tries = Tries(model_id="echo", data="large" * MAX_STORED_RESPONSE, stream=True, parameters={"delay": 0})
        tries.run()
        assert tries.submission["response"] is None

    def test_a_cleared_task_runs_again_after_a_failed_start(self, kind: Kind, emulator: Emulator) -> None:
        """Its trigger has finished it, which only its XComs show, and only to the next try."""
        text = f"a {kind.name} ended by its trigger"
        tries = Tries(kind, **kind.echo(text), deferrable=True, end_from_trigger=True)
        with pytest.raises(TaskDeferred):
            tries.run()
        tries.xcoms, tries.max_tries = ["return_value"], 1
        with pytest.raises(AixplainConfigurationError):
            tries.run(aixplain_conn_id="nobodys")
        with pytest.raises(TaskDeferred):
            tries.run()
        assert submissions(emulator, text) == 2

    @pytest.mark.parametrize("pushes", [True, False])
    @pytest.mark.parametrize("waits", [True, False])
    def test_a_task_cleared_after_success_runs_again(
        self, kind: Kind, waits: bool, pushes: bool, emulator: Emulator, task_log: TaskLog
    ) -> None:
        text = f"a {kind.name} cleared {waits} {pushes}"
        tries = Tries(kind, **kind.echo(text, delay=0.1), wait_for_completion=waits, do_xcom_push=pushes)
        tries.run()
        assert CLEARED not in str(task_log)
        tries.max_tries = 1
        tries.run()
        assert submissions(emulator, text) == 2
        assert str(task_log).count(f"tries: {CLEARED}") == 1

    @pytest.mark.parametrize("waits", [True, False])
    def test_a_task_cleared_without_a_result_resumes_its_run(self, kind: Kind, waits: bool, emulator: Emulator) -> None:
        """The result was returned and not pushed: its XCom backend, or a ``post_execute``, has failed."""
        text = f"a {kind.name} not pushed {waits}"
        tries = Tries(kind, **kind.echo(text, delay=0.1), wait_for_completion=waits)
        tries.run()
        for _ in range(2):  # the second one is a retry
            tries.xcoms, tries.max_tries = ["aixplain_usage"], 1
            tries.run()
        assert submissions(emulator, text) == 1
        tries.max_tries = 2
        tries.run()
        assert submissions(emulator, text) == 2

    def test_a_cleared_task_that_fails_runs_again_on_its_retry(self, kind: Kind, emulator: Emulator) -> None:
        """Only its first try after the clear can know that it had its result."""
        text = f"a {kind.name} cleared and retried"
        tries = Tries(kind, **kind.echo(text, delay=0.1))
        tries.run()
        tries.max_tries = 1
        with pytest.raises(AixplainConfigurationError):
            tries.run(aixplain_conn_id="nobodys")
        tries.run()
        assert submissions(emulator, text) == 2

    def test_a_failed_run_is_submitted_again(self, kind: Kind, emulator: Emulator) -> None:
        before = len(emulator.runs())
        tries = Tries(kind, **kind.fail(delay=0.1))
        for _ in range(2):
            with pytest.raises(AixplainRunFailed):
                tries.run()
        assert len(emulator.runs()) == before + 2
        assert not tries.submission

    def test_a_run_that_failed_between_tries_is_submitted_again(self, emulator: Emulator) -> None:
        before = len(emulator.runs())
        tries = Tries(model_id="fail", parameters={"delay": 0.5})
        with pytest.raises(AixplainRunTimeout):
            tries.run(timeout=0)
        time.sleep(0.6)
        with pytest.raises(AixplainRunFailed):
            tries.run()
        assert len(emulator.runs()) == before + 2

    @pytest.mark.parametrize(
        "changed", [{"data": "other input"}, {"model_id": "language"}, {"parameters": {"delay": 30, "more": 1}}]
    )
    def test_changed_input_is_submitted(self, emulator: Emulator, changed: dict[str, Any]) -> None:
        before = len(emulator.runs())
        tries = Tries(model_id="echo", data="changed", parameters={"delay": 30}, timeout=0.1)
        for arguments in ({}, changed, changed):
            with pytest.raises(AixplainRunTimeout):
                tries.run(**arguments)
        assert len(emulator.runs()) == before + 2

    def test_a_cleared_task_that_resumed_a_run_delivers_once(self, emulator: Emulator) -> None:
        tries = Tries(model_id="echo", data="cleared while running", parameters={"delay": 1})
        with pytest.raises(AixplainRunTimeout):
            tries.run(timeout=0)
        tries.max_tries = 1
        for _ in range(2):
            assert tries.run()["data"] == "cleared while running"
        assert submissions(emulator, "cleared while running") == 1
        tries.max_tries = 2
        tries.run()
        assert submissions(emulator, "cleared while running") == 2

    @pytest.mark.parametrize("arguments", [{"stream": True}, {}], ids=["no stream", "no trust"])
    def test_an_unsent_submission_leaves_no_record(
        self, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any]
    ) -> None:
        tries = Tries(on_orphaned_submission="fail")
        monkeypatch.setattr(Platform, "trusts", lambda self, url: "execute" not in url)
        with pytest.raises(AixplainError):
            tries.run(**arguments)
        assert not tries.submission

    def test_without_durable_each_try_submits(self, emulator: Emulator, task_log: TaskLog) -> None:
        tries = Tries(model_id="echo", data="not durable", parameters={"delay": 0}, durable=False)
        tries.run()
        assert NOT_DURABLE not in str(task_log)
        tries.try_number = 2
        tries.run()
        assert submissions(emulator, "not durable") == 2
        assert str(task_log).count(f"tries: {NOT_DURABLE}") == 1
        assert not tries.submission

    def test_the_record_holds_neither_key_nor_input(self, kind: Kind, connection: dict[str, object]) -> None:
        tries = Tries(kind, **kind.echo("secret-input", delay=0.1))
        tries.run()
        assert "secret-input" not in str(tries.store)
        assert str(connection["password"]) not in str(tries.store)

    @pytest.mark.parametrize("status_code", [400, 404, 429, 500, 502])
    def test_a_refused_submission_leaves_no_record(
        self, kind: Kind, monkeypatch: pytest.MonkeyPatch, status_code: int
    ) -> None:
        with serve(lambda http: http.answer(status_code)) as server:
            monkeypatch.setenv("AIRFLOW_CONN_REFUSING", json.dumps({"host": server.url, "password": "key"}))
            tries = Tries(kind, aixplain_conn_id="refusing", on_orphaned_submission="fail")
            with pytest.raises(AixplainError):
                tries.run()
            assert bool(tries.submission) is (status_code >= 500)

    def test_an_orphan_is_submitted_again_or_fails_once(self, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
        with serve(Handler.reset) as server:
            monkeypatch.setenv("AIRFLOW_CONN_RESETTING", json.dumps({"host": server.url, "password": "key"}))
            tries = Tries(kind, aixplain_conn_id="resetting")
            for submissions in (1, 2):
                with pytest.raises(AixplainError, match="may have received the submission"):
                    tries.run()
                assert len(server.asked) == submissions
                assert tries.usage["runs"] == {"orphaned": submissions}
            with pytest.raises(AixplainPermanentError, match=r"unknown whether .* Clear the task"):
                tries.run(on_orphaned_submission="fail")
            assert len(server.asked) == 2
            with pytest.raises(AixplainError, match="may have received the submission"):
                tries.run(on_orphaned_submission="fail")
            assert len(server.asked) == 3

    @pytest.mark.parametrize(
        ("status_code", "posts"),
        [(404, 2), (401, 1), (403, 1), (503, 1)],
    )
    def test_only_an_unknown_run_is_submitted_again(
        self, kind: Kind, monkeypatch: pytest.MonkeyPatch, status_code: int, posts: int
    ) -> None:
        monkeypatch.setattr("airflow_provider_aixplain.operators.run.NOT_FOUND_DELAY", 0)

        def answer(http: Any) -> None:
            if http.command == "POST":
                http.answer(201, json.dumps({"data": f"{server.url}/run"}).encode())
            else:
                http.answer(status_code if later else 200, b'{"completed": false}' if not later else b"")

        with serve(answer) as server:
            monkeypatch.setenv("AIRFLOW_CONN_ASKED", json.dumps({"host": server.url, "password": "key"}))
            tries = Tries(kind, aixplain_conn_id="asked", timeout=0)
            later = False
            with pytest.raises(AixplainRunTimeout):
                tries.run()
            later = True
            with pytest.raises(AixplainRunTimeout):
                tries.run()
        assert [asked.method for asked in server.asked].count("POST") == posts

    def test_a_failing_store_costs_no_run_and_loses_no_result(self, emulator: Emulator) -> None:
        class Broken(Store):
            works = 0

            def set(self, key: str, value: Any) -> None:
                self.works -= 1
                if self.works < 0:
                    raise RuntimeError("the store is down")

            def delete(self, key: str) -> None:
                raise RuntimeError("the store is down")

        tries = Tries(model_id="echo", data="broken store", parameters={"delay": 0})
        tries.store = Broken()
        with pytest.raises(RuntimeError):
            tries.run()
        assert submissions(emulator, "broken store") == 0
        tries.store.works = 1
        assert tries.run()["data"] == "broken store"
        tries.store.works = 1
        with pytest.raises(AixplainRunFailed):
            tries.run(model_id="fail")

    def test_an_unknown_choice_is_refused(self) -> None:
        with pytest.raises(AixplainInputError, match="on_orphaned_submission is 'maybe': use resubmit or fail"):
            operator(on_orphaned_submission="maybe")


class TestLargeResponses:
    """The trigger leaves them to the worker."""

    EVENT: ClassVar[dict[str, Any]] = {"status": "success", "message": "large", "response": None}

    def run(self, monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, age: float = 0) -> Any:
        submitted_at = pendulum.now("UTC").subtract(seconds=age).isoformat()
        with serve(lambda http: http.answer(status, body)) as server:
            fields = {"host": server.url, "password": "key", "extra": {"max_answer_mib": 1}}
            monkeypatch.setenv("AIRFLOW_CONN_LARGE", json.dumps(fields))
            event = {**self.EVENT, "poll_url": f"{server.url}/run"}
            task = operator(aixplain_conn_id="large")
            settings = task.run_settings(poll_url="https://h/run", submitted_at=submitted_at, timeout=100)
            return task.resume_from_trigger(CONTEXT, event, settings.to_dict())

    def test_the_worker_reads_a_large_response(self, monkeypatch: pytest.MonkeyPatch) -> None:
        response = self.run(monkeypatch, 200, b'{"completed": true, "data": "%s"}' % (b"x" * 500_000))
        assert len(response["data"]) == 500_000
        assert response["url"].endswith("/run")

    def test_a_large_answer_of_a_failed_run_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(AixplainRunFailed, match="no more"):
            self.run(monkeypatch, 200, b'{"completed": true, "error_message": "no more"}')

    @pytest.mark.parametrize(("status", "body"), [(503, b""), (200, b'{"completed": false}'), (404, b"")])
    def test_it_defers_again_if_the_poll_fails(self, monkeypatch: pytest.MonkeyPatch, status: int, body: bytes) -> None:
        with pytest.raises(TaskDeferred) as deferred:
            self.run(monkeypatch, status, body, age=90)
        assert deferred.value.trigger.settings.poll_url.endswith("/run")
        assert deferred.value.trigger.settings.timeout == 100, "the deadline stays where it was"
        assert 90 <= seconds_since(deferred.value.trigger.settings.submitted_at) < 95
        with pytest.raises(AixplainRunTimeout):
            self.run(monkeypatch, status, body, age=101)

    def test_it_defers_again_without_a_connection(self, monkeypatch: pytest.MonkeyPatch) -> None:
        event = {**self.EVENT, "poll_url": "https://models.aixplain.com/run"}
        task = operator(aixplain_conn_id="gone")
        with pytest.raises(TaskDeferred):
            task.resume_from_trigger(CONTEXT, event, task.run_settings(poll_url=event["poll_url"]).to_dict())

    def test_a_response_above_the_limit_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(AixplainPermanentError, match="set max_answer_mib in the extra of the Connection"):
            self.run(monkeypatch, 200, b" " * 1_100_000)


@pytest.mark.parametrize(
    ("limit", "timeout"), [(None, 100), (timedelta(seconds=30), 30), (timedelta(hours=1), 100), (timedelta(0), 100)]
)
def test_an_execution_timeout_bounds_the_wait_too(limit: timedelta | None, timeout: float) -> None:
    """Airflow 3.3 itself applies it to each process of the task separately."""
    with pytest.raises(TaskDeferred) as deferred:
        operator(timeout=100, execution_timeout=limit).execute(CONTEXT)
    assert deferred.value.trigger.settings.timeout == timeout
    assert deferred.value.timeout == (limit + GRACE if limit else None)


def test_an_untrusted_poll_url_is_refused_and_recorded(emulator: Emulator) -> None:
    """It is refused before the deferral. The record lets a retry resume the run once the origin is trusted."""
    emulator.set_faults(foreign_poll_urls=1)
    try:
        tries = Tries(model_id="echo", data="foreign", deferrable=True)
        for _ in range(2):
            with pytest.raises(AixplainUntrustedUrl, match="add it to trusted_origins"):
                tries.run()
    finally:
        emulator.set_faults()
    assert sum(run["payload"] == {"data": "foreign"} for run in emulator.runs()) == 1


def deferred_by(task: Any, context: Any = CONTEXT) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(context)
    return deferred.value


class TestResumedWithoutEvent:
    """As when ``airflow dags test`` and a scheduler use one database: one defers a task that the other resumes."""

    def test_the_run_is_polled_and_not_submitted_again(
        self, emulator: Emulator, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
    ) -> None:
        kwargs = deferred_by(operator(parameters={"delay": 0})).kwargs
        before = len(emulator.runs())
        response = operator().resume_execution("resume_from_trigger", kwargs, CONTEXT)
        assert (response["data"], response["url"]) == ("positive", kwargs["settings"]["poll_url"])
        assert len(emulator.runs()) == before
        assert "use another AIRFLOW_HOME" in caplog.text + capsys.readouterr().out

    def test_a_run_in_progress_is_waited_for_again(self) -> None:
        kwargs = deferred_by(operator(parameters={"delay": 60})).kwargs
        with pytest.raises(TaskDeferred) as again:
            operator().resume_execution("resume_from_trigger", kwargs, CONTEXT)
        assert again.value.trigger.settings.poll_url == kwargs["settings"]["poll_url"]

    def test_without_a_poll_url_it_is_a_clear_error(self) -> None:
        with pytest.raises(AixplainError, match="use another AIRFLOW_HOME"):
            operator().resume_execution("resume_from_trigger", {}, CONTEXT)


class Outer(BaseOperator):
    """Another task, within which an operator's ``execute`` is called."""


def within(task: Any, **context: Any) -> Any:
    return {"ti": SimpleNamespace(task=task, task_id=task.task_id), **context}


class TestNested:
    """Its ``execute`` is called by another task, such as a function of ``@task``."""

    @pytest.mark.parametrize(
        "nested",
        [
            lambda: operator(),
            lambda: operator(AGENT),
            lambda: operator(stream=True, model_id="echo"),
            lambda: AixplainModelRunSensor(task_id="wait", poll_url="http://127.0.0.1/none"),
            lambda: AixplainModelRunSensor(
                task_id="wait", poll_url="http://127.0.0.1/none", deferrable=False, mode="reschedule"
            ),
            lambda: AixplainBatchRunOperator(task_id="batch", model_id="echo", input=["a"], result_path="file:///no"),
        ],
    )
    @pytest.mark.parametrize("task_id", ["outer", "analyse", "wait", "batch"])
    def test_a_task_that_releases_its_worker_is_refused(self, nested: Any, task_id: str, emulator: Emulator) -> None:
        before = len(emulator.runs())
        task = nested()
        named = f"{task.task_id}: .* is called within task '{task_id}'.*deferrable=False"
        with pytest.raises(AixplainInputError, match=named):
            task.execute(within(Outer(task_id=task_id)))
        assert len(emulator.runs()) == before

    def test_a_task_that_waits_on_the_worker_works(self, emulator: Emulator) -> None:
        store = Store()
        for _ in range(2):
            task = operator(deferrable=False, wait_time=0.2, parameters={"delay": 0})
            response = task.execute(within(Outer(task_id="outer"), task_state_store=store))
            assert response["data"] == "positive"
        stored = store["aixplain_submission"]
        assert set(stored) == {"usage"}, "several calls in one task would take each other's runs for their own"
        assert stored["usage"]["runs"] == {"success": 2}
        submitted = operator(wait_for_completion=False).execute(within(Outer(task_id="outer")))
        assert submitted["status"] == "IN_PROGRESS"

    @pytest.mark.parametrize(
        "context",
        [
            {},
            {"ti": None},
            {"ti": MagicMock()},
            {"ti": SimpleNamespace(task_id="other")},
            {"ti": MagicMock(task=SimpleNamespace(task_id="other"))},
        ],
    )
    def test_the_context_of_a_unit_test_is_accepted(self, context: Any) -> None:
        assert deferred_by(operator(durable=False), context)

    def test_copies_of_a_task_are_the_same_task(self) -> None:
        task = operator(durable=False)
        for running in (task, copy.copy(task), task.prepare_for_execution()):
            assert deferred_by(task, within(running))


@pytest.mark.parametrize(("configured", "is_deferrable"), [(None, True), ("True", True), ("False", False)])
def test_the_configuration_decides_unless_the_task_does(
    configured: str | None, is_deferrable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if configured is not None:
        monkeypatch.setenv("AIRFLOW__AIXPLAIN__DEFERRABLE", configured)
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "False" if is_deferrable else "True")

    def tasks(**arguments: Any) -> list[Any]:
        batch = {"model_id": "echo", "result_path": "file:///no", **arguments}
        return [
            operator(**arguments),
            operator(AGENT, **arguments),
            AixplainModelRunSensor(task_id="wait", poll_url="http://127.0.0.1/none", **arguments),
            AixplainBatchRunOperator(task_id="batch", input=["a"], **batch),
            AixplainDecoratedOperator(task_id="made", model_id="echo", python_callable=lambda: "a", **arguments),
            AGENT.decorated(task_id="made", agent_id="a", python_callable=lambda: "a", **arguments),
            AixplainBatchDecoratedOperator(task_id="made", python_callable=lambda: ["a"], **batch),
        ]

    assert [task.deferrable for task in tasks()] == [is_deferrable] * 7
    assert [task.deferrable for task in tasks(deferrable=None)] == [is_deferrable] * 7
    assert [task.deferrable for task in tasks(deferrable=True)] == [True] * 7
    assert [task.deferrable for task in tasks(deferrable=False)] == [False] * 7


@pytest.mark.skipif(not AIRFLOW_3, reason="below Airflow 3.3 there is no task state store")
def test_a_run_takes_three_requests_for_its_record(kind: Kind) -> None:
    """The intent, the poll URL, and the delivery with the cost. What a trigger's event carries is not read again."""

    class Counting(Store):
        requests: ClassVar[list[str]] = []

        def get(self, key: str, default: Any = None) -> Any:
            self.requests.append("get")
            return super().get(key, default)

        def set(self, key: str, value: Any) -> None:
            self.requests.append("set")
            super().set(key, value)

    pushed: dict[str, Any] = {}
    instance = SimpleNamespace(
        max_tries=0,
        try_number=1,
        _ti_context_from_server=SimpleNamespace(xcom_keys_to_clear=[]),
        xcom_push=lambda key, value: pushed.__setitem__(key, value),
    )
    context: Any = {"task_state_store": Counting(), "ti": instance}
    arguments = {**kind.echo("counted", delay=0.1), "deferrable": True}
    with pytest.raises(TaskDeferred) as deferred:
        operator(kind, **arguments).execute(context)
    stored = json.loads(json.dumps(deferred.value.kwargs))
    event = event_of(deferred.value.trigger)
    result = operator(kind, **arguments).resume_execution("resume_from_trigger", {"event": event, **stored}, context)
    assert Counting.requests == ["set"] * 3
    stored = context["task_state_store"]["aixplain_submission"]
    assert stored["is_delivered"] is True
    assert pushed.pop("aixplain_usage") == stored["usage"]
    assert pushed == fields_with_values(result)
    assert "error_code" in result
    assert "error_code" not in pushed


class TestUsage:
    """The usage record of the task instance adds up all its tries."""

    def test_all_tries_are_added_up(self, kind: Kind, emulator: Emulator) -> None:
        before = len(emulator.runs())
        tries = Tries(kind, **kind.fail(delay=0.1))
        for _ in range(2):
            with pytest.raises(AixplainRunFailed):
                tries.run()
        tries.run(**kind.echo("in the end", delay=0.1))
        costs = [Decimal(str(run["used_credits"])) for run in emulator.runs()[before:]]
        assert tries.usage["runs"] == {"failed": 2, "success": 1}
        assert Decimal(tries.usage["credits"]) == sum(costs) > 0

    def test_a_failed_run_leaves_its_cost_in_xcoms(self, kind: Kind, emulator: Emulator) -> None:
        tries = Tries(kind, **kind.fail(delay=0.1))
        with pytest.raises(AixplainRunFailed):
            tries.run()
        assert tries.pushed["used_credits"] == emulator.runs()[-1]["used_credits"] > 0
        assert emulator.runs()[-1]["id"] in tries.pushed["url"]
        assert {"run_time", "aixplain_usage", f"{kind.name}_id"} <= set(tries.pushed)

    def test_a_resumed_run_counts_once(self, kind: Kind, emulator: Emulator) -> None:
        tries = Tries(kind, **kind.echo("a late end", delay=1.0))
        with pytest.raises(AixplainRunTimeout):
            tries.run(timeout=0)
        assert tries.usage["runs"] == {"timeout": 1}
        tries.run()
        assert tries.usage["runs"] == {"success": 1}
        assert Decimal(tries.usage["credits"]) == Decimal(str(emulator.runs()[-1]["used_credits"]))

    def test_a_run_that_timed_out_is_counted_once_its_cost_is_known(self, emulator: Emulator) -> None:
        tries = Tries(model_id="echo", data="late", parameters={"delay": 0.5})
        with pytest.raises(AixplainRunTimeout):
            tries.run(timeout=0)
        time.sleep(0.6)
        tries.run(data="other input")
        costs = [Decimal(str(run["used_credits"])) for run in emulator.runs()[-2:]]
        assert tries.usage["runs"] == {"success": 2}
        assert Decimal(tries.usage["credits"]) == sum(costs)

    def test_the_run_of_a_stopped_try_is_counted_by_the_next(self, emulator: Emulator) -> None:
        """A trigger has finished the task, or a worker died, before the store had the cost."""
        tries = Tries(model_id="echo", data="stopped", parameters={"delay": 0})
        tries.run()
        del tries.store["aixplain_submission"]["usage"]
        tries.max_tries += 1  # the task is cleared
        tries.run()
        costs = [Decimal(str(run["used_credits"])) for run in emulator.runs()[-2:]]
        assert tries.usage["runs"] == {"success": 2}
        assert Decimal(tries.usage["credits"]) == sum(costs)

    @pytest.mark.skipif(AIRFLOW_3, reason="on Airflow 3.3 the argument is accepted")
    def test_max_credits_is_refused_below_airflow_3_3(self) -> None:
        with pytest.raises(AixplainInputError, match=r"max_credits needs Airflow 3\.3"):
            operator(max_credits=1)

    @pytest.mark.skipif(not AIRFLOW_3, reason="below Airflow 3.3 the argument is refused")
    def test_max_credits_limits_the_cost_of_a_task(self, kind: Kind, emulator: Emulator) -> None:
        before = len(emulator.runs())
        tries = Tries(kind, **kind.fail(delay=0.1), max_credits=1e-6)
        with pytest.raises(AixplainRunFailed):
            tries.run()
        cost = tries.usage["credits"]
        with pytest.raises(AixplainPermanentError, match=rf"max_credits is 1e-06, .* have cost {cost} credits"):
            tries.run()
        assert len(emulator.runs()) == before + 1
        with pytest.raises(AixplainRunFailed):
            tries.run(max_credits=1)
        assert len(emulator.runs()) == before + 2

    @pytest.mark.parametrize("max_credits", [0, -1, True, "1", float("inf")])
    def test_an_invalid_max_credits_is_refused(self, max_credits: Any) -> None:
        with pytest.raises(AixplainInputError, match="max_credits is"):
            operator(max_credits=max_credits)

    def test_a_call_within_a_task_keeps_the_record_of_that_task(self) -> None:
        """A failed call deletes no submission of the outer task, and the outer task adds to the cost of its calls."""
        outer = operator(task_id="outer", deferrable=False, parameters={"delay": 0})
        store = Store()
        context = within(outer, task_state_store=store)
        context["ti"].max_tries, context["ti"].xcom_push = 0, Mock()
        context["ti"]._ti_context_from_server = SimpleNamespace(xcom_keys_to_clear=[])
        record = outer._open_store(context)
        record.write_intent(Submission("fingerprint", "2026-11-26T00:00:00Z"))
        with pytest.raises(AixplainRunFailed):
            operator(model_id="fail", deferrable=False, wait_time=0.2, parameters={"delay": 0}).execute(context)
        assert store["aixplain_submission"]["fingerprint"] == "fingerprint"
        assert store["aixplain_submission"]["usage"]["runs"] == {"failed": 1}
        outer.execute(context)
        assert store["aixplain_submission"]["usage"]["runs"] == {"failed": 1, "orphaned": 1, "success": 1}

    @pytest.mark.skipif(not AIRFLOW_3, reason="below Airflow 3.3 the argument is refused anyway")
    @pytest.mark.parametrize("setting", ["durable", "wait_for_completion"])
    def test_max_credits_on_unknown_costs_is_refused(self, setting: str) -> None:
        with pytest.raises(AixplainInputError, match="max_credits needs durable=True and wait_for_completion=True"):
            operator(max_credits=1, **{setting: False})

    def test_errors_of_the_store_lose_no_result(self, caplog: pytest.LogCaptureFixture) -> None:
        class Broken(Store):
            def set(self, key: str, value: Any) -> None:
                if "usage" in value:
                    raise OSError("no store")
                super().set(key, value)

        tries = Tries(model_id="echo", data="broken", parameters={"delay": 0})
        tries.store = Broken()
        assert tries.run()["data"] == "broken"
        assert "no store" in caplog.text
