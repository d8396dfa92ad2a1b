"""The emulator speaks the wire protocol."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from airflow_provider_aixplain.emulator.server import create_app, is_own_host
from tests.support.deployment import Emulator, Processes, wait_until

KEY = {"x-api-key": "any"}


def submit(
    emulator: Emulator, model_id: str, body: str, headers: dict[str, str] = KEY, version: int = 1
) -> requests.Response:
    url = f"{emulator.url}/api/v{version}/execute/{model_id}"
    return requests.post(url, data=body.encode(), headers=headers, timeout=10)


def result(emulator: Emulator, model_id: str, body: str) -> dict[str, object]:
    url = submit(emulator, model_id, body).json()["data"]

    def over() -> dict[str, object] | None:
        answer: dict[str, object] = requests.get(url, headers=KEY, timeout=10).json()
        return answer if answer["completed"] else None

    answer: dict[str, object] = wait_until(over, "the run", 20, every=0.05)
    return answer


@pytest.mark.parametrize(
    ("model_id", "body", "data"),
    [
        ("sentiment", '{"data": "I love this wonderful lamp"}', "positive"),
        ("sentiment", '{"data": "This is a terrible disappointment"}', "negative"),
        ("sentiment", '{"data": "The manual has forty pages"}', "neutral"),
        ("language", '{"data": "Questo libro mi ha tenuto sveglio fino alle tre di notte"}', "it"),
        ("language", '{"text": "This book kept me awake until three in the morning"}', "en"),
        ("echo", '{"data": [1, {"a": null}], "delay": 0}', [1, {"a": None}]),
        ("echo", '{"other": 1, "delay": 0}', {"other": 1, "delay": 0}),
    ],
)
def test_models_compute_results(emulator: Emulator, model_id: str, body: str, data: object) -> None:
    answer = result(emulator, model_id, body)
    assert (answer["status"], answer["data"]) == ("SUCCESS", data)
    assert set(answer) == {
        "completed",
        "status",
        "data",
        "details",
        "usedCredits",
        "runTime",
        "usage",
        "asset",
        "requestId",
    }


@pytest.mark.parametrize(
    ("model_id", "body", "message"),
    [("fail", "{}", "this model always fails"), ("sentiment", '{"data": 5}', "this model needs a string as data")],
)
def test_a_failing_model_fails_the_run(emulator: Emulator, model_id: str, body: str, message: str) -> None:
    answer = result(emulator, model_id, body)
    assert (answer["status"], answer["error_message"]) == ("FAILED", message)


TOKEN = {"Authorization": "Token any"}


@pytest.mark.parametrize(
    ("method", "path", "wrong"),
    [
        ("POST", "/api/v1/execute/echo", TOKEN),
        ("POST", "/api/v2/execute/echo", TOKEN),
        ("GET", "/api/v1/data/x", TOKEN),
        ("GET", "/sdk/finetune/tuned/ml-logs", TOKEN),
        ("POST", "/v2/agents/echo-agent/run", TOKEN),
        ("POST", "/sdk/agents/echo-agent/run", TOKEN),
        ("GET", "/v2/agents/echo-agent", TOKEN),
        ("GET", "/sdk/agents/x/result", TOKEN),
        ("GET", "/sdk/models/echo", KEY),
        ("GET", "/sdk/models/by-name/Echo", KEY),
        ("DELETE", "/sdk/models/tuned", KEY),
        ("POST", "/sdk/file/upload/temp-url", KEY),
    ],
)
def test_a_missing_or_misplaced_key_is_401(emulator: Emulator, method: str, path: str, wrong: dict[str, str]) -> None:
    for headers in ({}, wrong, {"Authorization": "any"}):
        answer = requests.request(method, f"{emulator.url}{path}", headers=headers, timeout=10)
        assert (answer.status_code, answer.json()) == (401, {"error": "no valid API key in the request"})


def test_a_personal_key_is_accepted(emulator: Emulator) -> None:
    assert submit(emulator, "echo", "{}", {"x-aixplain-key": "any"}).status_code == 201


def test_an_unknown_run_is_404_and_ids_cannot_be_guessed(emulator: Emulator) -> None:
    assert requests.get(f"{emulator.url}/api/v1/data/1", headers=KEY, timeout=10).status_code == 404
    ids = {submit(emulator, "echo", "{}").json()["data"].rpartition("/")[2] for _ in range(20)}
    assert len(ids) == 20
    assert min(len(run_id) for run_id in ids) >= 32


@pytest.mark.parametrize(
    ("model_id", "body", "status"),
    [("nope", "{}", 404), ("echo", "no json", 400), ("echo", "[]", 400), ("echo", '{"delay": -1}', 400)],
)
def test_invalid_submissions_are_refused(emulator: Emulator, model_id: str, body: str, status: int) -> None:
    for version in (1, 2):
        answer = submit(emulator, model_id, body, version=version)
        assert answer.status_code == status
        assert answer.json()["error"]


def test_version_2_answers_short_runs_at_once(emulator: Emulator) -> None:
    answer = submit(emulator, "echo", '{"data": "hi", "delay": 0.1}', version=2)
    assert (answer.status_code, answer.json()["status"], answer.json()["data"]) == (200, "SUCCESS", "hi")
    answer = submit(emulator, "echo", '{"data": "hi", "delay": 1.1}', version=2)
    assert (answer.status_code, answer.json()["status"]) == (201, "IN_PROGRESS")


def test_a_stream_is_server_sent_events(emulator: Emulator) -> None:
    body = '{"data": "two  words", "delay": 0, "options": {"stream": true}}'
    answer = submit(emulator, "echo", body, version=2)
    assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    *chunks, last, done, rest = answer.text.split("\n\n")
    assert chunks == ['data: {"data": "two  "}', 'data: {"data": "words"}']
    assert '"status": "SUCCESS"' in last
    assert (done, rest) == ("data: [DONE]", "")
    failed = submit(emulator, "fail", '{"delay": 0, "options": {"stream": true}}', version=2)
    assert failed.text == 'data: {"error": "this model always fails"}\n\n'
    whole = submit(emulator, "sentiment", '{"data": "good", "delay": 0, "options": {"stream": true}}', version=2)
    assert whole.json()["data"] == "positive"


def test_a_file_is_uploaded_only_to_an_issued_url(emulator: Emulator) -> None:
    offer = requests.post(
        f"{emulator.url}/sdk/file/upload/temp-url", headers=TOKEN, data={"originalName": "../../a.txt"}, timeout=10
    ).json()
    assert offer["key"].endswith("/a.txt")
    assert requests.put(offer["uploadUrl"], data=b"I love it", timeout=10).status_code == 200
    assert requests.put(f"{emulator.url}/emulator/store/x/a.txt", data=b"", timeout=10).status_code == 403
    link = f"s3://any-bucket/{offer['key']}"
    assert result(emulator, "sentiment", f'{{"data": "{link}", "delay": 0}}')["data"] == "positive"


def test_a_run_finishes_after_its_delay(emulator: Emulator) -> None:
    result(emulator, "echo", '{"data": "timed", "delay": 0.3}')
    run = next(run for run in emulator.runs() if run["payload"].get("data") == "timed")
    assert run["polled_at"][-1] >= run["finishes_at"] == pytest.approx(run["submitted_at"] + 0.3)


def test_it_prints_its_page_and_the_connection() -> None:
    options = ["--port", "0", "--allowed-host", "one", "--allowed-host", "emulator"]
    command = [sys.executable, "-m", "airflow_provider_aixplain.emulator", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        line = process.stdout.readline()
        page = requests.get(url, headers={"Host": "emulator"}, timeout=30)
        process.terminate()
    assert page.status_code == 200
    assert "<title>aiXplain emulator</title>" in page.text
    assert line.startswith("export AIRFLOW_CONN_AIXPLAIN_DEFAULT='{")
    assert f'"host": "{url}"' in line


def test_runs_survive_a_kill_of_the_emulator(tmp_path: Path) -> None:
    with Processes(tmp_path / "emulator") as processes:
        emulator = Emulator(processes, seconds=0.2)
        url = submit(emulator, "echo", '{"data": "still there"}').json()["data"]
        before = emulator.runs()
        processes.kill("emulator")
        emulator.start()
        assert [run["submitted_at"] for run in emulator.runs()] == [run["submitted_at"] for run in before]
        wait_until(lambda: requests.get(url, headers=KEY, timeout=10).json().get("data") == "still there", "the run")


@pytest.mark.parametrize(
    ("host", "listens_on", "is_own"),
    [
        ("localhost", "127.0.0.1", True),
        ("LOCALHOST:8088", "127.0.0.1", True),
        ("127.0.0.1:8088", "127.0.0.1", True),
        ("127.9.9.9", "127.0.0.1", True),
        ("[::1]:8088", "127.0.0.1", True),
        ("emulator:8088", "emulator", True),
        ("192.168.1.5:8088", "192.168.1.5", True),
        ("192.168.1.5:8088", "0.0.0.0", True),
        ("[fe80::1]:8088", "::", True),
        ("evil.example:8088", "127.0.0.1", False),
        ("evil.example", "0.0.0.0", False),
        ("localhost.evil.example", "127.0.0.1", False),
        ("127.0.0.1.evil.example", "127.0.0.1", False),
        ("192.168.1.5", "127.0.0.1", False),
        ("[::1", "127.0.0.1", False),
        ("evil.example@localhost", "127.0.0.1", False),
        ("localhost/evil.example", "127.0.0.1", False),
        ("localhost:99999", "127.0.0.1", False),
        ("localhost:a", "127.0.0.1", False),
        ("", "127.0.0.1", False),
        ("", "", True),
    ],
)
def test_own_hosts_are_recognized(host: str, listens_on: str, is_own: bool) -> None:
    assert is_own_host(host, listens_on) is is_own


@pytest.mark.parametrize("host", ["emulator:8088", "EMULATOR", "Other.example"])
def test_allowed_hosts_are_recognized(host: str) -> None:
    assert not is_own_host(host, "0.0.0.0")
    assert is_own_host(host, "0.0.0.0", "emulator", "other.Example")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/execute/echo"),
        ("GET", "/"),
        ("GET", "/emulator/state"),
        ("GET", "/emulator/runs"),
        ("PUT", "/emulator/faults"),
        ("GET", "/nowhere"),
    ],
)
def test_a_request_for_another_host_is_refused(emulator: Emulator, method: str, path: str) -> None:
    before = len(emulator.runs())
    headers = {**KEY, "Host": "evil.example"}
    answer = requests.request(method, f"{emulator.url}{path}", data=b"{}", headers=headers, timeout=10)
    assert answer.status_code == 421
    assert "Host header" in answer.json()["error"]
    assert len(emulator.runs()) == before


def app_of(folder: Path, **arguments: Any) -> tuple[web.Application, Path]:
    (folder / "runs").mkdir()
    return create_app(folder=folder / "runs", **arguments), folder / "runs"


async def submitted(client: TestClient[Any, Any], **payload: Any) -> str:
    answer = await client.post("/api/v1/execute/echo", json=payload, headers=KEY)
    return str(URL((await answer.json())["data"]).path)


def test_finished_runs_beyond_the_limit_are_deleted(tmp_path: Path) -> None:
    app, folder = app_of(tmp_path, keep=3)

    async def check() -> None:
        async with TestClient(TestServer(app)) as client:
            slow = await submitted(client, data="slow", delay=60)
            credits = 0.0
            for number in range(10):
                url = await submitted(client, data=number, delay=0)
                answer = await (await client.get(url, headers=KEY)).json()
                assert answer["completed"]
                credits += answer["usedCredits"]
            kept = [run["payload"]["data"] for run in await (await client.get("/emulator/runs")).json()]
            assert kept == ["slow", 8, 9], "an unfinished run is kept"
            assert (await client.get(slow, headers=KEY)).status == 200
            state = await (await client.get("/emulator/state")).json()
            assert state["credits"] == pytest.approx(credits), "those of deleted runs are included"
            assert len(list(folder.glob("*.run"))) == 3

    asyncio.run(check())


def test_large_payloads_and_files_are_deleted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_aixplain.emulator.server.KEPT_BYTES", 2500)
    app, folder = app_of(tmp_path)

    async def check() -> None:
        async with TestClient(TestServer(app)) as client:
            for _ in range(5):
                url = await submitted(client, data="a" * 1000, delay=0)
                assert (await (await client.get(url, headers=KEY)).json())["completed"]
                offer = await client.post("/sdk/file/upload/temp-url", data={"originalName": "a"}, headers=TOKEN)
                await client.put(URL((await offer.json())["uploadUrl"]).path, data=b"a" * 1000)
            assert len(await (await client.get("/emulator/runs")).json()) == 2
            assert len(list(folder.glob("*.run"))) == 2
            assert len([path for path in folder.iterdir() if path.suffix != ".run"]) == 2

    asyncio.run(check())


@pytest.mark.parametrize("content", ["", '{"id": "a", "mod'])
def test_it_starts_after_a_run_was_not_stored_completely(tmp_path: Path, content: str) -> None:
    app, folder = app_of(tmp_path)
    (folder / "a.run").write_text(content)

    async def check() -> None:
        async with TestClient(TestServer(app)) as client:
            assert await (await client.get("/emulator/runs")).json() == []

    asyncio.run(check())


@pytest.mark.parametrize("faults", [{"rates": 1}, [], {"rate": "often"}, {"kinds": ["earthquake"]}])
def test_invalid_faults_are_refused(emulator: Emulator, faults: object) -> None:
    assert requests.put(f"{emulator.url}/emulator/faults", json=faults, timeout=10).status_code == 400


@pytest.mark.parametrize(
    "arguments", [["--faults", "2"], ["--folder", "nowhere"], ["--seconds", "-1"], ["--keep", "0"]]
)
def test_invalid_arguments_are_refused(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "airflow_provider_aixplain.emulator", "--port", "0", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert arguments[0] in ended.stderr
