"""Sensor, decorator, logs, links, metrics, lineage, retry policies and Connections in a real Airflow.

The first module of its folder: it counts metrics before the documentation's DAGs add to them.
"""

from __future__ import annotations

import json
import os
import subprocess
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_aixplain.protocol.values import fields_with_values
from tests.support.deployment import AIRFLOW_3, BIN, RUN_SECONDS, wait_until
from tests.support.monitored import KEY, Monitored
from tests.support.public_api import RESPONSE_FIELDS

DAG = "monitored"


@pytest.fixture(scope="module")
def run_id(monitored: Monitored) -> str:
    """A finished run of the DAG ``monitored``."""
    run_id = monitored.finished
    states = {(ti["task_id"], ti["map_index"]): ti["state"] for ti in monitored.airflow.tasks(DAG, run_id)}
    assert set(states.values()) == {"success"}, states
    return run_id


@pytest.mark.parametrize(("task_id", "index"), [("wait", -1), ("again", -1), ("mapped_wait", 0), ("mapped_wait", 1)])
def test_a_sensor_returns_what_the_operator_does(monitored: Monitored, run_id: str, task_id: str, index: int) -> None:
    xcoms = monitored.airflow.xcoms(DAG, run_id, task_id, index)
    response = xcoms.pop("return_value")
    assert set(response) == RESPONSE_FIELDS
    assert (response["status"], response["data"]) == ("SUCCESS", "submitted")
    assert xcoms == fields_with_values(response)


@pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2 runs one task at a time here, so the run has finished before")
def test_a_sensor_defers(monitored: Monitored, run_id: str) -> None:
    assert "Deferred: waiting in the triggerer for the run to finish" in monitored.airflow.log(DAG, run_id, "wait")


def test_a_decorated_function_is_a_run(monitored: Monitored, run_id: str) -> None:
    xcoms = monitored.airflow.xcoms(DAG, run_id, "decorated")
    response = xcoms.pop("return_value")
    assert set(response) == RESPONSE_FIELDS
    assert xcoms == fields_with_values(response)
    assert xcoms["data"] == run_id.upper()
    assert [monitored.airflow.xcoms(DAG, run_id, "mapped", index)["data"] for index in (0, 1)] == ["one", "two"]


def test_the_log_reports_each_step_of_a_run(monitored: Monitored, run_id: str) -> None:
    log = monitored.airflow.log(DAG, run_id, "run")
    story = (
        "run: submitted a run of model sentiment: http",
        "run: Deferred: waiting in the triggerer for the run to finish",
        "Waiting for the run, submitted ",
        "Run succeeded after ",
        " credits)",
        f"run: model sentiment succeeded after {RUN_SECONDS:.1f} s",
        " credits and ",
    )
    places = [log.find(part) for part in story]
    assert -1 not in places, dict(zip(story, places, strict=True))
    assert places[:-1] == sorted(places[:-1])
    assert " tokens" in log


@pytest.mark.parametrize("task_id", ["run", "wait", "decorated"])
def test_the_link_leads_to_the_model(monitored: Monitored, run_id: str, task_id: str) -> None:
    path = f"/dags/{DAG}/dagRuns/{run_id}/taskInstances/{task_id}/links"
    found = monitored.airflow.call("GET", path)
    links: dict[str, Any] = found["extra_links"] if AIRFLOW_3 else found
    model = "sentiment" if task_id == "run" else "echo"
    assert links.pop("aiXplain page") == f"{monitored.emulator.url}/discover/model/{model}"
    pays = AIRFLOW_3 and task_id != "wait"
    assert set(links) == ({"aiXplain usage"} if pays else set()), "a sensor pays for nothing"


class TestMetrics:
    """Sent through the Stats of workers and of the triggerer, with tags."""

    def values(self, monitored: Monitored, name: str, **tags: str) -> list[str]:
        wait_until(lambda: monitored.metrics(name, **tags), f"the metric {name}", 30)
        return monitored.metrics(name, **tags)

    def test_runs_and_their_cost_are_counted(self, monitored: Monitored, run_id: str) -> None:
        tags = {"dag_id": DAG, "task_id": "run", "model_id": "sentiment", "outcome": "success"}
        assert self.values(monitored, "runs", **tags) == ["1|c"]
        response = monitored.airflow.xcoms(DAG, run_id, "run")
        (credits,) = self.values(monitored, "credits", **tags)
        assert int(credits.removesuffix("|c")) == round(response["used_credits"] * 1_000_000)
        for kind in ("prompt", "completion"):
            (tokens,) = self.values(monitored, "tokens", kind=kind, **tags)
            assert int(tokens.removesuffix("|c")) == response["usage"][f"{kind}_tokens"]
        (duration,) = self.values(monitored, "run_duration", **tags)
        assert float(duration.removesuffix("|ms")) == 1000 * RUN_SECONDS

    def test_the_triggerer_counts_polls_and_wait_duration(self, monitored: Monitored, run_id: str) -> None:
        tags = {"dag_id": DAG, "task_id": "run", "model_id": "sentiment", "outcome": "success"}
        (polls,) = self.values(monitored, "polls", **tags)
        assert int(polls.removesuffix("|c")) >= 1
        (waited,) = self.values(monitored, "wait_duration", **tags)
        assert 1000 * RUN_SECONDS <= float(waited.removesuffix("|ms")) < 60_000

    def test_each_row_of_a_batch_is_counted(self, monitored: Monitored, run_id: str) -> None:
        tags = {"dag_id": DAG, "task_id": "batch", "model_id": "sentiment"}
        manifest = monitored.airflow.xcoms(DAG, run_id, "batch")["return_value"]
        for name, total in {"runs": 3, "credits": round(manifest["credits"] * 1_000_000)}.items():
            counts = self.values(monitored, name, outcome="success", **tags)
            assert sum(int(count.removesuffix("|c")) for count in counts) == total
        assert len(self.values(monitored, "wait_duration", outcome="success", **tags)) == 3
        assert self.values(monitored, "batch.done", **tags)[-1] == "3|g"
        assert len({line.split("batch_id=")[1].split(":")[0] for line in monitored.lines if "batch_id=" in line}) == 1

    def test_a_run_without_waiting_is_counted_as_submitted(self, monitored: Monitored, run_id: str) -> None:
        assert self.values(monitored, "runs", model_id="echo", outcome="submitted") == ["1|c"]


