"""The hook against the emulator."""

from __future__ import annotations

import asyncio
import json
import pickle
import secrets
import time

import pytest
from airflow.providers.common.compat.sdk import redact
from pytest_mock import MockerFixture

from airflow_provider_aixplain.client.account import Platform
from airflow_provider_aixplain.client.blocking import Client
from airflow_provider_aixplain.exceptions import (
    AixplainConfigurationError,
    AixplainInputError,
    AixplainPermanentError,
    AixplainUntrustedUrl,
)
from airflow_provider_aixplain.hooks.aixplain import AixplainHook
from airflow_provider_aixplain.protocol.failure import ErrorCategory
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus
from airflow_provider_aixplain.protocol.wait import Wait
from tests.support.deployment import Emulator
from tests.support.scripted import Handler, serve

pytestmark = pytest.mark.usefixtures("connection")
TEXT = "The coffee is wonderful."


def test_a_run_from_submission_to_result(emulator: Emulator) -> None:
    hook = AixplainHook()
    submitted = hook.run_async("sentiment", TEXT, parameters={"delay": 0.2})
    assert submitted == ModelResponse(ResponseStatus.IN_PROGRESS, url=submitted.url)
    assert str(submitted.url).startswith(f"{emulator.url}/api/v1/data/")
    assert hook.poll(str(submitted.url)).status is ResponseStatus.IN_PROGRESS
    response = hook.sync_poll(str(submitted.url))
    assert (response.status, response.data, response.completed) == (ResponseStatus.SUCCESS, "positive", True)
    assert response.used_credits > 0
    assert response.run_time == 0.2
    (run,) = [run for run in emulator.runs() if run["id"] == response.additional_fields["requestId"]]
    assert run["payload"] == {"data": TEXT, "delay": 0.2}


def test_an_agent_runs_and_continues_its_session(emulator: Emulator) -> None:
    hook = AixplainHook()
    submitted = hook.run_agent_async("echo-agent", TEXT, variables={"delay": 0.2})
    ids = submitted.additional_fields
    assert submitted == ModelResponse(ResponseStatus.IN_PROGRESS, url=submitted.url, additional_fields=ids)
    assert str(submitted.url) == f"{emulator.url}/sdk/agents/{ids['requestId']}/result"
    response = hook.sync_poll(str(submitted.url))
    assert (response.status, response.data["output"], response.completed) == (ResponseStatus.SUCCESS, TEXT, True)
    assert (response.run_time, response.used_credits) == (0.2, response.data["executionStats"]["credits"])
    again = hook.run_agent(
        "echo-agent", {"input": "b"}, wait_time=0.2, session_id=ids["sessionId"], variables={"delay": 0.1}
    )
    assert (again["data"]["output"], again["sessionId"]) == ("b", ids["sessionId"])
    assert emulator.runs()[-1]["payload"]["query"] == {"input": "b", "delay": 0.1}


def test_a_failed_late_or_invalid_agent_run_is_reported() -> None:
    hook = AixplainHook()
    failed = hook.run_agent("echo-agent", TEXT, variables={"delay": 0.1, "outcome": "aborted"})
    assert (failed.status, failed.completed, failed.error_code) == (ResponseStatus.FAILED, True, "EMULATED_FAILURE")
    refused = hook.run_agent("nobodys", TEXT)
    assert refused.failure is not None
    assert refused.failure.status_code == 404
    late = hook.run_agent("echo-agent", TEXT, timeout=0.3, wait_time=0.2, variables={"delay": 60})
    assert (late.status, late.completed) == (ResponseStatus.FAILED, False)
    assert "/sdk/agents/" in str(late.url)
    for arguments in ({"query": ""}, {"query": "a", "budget": {"max_cost": -1}}, {"query": "a", "timeout": -1}):
        with pytest.raises(AixplainInputError, match=f"{list(arguments)[-1]}.* is "):
            hook.run_agent("echo-agent", **arguments)


def test_a_run_can_be_awaited_in_an_event_loop() -> None:
    async def run() -> ModelResponse | None:
        hook = AixplainHook()
        submitted = await hook.arun_async("language", "Das Wetter ist heute wirklich schön.")
        assert (await hook.apoll(str(submitted.url))).status is ResponseStatus.IN_PROGRESS
        return (await hook.await_run(str(submitted.url), Wait(wait_time=0.2, timeout=10))).response

    response = asyncio.run(run())
    assert response is not None
    assert (response.status, response.data) == (ResponseStatus.SUCCESS, "de")


def test_a_failed_run_has_its_reason() -> None:
    hook = AixplainHook()
    response = hook.sync_poll(str(hook.run_async("fail", TEXT).url))
    assert (response.status, response.completed) == (ResponseStatus.FAILED, True)
    assert response.error_message == "this model always fails"
    assert response.error_code == "EMULATED_FAILURE"


def test_sync_poll_stops_after_its_timeout() -> None:
    hook = AixplainHook()
    url = str(hook.run_async("echo", TEXT, parameters={"delay": 60}).url)
    response = hook.sync_poll(url, timeout=0.5)
    assert (response.status, response.completed, response.url) == (ResponseStatus.FAILED, False, url)
    assert "0.5 s" in response.error_message


