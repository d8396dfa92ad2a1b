"""The emulator speaks the wire protocol."""

from __future__ import annotations

import subprocess
import sys

import pytest
import requests

from tests.airflow.deployment import Emulator, wait_until

KEY = {"x-api-key": "any"}


def submit(emulator: Emulator, model_id: str, body: str, headers: dict[str, str] = KEY) -> requests.Response:
    return requests.post(f"{emulator.url}/api/v1/execute/{model_id}", data=body.encode(), headers=headers, timeout=10)


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
def test_real_models_give_real_results(emulator: Emulator, model_id: str, body: str, data: object) -> None:
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
    [("fail", "{}", "this model always fails"), ("sentiment", '{"data": 5}', "this model needs a text as data")],
)
def test_runs_that_fail(emulator: Emulator, model_id: str, body: str, message: str) -> None:
    answer = result(emulator, model_id, body)
    assert (answer["status"], answer["error_message"]) == ("FAILED", message)


@pytest.mark.parametrize("path", ["/api/v1/execute/echo", "/api/v1/data/x"])
def test_a_missing_key_is_401(emulator: Emulator, path: str) -> None:
    method = requests.post if "execute" in path else requests.get
    answer = method(f"{emulator.url}{path}", timeout=10)
    assert (answer.status_code, answer.json()) == (401, {"error": "no API key in the request"})


def test_a_personal_key_is_a_key(emulator: Emulator) -> None:
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
def test_what_it_refuses(emulator: Emulator, model_id: str, body: str, status: int) -> None:
    answer = submit(emulator, model_id, body)
    assert answer.status_code == status
    assert answer.json()["error"]


def test_a_run_takes_its_time(emulator: Emulator) -> None:
    result(emulator, "echo", '{"data": "timed", "delay": 0.3}')
    run = next(run for run in emulator.runs() if run["payload"].get("data") == "timed")
    assert run["polled_at"][-1] >= run["over_at"] == pytest.approx(run["submitted_at"] + 0.3)


def test_it_prints_the_connection_to_use() -> None:
    command = [sys.executable, "-m", "airflow_provider_aixplain.emulator", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[3].rstrip(".")
        line = process.stdout.readline()
        process.terminate()
    assert line.startswith("export AIRFLOW_CONN_AIXPLAIN_DEFAULT='{")
    assert f'"host": "{url}"' in line
