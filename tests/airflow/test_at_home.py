"""What an Airflow is told of runs, and the ways to wait for them, in a real one."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
from typing import Any

import pytest
import requests

from airflow_provider_aixplain.get_provider_info import CONN_FIELDS
from tests.support.deployment import AIRFLOW_3, BIN, wait_until
from tests.support.home import KEY, Home
from tests.support.public_api import RESPONSE_FIELDS

DAG = "at_home"


@pytest.fixture(scope="module")
def run_id(home: Home) -> str:
    """A finished run of the DAG ``at_home``."""
    run_id = home.finished
    states = {(ti["task_id"], ti["map_index"]): ti["state"] for ti in home.airflow.tasks(DAG, run_id)}
    assert set(states.values()) == {"success"}, states
    return run_id


@pytest.mark.parametrize(("task_id", "index"), [("wait", -1), ("again", -1), ("mapped_wait", 0), ("mapped_wait", 1)])
def test_a_sensor_returns_what_the_operator_does(home: Home, run_id: str, task_id: str, index: int) -> None:
    xcoms = home.airflow.xcoms(DAG, run_id, task_id, index)
    response = xcoms.pop("return_value")
    assert set(response) == RESPONSE_FIELDS
    assert (response["status"], response["data"]) == ("SUCCESS", "submitted")
    assert xcoms == response


@pytest.mark.skipif(not AIRFLOW_3, reason="on SQLite Airflow 2 runs one task at a time: the run is over before it asks")
def test_a_sensor_defers(home: Home, run_id: str) -> None:
    assert "the triggerer waits for its end" in home.airflow.log(DAG, run_id, "wait")


def test_a_decorated_function_is_a_run(home: Home, run_id: str) -> None:
    xcoms = home.airflow.xcoms(DAG, run_id, "decorated")
    assert set(xcoms) == {*RESPONSE_FIELDS, "return_value"}
    assert xcoms["data"] == run_id.upper()
    assert [home.airflow.xcoms(DAG, run_id, "mapped", index)["data"] for index in (0, 1)] == ["one", "two"]


def test_the_log_tells_the_story_of_a_run(home: Home, run_id: str) -> None:
    log = home.airflow.log(DAG, run_id, "run")
    story = (
        "run: the run of model sentiment is at http",
        "run: the triggerer waits for its end",
        "Waiting for the run at http",
        "The wait ended after",
        "polls: success after 1.0 s, for 0.",
        "run: model sentiment is done after 1.0 s, for 0.",
        " credits and ",
    )
    places = [log.find(part) for part in story]
    assert -1 not in places, dict(zip(story, places, strict=True))
    assert places[:-1] == sorted(places[:-1])
    assert " tokens" in log


@pytest.mark.parametrize("task_id", ["run", "wait", "decorated"])
def test_the_link_leads_to_the_model(home: Home, run_id: str, task_id: str) -> None:
    path = f"/dags/{DAG}/dagRuns/{run_id}/taskInstances/{task_id}/links"
    found = home.airflow.call("GET", path)
    links: dict[str, Any] = found["extra_links"] if AIRFLOW_3 else found
    model = "sentiment" if task_id == "run" else "echo"
    assert links == {"aiXplain model": f"{home.emulator.url}/discover/model/{model}"}


class TestMetrics:
    """Through the Stats of workers and of the triggerer, with tags."""

    def values(self, home: Home, name: str, **tags: str) -> list[str]:
        wait_until(lambda: home.told(name, **tags), f"the metric {name}", 30)
        return home.told(name, **tags)

    def test_runs_and_what_they_cost(self, home: Home, run_id: str) -> None:
        tags = {"model_id": "sentiment", "outcome": "success"}
        assert self.values(home, "runs", **tags) == ["1|c"]
        response = home.airflow.xcoms(DAG, run_id, "run")
        (credits,) = self.values(home, "credits", **tags)
        assert float(credits.removesuffix("|c")) == pytest.approx(response["used_credits"])
        for kind in ("prompt", "completion"):
            (tokens,) = self.values(home, "tokens", kind=kind, **tags)
            assert int(tokens.removesuffix("|c")) == response["usage"][f"{kind}_tokens"]
        (duration,) = self.values(home, "run_duration", **tags)
        assert float(duration.removesuffix("|ms")) == 1000

    def test_waits_are_counted_where_they_are_spent(self, home: Home, run_id: str) -> None:
        tags = {"model_id": "sentiment", "outcome": "success"}
        (polls,) = self.values(home, "polls", **tags)
        assert int(polls.removesuffix("|c")) >= 1
        (waited,) = self.values(home, "wait_duration", **tags)
        assert 1000 <= float(waited.removesuffix("|ms")) < 60_000

    def test_a_run_that_nobody_waits_for(self, home: Home, run_id: str) -> None:
        assert self.values(home, "runs", model_id="echo", outcome="submitted") == ["1|c"]


def test_a_listener_hears_of_a_task_that_its_trigger_would_end(home: Home, run_id: str) -> None:
    """Airflow refuses any other operator that has ``end_from_trigger`` where there is a listener."""
    log = home.airflow.log(DAG, run_id, "listened_to")
    reason = "the listener" if AIRFLOW_3 else "its XComs, below Airflow 3.3"
    assert f"a worker takes the result, as a trigger that ends the task loses {reason}" in log
    assert home.airflow.xcoms(DAG, run_id, "listened_to")["data"] == "heard"


def test_openlineage_is_told_of_model_cost_and_time(home: Home, run_id: str) -> None:
    def facet() -> dict[str, Any] | None:
        return next((found for found in home.facets() if found.get("modelId") == "sentiment"), None)

    found = wait_until(facet, "the facet", 60)
    response = home.airflow.xcoms(DAG, run_id, "run")
    assert found["status"] == "SUCCESS"
    assert (found["pollUrl"], found["runTime"]) == (response["url"], 1.0)
    assert found["usedCredits"] == pytest.approx(response["used_credits"])
    assert found["promptTokens"] == response["usage"]["prompt_tokens"]


@pytest.mark.skipif(not AIRFLOW_3, reason="retry policies came with Airflow 3.3")
def test_retries_are_in_the_users_hands(home: Home) -> None:
    run_id = home.run("retried")
    tries = {ti["task_id"]: (ti["state"], ti["try_number"]) for ti in home.airflow.tasks("retried", run_id)}
    assert tries == {"fails_once": ("failed", 1), "fails_twice": ("failed", 2)}
    assert "Retry policy decision" in home.airflow.log("retried", run_id, "fails_once")


class TestConnections:
    """The command line and the API test one."""

    def airflow(self, home: Home, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(BIN / "airflow"), *arguments],
            env={**home.airflow.processes.env, **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def test_the_command_line_tests_it(self, home: Home) -> None:
        good = self.airflow(home, "connections", "test", "aixplain_default")
        assert "Connection success!" in good.stdout, good
        told = {**json.loads(home.emulator.connection), "password": "wrong-key-for-the-emulator"}
        bad = self.airflow(home, "connections", "test", "bad", AIRFLOW_CONN_BAD=json.dumps(told))
        assert bad.returncode == (1 if AIRFLOW_3 else 0), "Airflow 2 ends so whatever it has found"
        assert "refuses the key: check the API key" in " ".join(bad.stdout.split())
        assert "wrong-key-for-the-emulator" not in bad.stdout + bad.stderr

    @pytest.mark.parametrize(
        ("fields", "works", "told"),
        [
            ({}, True, "takes the key"),
            ({"password": "wrong"}, False, "refuses the key"),
            ({"host": "https://nowhere.invalid"}, False, "does not answer"),
            ({"password": ""}, False, "password is empty"),
        ],
    )
    def test_the_api_tests_it_before_it_is_saved(self, home: Home, fields: Any, works: bool, told: str) -> None:
        before = len(home.emulator.runs())
        body = {
            "connection_id": "new_one",
            "conn_type": "aixplain",
            "host": home.emulator.url,
            "password": KEY,
            **fields,
        }
        answer = home.airflow.call("POST", "/connections/test", json=body)
        assert (answer["status"], told in answer["message"]) == (works, True), answer
        assert len(home.emulator.runs()) == before, "it costs nothing"


@pytest.mark.skipif(AIRFLOW_3, reason="test_browser looks at the form of Airflow 3")
def test_airflow_2_shows_the_form_of_a_connection(home: Home) -> None:
    session = requests.Session()
    login = session.get(f"{home.airflow.url}/login/", timeout=30).text
    (token,) = set(re.findall(r'name="csrf_token"[^>]*value="([^"]+)"', login))
    told = {"username": "admin", "password": "admin", "csrf_token": token}
    session.post(f"{home.airflow.url}/login/", data=told, timeout=30)
    page = html.unescape(session.get(f"{home.airflow.url}/connection/add", timeout=30).text)
    for name, field in CONN_FIELDS.items():
        assert f'name="extra__aixplain__{name}"' in page
        assert field["label"] in page
        assert field["description"] in page
    assert re.search(r'<input[^>]*id="extra__aixplain__proxy"[^>]*type="password"', page)
    assert '"password": "API key"' in page, "how the form calls the standard fields"


def test_airflow_lists_all_that_the_provider_has(home: Home) -> None:
    command = [str(BIN / "airflow"), "providers", "get", "airflow-provider-aixplain", "--full", "--output", "json"]
    env = {**home.airflow.processes.env, "PATH": os.environ["PATH"]}
    printed = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=120).stdout
    for named in ("hooks", "operators", "sensors", "triggers", "task-decorators", "extra-links", "connection-types"):
        assert named in printed