def test_a_refused_submission_is_a_failed_response() -> None:
    response = AixplainHook().run_async("no-such-model", TEXT)
    assert response.status is ResponseStatus.FAILED
    assert response.failure is not None
    assert (response.failure.status_code, response.failure.category) == (404, ErrorCategory.RESOURCE)
    assert "no model no-such-model" in response.error_message


def test_a_wait_continues_with_a_rotated_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(key: str) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_ROTATED", json.dumps({"host": server.url, "password": key}))

    def answer(http: Handler) -> None:
        if http.headers["x-api-key"] == "new":
            http.answer(200, b'{"completed": true, "data": "hi"}')
        else:
            connect("new")
            http.answer(401)

    with serve(answer) as server:
        for ways in (
            lambda: AixplainHook("rotated").sync_poll(f"{server.url}/run", wait_time=0.2, timeout=10),
            lambda: asyncio.run(AixplainHook("rotated").await_run(f"{server.url}/run", Wait(0.2, timeout=10))).response,
        ):
            connect("old")
            response = ways()
            assert response is not None
            assert response.data == "hi"


def test_a_wait_uses_one_connection_for_each_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(http: Handler) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_ROTATED", json.dumps({"host": server.url, "password": "new"}))
        if http.headers["x-api-key"] == "old":
            http.answer(401)
        else:
            http.answer(200, b'{"completed": true}' if len(server.asked) == 6 else b'{"completed": false}')

    with serve(answer) as server:
        monkeypatch.setenv("AIRFLOW_CONN_ROTATED", json.dumps({"host": server.url, "password": "old"}))
        asyncio.run(AixplainHook("rotated").await_run(f"{server.url}/run", Wait(0.2, timeout=10)))
    assert [asked.headers["x-api-key"] for asked in server.asked] == ["old"] + 5 * ["new"]
    assert len({asked.client_port for asked in server.asked}) == 2