def test_a_listener_makes_a_worker_finish_the_task(monitored: Monitored, run_id: str) -> None:
    """With a listener, Airflow rejects other operators that set ``end_from_trigger``."""
    log = monitored.airflow.log(DAG, run_id, "listened_to")
    reason = "the listener" if AIRFLOW_3 else "its XComs, below Airflow 3.3"
    assert f"a worker finishes the task, as a trigger would lose {reason}" in log
    assert monitored.airflow.xcoms(DAG, run_id, "listened_to")["data"] == "listener"


def test_openlineage_events_have_model_cost_and_time(monitored: Monitored, run_id: str) -> None:
    event = wait_until(lambda: monitored.lineage_events().get("monitored.run"), "the event", 60)
    found = event["run"]["facets"]["aixplain_run"]
    assert found["modelId"] == "sentiment"
    response = monitored.airflow.xcoms(DAG, run_id, "run")
    assert found["status"] == "SUCCESS"
    assert (found["pollUrl"], found["runTime"]) == (response["url"], RUN_SECONDS)
    assert found["usedCredits"] == pytest.approx(response["used_credits"])
    assert found["promptTokens"] == response["usage"]["prompt_tokens"]


@pytest.mark.skipif(not AIRFLOW_3, reason="retry policies came with Airflow 3.3")
def test_a_retry_policy_decides_about_retries(monitored: Monitored) -> None:
    run_id = monitored.run("retried")
    tries = {ti["task_id"]: (ti["state"], ti["try_number"]) for ti in monitored.airflow.tasks("retried", run_id)}
    assert tries == {"fails_once": ("failed", 1), "fails_twice": ("failed", 2)}
    assert "Retry policy decision" in monitored.airflow.log("retried", run_id, "fails_once")


def test_credits_are_those_of_the_account(monitored: Monitored, run_id: str) -> None:
    """To the last digit: of single runs, agents and a batch, and of failed runs, which the test before has added."""
    runs = monitored.emulator.runs()
    account = sum(Decimal(str(run["used_credits"])) for run in runs)
    assert {bool(run["agent_id"]) for run in runs} == {True, False}

    def counted() -> Decimal:
        credits = monitored.stats.credits
        return credits() - credits(task_id="again") - credits(task_id="mapped_wait")  # of the run that "wait" counts

    wait_until(lambda: counted() >= account, f"{account} credits", 30)
    assert counted() == account


class TestConnections:
    """Airflow's command line and API test a Connection."""

    def airflow(self, monitored: Monitored, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(BIN / "airflow"), *arguments],
            env={**monitored.airflow.processes.env, **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def test_the_command_line_tests_a_connection(self, monitored: Monitored) -> None:
        good = self.airflow(monitored, "connections", "test", "aixplain_default")
        assert "Connection success!" in good.stdout, good
        fields = {**json.loads(monitored.emulator.connection), "password": "wrong-key-for-the-emulator"}
        bad = self.airflow(monitored, "connections", "test", "bad", AIRFLOW_CONN_BAD=json.dumps(fields))
        assert bad.returncode == (1 if AIRFLOW_3 else 0), "Airflow 2 always exits with 0"
        assert "The key is refused (HTTP 401). Check the API key" in " ".join(bad.stdout.split())
        assert "wrong-key-for-the-emulator" not in bad.stdout + bad.stderr

    @pytest.mark.parametrize(
        ("fields", "works", "message"),
        [
            ({}, True, "The key is accepted"),
            ({"password": "wrong"}, False, "The key is refused"),
            ({"host": "https://nowhere.invalid"}, False, "No response"),
            ({"password": ""}, False, "password is empty"),
        ],
    )
    def test_the_api_tests_a_connection_before_it_is_saved(
        self, monitored: Monitored, fields: Any, works: bool, message: str
    ) -> None:
        before = len(monitored.emulator.runs())
        body = {
            "connection_id": "new_one",
            "conn_type": "aixplain",
            "host": monitored.emulator.url,
            "password": KEY,
            **fields,
        }
        answer = monitored.airflow.call("POST", "/connections/test", json=body)
        assert (answer["status"], message in answer["message"]) == (works, True), answer
        assert len(monitored.emulator.runs()) == before, "a test submits nothing"


def test_airflow_lists_everything_in_the_provider(monitored: Monitored) -> None:
    command = [str(BIN / "airflow"), "providers", "get", "airflow-provider-aixplain", "--full", "--output", "json"]
    env = {**monitored.airflow.processes.env, "PATH": os.environ["PATH"]}
    printed = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=120).stdout
    for named in ("hooks", "operators", "sensors", "triggers", "task-decorators", "extra-links", "connection-types"):
        assert named in printed
