"""The operator: what it sends, when it defers, how it ends."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import pendulum
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, ObjectStoragePath, TaskDeferred

from airflow_provider_aixplain.exceptions import (
    AixplainConfigurationError,
    AixplainError,
    AixplainInputError,
    AixplainPermanentError,
    AixplainRunFailed,
    AixplainRunTimeout,
)
from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator
from airflow_provider_aixplain.triggers.aixplain import AixplainModelRunTrigger
from tests.airflow.deployment import Emulator
from tests.public_api import RESPONSE_FIELDS
from tests.unit.transport.scripted import serve

pytestmark = pytest.mark.usefixtures("connection")
TEXT = "The coffee is wonderful."
CONTEXT: Any = {}


def operator(**arguments: Any) -> AixplainRunModelOperator:
    return AixplainRunModelOperator(**{"task_id": "analyse", "model_id": "sentiment", "data": TEXT, **arguments})


def test_it_defers_to_a_trigger_that_knows_neither_key_nor_input(emulator: Emulator) -> None:
    before = pendulum.now("UTC")
    with pytest.raises(TaskDeferred) as deferred:
        operator(wait_time=2, timeout=timedelta(hours=1)).execute(CONTEXT)
    assert deferred.value.method_name == "execute_complete"
    trigger = deferred.value.trigger
    assert isinstance(trigger, AixplainModelRunTrigger)
    _, stored = trigger.serialize()
    assert set(stored) == {"poll_url", "aixplain_conn_id", "wait_time", "timeout", "submitted_at"}
    assert stored["poll_url"].startswith(emulator.url)
    assert (stored["aixplain_conn_id"], stored["wait_time"], stored["timeout"]) == ("aixplain_default", 2, 3600)
    assert before <= pendulum.parse(stored["submitted_at"]) <= pendulum.now("UTC")  # type: ignore[operator]
    assert emulator.runs()[-1]["payload"] == {"data": TEXT}


def test_it_can_wait_on_the_worker() -> None:
    response = operator(deferrable=False, wait_time=0.2).execute(CONTEXT)
    assert set(response) == RESPONSE_FIELDS
    assert (response["status"], response["data"]) == ("SUCCESS", "positive")
    json.dumps(response)


def test_it_can_go_without_waiting(emulator: Emulator) -> None:
    response = operator(wait_for_completion=False).execute(CONTEXT)
    assert set(response) == RESPONSE_FIELDS
    assert (response["status"], response["completed"]) == ("IN_PROGRESS", False)
    assert response["url"].startswith(emulator.url)


def test_an_answer_that_is_final_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(http: Any) -> None:
        http.answer(200, json.dumps({"status": status, "data": "hi", "error_message": message}).encode())

    with serve(answer) as server:
        monkeypatch.setenv("AIRFLOW_CONN_AT_ONCE", json.dumps({"host": server.url, "password": "key"}))
        status, message = "SUCCESS", ""
        assert operator(aixplain_conn_id="at_once").execute(CONTEXT)["data"] == "hi"
        status, message = "FAILED", "the platform's words"
        with pytest.raises(AixplainRunFailed, match=r"Model sentiment: .*the platform's words"):
            operator(aixplain_conn_id="at_once").execute(CONTEXT)


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
    assert isinstance(raised.value, AirflowFailException), "retrying cannot mend it"
    assert len(emulator.runs()) == before


def test_a_connection_that_does_not_exist_is_named() -> None:
    with pytest.raises(AixplainConfigurationError, match="'nowhere' does not exist: create one of type aixplain"):
        operator(aixplain_conn_id="nowhere").execute(CONTEXT)


def test_a_refusal_ends_the_task_for_good() -> None:
    with pytest.raises(AixplainPermanentError, match=r"Model nope: .*HTTP 404 \(resource\): no model nope") as raised:
        operator(model_id="nope").execute(CONTEXT)
    assert (raised.value.status_code, raised.value.category, raised.value.retryable) == (404, "resource", False)


@pytest.mark.parametrize(
    ("status_code", "retryable"), [(402, False), (429, True), (489, True), (503, True), (505, None)]
)
def test_trouble_is_retried_as_the_task_says(
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
def test_an_event_that_brings_no_result(status: str, error: type[AixplainError], fails_for_good: bool) -> None:
    event = {"status": status, "message": "the platform's words", "response": None, "poll_url": "https://h/run"}
    with pytest.raises(error, match=r"Model sentiment: .*the platform's words \(poll URL: https://h/run\)") as raised:
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

    def test_the_whole_is_returned(self, emulator: Emulator) -> None:
        text = "First line.\n" + "a long line of many words " * 20
        response = operator(model_id="echo", data={"data": text}, stream=True).execute(CONTEXT)
        assert set(response) == RESPONSE_FIELDS
        assert (response["status"], response["completed"], response["data"]) == ("SUCCESS", True, text)
        assert response["usage"]["total_tokens"] > 0
        assert emulator.runs()[-1]["payload"] == {"data": text, "options": {"stream": True}}
        json.dumps(response)

    def test_a_stream_that_fails(self) -> None:
        with pytest.raises(AixplainRunFailed, match="Model fail: the run failed: this model always fails"):
            operator(model_id="fail", stream=True, parameters={"delay": 0}).execute(CONTEXT)

    def test_a_model_that_cannot_stream(self, emulator: Emulator) -> None:
        before = len(emulator.runs())
        with pytest.raises(AirflowFailException, match="'sentiment' does not support streaming"):
            operator(stream=True).execute(CONTEXT)
        assert len(emulator.runs()) == before

    def test_one_that_is_cut_or_too_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
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
            with pytest.raises(AixplainRunTimeout, match="its stream was not over after 0 s"):
                operator(aixplain_conn_id="streaming", stream=True, timeout=0).execute(CONTEXT)

    def test_a_platform_that_turns_it_asynchronous(self, monkeypatch: pytest.MonkeyPatch) -> None:
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
        assert deferred.value.trigger.poll_url == f"{server.url}/run"

    def test_it_waits_for_the_end(self) -> None:
        with pytest.raises(AixplainInputError, match="stream and wait_for_completion=False: choose one"):
            operator(stream=True, wait_for_completion=False)


def test_a_file_is_uploaded_before_the_run(tmp_path: Path, emulator: Emulator) -> None:
    path = tmp_path / "review.txt"
    path.write_text("What a terrible disappointment")
    file = ObjectStoragePath(f"file://{tmp_path}/{{{{ name }}}}.txt")
    run = operator(data={"text": file}, deferrable=False)
    run.render_template_fields({"name": "review"})  # type: ignore[typeddict-item]
    assert run.execute(CONTEXT)["data"] == "negative"
    assert emulator.runs()[-1]["payload"]["text"].startswith("s3://")