def test_a_half_edited_connection_does_not_end_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The platform refuses twice, while the Connection has no key."""

    def answer(http: Handler) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_ROTATED", json.dumps({"host": server.url}))
        http.answer(401 if len(server.asked) < 3 else 200, b'{"completed": true, "data": "hi"}')

    with serve(answer) as server:
        monkeypatch.setenv("AIRFLOW_CONN_ROTATED", json.dumps({"host": server.url, "password": "key"}))
        outcome = asyncio.run(AixplainHook("rotated").await_run(f"{server.url}/run", Wait(0.2, timeout=10)))
    assert outcome.status == "success"


def test_a_pickled_hook_works_and_has_no_key(connection: dict[str, object]) -> None:
    hook = AixplainHook()
    hook.run_async("echo", TEXT)
    copied = pickle.dumps(hook)
    assert str(connection["password"]).encode() not in copied
    assert pickle.loads(copied).run_async("echo", TEXT).status is ResponseStatus.IN_PROGRESS


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_names_its_connection(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(lambda http: http.answer(status, b'{"error": "%s"}' % (b"long words " * 1000))) as server:
        monkeypatch.setenv("AIRFLOW_CONN_REFUSED", json.dumps({"host": server.url, "password": "key"}))
        hook, url = AixplainHook("refused"), f"{server.url}/run"
        messages = [
            hook.run_async("echo", TEXT).error_message,
            hook.poll(url).error_message,
            asyncio.run(hook.arun_async("echo", TEXT)).error_message,
            asyncio.run(hook.apoll(url)).error_message,
            hook.wait_for_run(url, Wait(0, 10)).message,
            asyncio.run(hook.await_run(url, Wait(0, 10))).message,
        ]
        with pytest.raises(AixplainPermanentError) as raised:
            hook.get_model("echo")
        for message in [*messages, str(raised.value)]:
            assert f"HTTP {status} (" in message
            assert "the key of Connection 'refused' (to test it: airflow connections test refused)" in message


def test_invalid_input_is_not_sent(emulator: Emulator) -> None:
    before = len(emulator.runs())
    hook = AixplainHook()
    for model_id, data in (("", TEXT), ("sentiment", object()), (None, TEXT)):
        with pytest.raises(AixplainInputError):
            hook.run_async(model_id, data)  # type: ignore[arg-type]
        with pytest.raises(AixplainInputError):
            asyncio.run(AixplainHook().arun_async(model_id, data))  # type: ignore[arg-type]
    assert len(emulator.runs()) == before


def test_an_untrusted_poll_url_is_not_requested() -> None:
    with pytest.raises(AixplainUntrustedUrl):
        AixplainHook().poll("https://evil.example/api/v1/data/7e1b")
    with pytest.raises(AixplainUntrustedUrl):
        asyncio.run(AixplainHook().apoll("https://evil.example/api/v1/data/7e1b"))


def test_an_invalid_connection_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_NO_KEY", json.dumps({"conn_type": "aixplain"}))
    with pytest.raises(AixplainConfigurationError, match="'no_key': password is empty"):
        AixplainHook("no_key").run_async("sentiment", TEXT)


def test_get_conn_carries_the_key(emulator: Emulator) -> None:
    with AixplainHook().get_conn() as session:
        assert session.get(f"{emulator.url}/api/v1/data/none", timeout=10).status_code == 404


def test_calls_share_a_connection(emulator: Emulator) -> None:
    with serve(lambda http: http.answer(200, b'{"completed": true}')) as server:
        client = Client(Platform("key", backend_url=server.url))
        for _ in range(3):
            client.poll(f"{server.url}/run")
    assert len({asked.client_port for asked in server.asked}) == 1


def test_a_blocking_wait_follows_the_jittered_schedule(mocker: MockerFixture) -> None:
    sleep = mocker.patch("airflow_provider_aixplain.client.blocking.time.sleep")
    mocker.patch("airflow_provider_aixplain.client.blocking.random.random", side_effect=[0, 1])

    def answer(http: Handler) -> None:
        http.answer(200, b'{"completed": %s}' % (b"true" if len(server.asked) == 3 else b"false"))

    with serve(answer) as server:
        Client(Platform("key", backend_url=server.url)).sync_poll(f"{server.url}/run", wait_time=10)
    first, second = (call.args[0] for call in sleep.call_args_list)
    assert first == pytest.approx(8, abs=0.5)
    assert second == pytest.approx(12, abs=0.5)


def test_a_hook_can_be_pickled_after_logging() -> None:
    hook = AixplainHook()
    hook.log.info("now the logger is bound")
    assert pickle.loads(pickle.dumps(hook)).aixplain_conn_id == hook.aixplain_conn_id


def test_the_connections_timeout_bounds_each_poll_of_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(http: Handler) -> None:
        if len(server.asked) == 1:
            time.sleep(2)
        http.answer(200, b'{"completed": true}')

    for way in (
        lambda hook, wait: hook.wait_for_run(f"{server.url}/run", wait),
        lambda hook, wait: asyncio.run(hook.await_run(f"{server.url}/run", wait)),
    ):
        with serve(answer) as server:
            fields = {"host": server.url, "password": "key", "extra": {"timeout": 0.3}}
            monkeypatch.setenv("AIRFLOW_CONN_IMPATIENT", json.dumps(fields))
            wait = Wait(0.2, timeout=60)
            assert way(AixplainHook("impatient"), wait).status == "success"
            assert wait.polls == 2, "the first poll waited for its answer for longer than the Connection says"


def test_airflows_masking_knows_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for read in (lambda hook: hook.platform, lambda hook: asyncio.run(hook.aplatform())):
        key = secrets.token_hex(16)
        monkeypatch.setenv("AIRFLOW_CONN_MASKED", json.dumps({"conn_type": "aixplain", "password": key}))
        assert redact(key) == key
        read(AixplainHook("masked"))
        assert redact(f"it is {key}") == "it is ***"


class TestConnectionTest:
    """A test of the Connection starts no run, and reports the problem."""

    def run_test(self, monkeypatch: pytest.MonkeyPatch, **fields: object) -> tuple[bool, str]:
        monkeypatch.setenv("AIRFLOW_CONN_TESTED", json.dumps({"conn_type": "aixplain", **fields}))
        return AixplainHook("tested").test_connection()

    def test_a_valid_connection_works(self, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
        before = len(emulator.runs())
        assert self.run_test(monkeypatch, host=emulator.url, password="key") == (
            True,
            f"The key is accepted: {emulator.url}",
        )
        assert len(emulator.runs()) == before

    @pytest.mark.parametrize("path", ["/sdk/", "/api/"])
    def test_a_wrong_key_is_reported(self, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def answer(http: Handler) -> None:
            http.answer(401 if http.path.startswith(path) else 404, b"{}")

        with serve(answer) as server:
            works, problem = self.run_test(monkeypatch, host=server.url, password="not-the-right-key")
        assert not works
        assert "The key is refused (HTTP 401). Check the API key" in problem
        assert "not-the-right-key" not in problem

    def test_a_wrong_url_is_reported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with serve(lambda http: http.answer(404, b"<html>nothing here</html>")) as server:
            works, problem = self.run_test(monkeypatch, host=server.url, password="key")
        assert (works, problem) == (False, f"This is not the platform (HTTP 404). Check host: {server.url}")

    def test_an_unreachable_host_is_reported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        works, problem = self.run_test(monkeypatch, host="https://nowhere.invalid", password="key")
        assert not works
        assert problem.startswith("No response (")
        assert problem.endswith(". Check host, proxy, verify and the network: https://nowhere.invalid")

    def test_an_unreachable_execution_url_is_reported(
        self, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        extra = {"models_run_url": "https://nowhere.invalid/api/v1/execute"}
        works, problem = self.run_test(monkeypatch, host=emulator.url, password="key", extra=extra)
        assert not works
        assert ". Check models_run_url, proxy" in problem

    def test_an_invalid_connection_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.run_test(monkeypatch, password="") == (
            False,
            "Connection 'tested': password is empty; put the API key there.",
        )
