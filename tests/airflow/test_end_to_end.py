"""Tasks from submission to XCom in a real Airflow, with nothing mocked: its processes, database and REST API."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_aixplain.get_provider_info import CONN_FIELDS
from airflow_provider_aixplain.protocol.values import fields_with_values
from tests.support.deployment import (
    AIRFLOW_3,
    AIRFLOW_3_1,
    AIRFLOW_3_3,
    FINISHED,
    RUN_SECONDS,
    Airflow,
    Emulator,
    Processes,
    copy_dags,
    wait_until,
)
from tests.support.public_api import AGENT_FIELDS, RESPONSE_FIELDS

ROOT = Path(__file__).parents[2]
TEXTS = 4
STREAMED = "It was the best of times. " * 20
CONF = {
    "example_aixplain_run": {"text": "What a wonderful lamp!"},  # not one of the reviews, which are counted
    "example_aixplain_stream": {"text": STREAMED},
}
DAGS = (
    *(("tries",) if AIRFLOW_3_3 else ()),
    *(("example_aixplain_approval",) if AIRFLOW_3_1 else ()),
    "agents",
    "endings",
    "large",
    "example_aixplain_run",
    "example_aixplain_sensor",
    "example_aixplain_decorator",
    "example_aixplain_mapped",
    "example_aixplain_submit",
    "example_aixplain_stream",
    "example_aixplain_file",
    "example_aixplain_finetune",
    "example_aixplain_agent",
    "example_aixplain_conversation",
)
LOGGED_KEY = "key-that-a-task-logs"
STORED_KEY = "key-in-the-database"


class Deployment:
    """An emulator and a real Airflow that uses it, whose triggerer is not yet started.

    Airflow starts all DAG runs of these tests at once, as each of them mostly waits.
    """

    def __init__(self, processes: Processes, dags: Path) -> None:
        self.emulator = Emulator(processes, RUN_SECONDS)
        self.key: str = json.loads(self.emulator.connection)["password"]
        indiscreet = {**json.loads(self.emulator.connection), "password": LOGGED_KEY}
        connections = {"aixplain_default": self.emulator.connection, "indiscreet": json.dumps(indiscreet)}
        # Large XComs go to another backend, as in deployments with such results.
        self.xcoms = processes.home / "xcoms"
        settings = {
            # Not encrypted, so that tests can search Airflow's database for the key; and with all that it can log.
            "core__fernet_key": "",
            "logging__logging_level": "DEBUG",
            "core__xcom_backend": "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend",
            "common_io__xcom_objectstorage_path": f"file://{self.xcoms}",
            "common_io__xcom_objectstorage_threshold": 1_000_000,
        }
        self.airflow = Airflow(processes, dags, connections, settings=settings)
        self.airflow.start(without=("triggerer",))
        self.results = processes.home / "results"
        self.run_ids: dict[str, str] = {}

    def start_runs(self) -> None:
        """Start the triggerer and a run of each DAG, unless that was done."""
        if self.run_ids:
            return
        self.airflow.start_component("triggerer")
        stored = {"connection_id": "stored", "conn_type": "aixplain", "host": self.emulator.url}
        self.airflow.call("POST", "/connections", json={**stored, "password": STORED_KEY})
        for dag_id in DAGS:
            self.run_ids[dag_id] = self.airflow.trigger(dag_id, CONF.get(dag_id, {}))
        path = {"result_path": f"file://{self.results}"}
        self.run_ids["example_aixplain_batch"] = self.airflow.trigger("example_aixplain_batch", path)

    def finish(self, dag_id: str) -> str:
        """Wait until the run of a DAG has finished, and return its id."""
        self.start_runs()
        self.airflow.finish(dag_id, self.run_ids[dag_id])
        return self.run_ids[dag_id]

    def run_of(self, response: dict[str, Any]) -> dict[str, Any]:
        """Return the emulator's record of the run that a response belongs to."""
        return next(run for run in self.emulator.runs() if run["id"] in response["url"])


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("deployment")
    dags = copy_dags(folder / "dags", ROOT / "example_dags", ROOT / "tests" / "airflow" / "dags")
    texts = dags / "data" / "reviews.txt"
    texts.write_text("\n".join(texts.read_text(encoding="utf-8").splitlines()[:TEXTS]), encoding="utf-8")
    with Processes(folder / "airflow") as processes:
        yield Deployment(processes, dags)


def test_only_the_triggerer_polls(deployment: Deployment) -> None:
    """First in this file: the triggerer is not running yet."""
    assert "triggerer" not in deployment.airflow.processes.running
    run_id = deployment.airflow.trigger("example_aixplain_run", {"text": "What a wonderful lamp!"})

    def analyse() -> dict[str, Any]:
        return next(ti for ti in deployment.airflow.tasks("example_aixplain_run", run_id) if ti["task_id"] == "analyse")

    wait_until(lambda: analyse()["state"] == "deferred", "the task to defer")
    (run,) = deployment.emulator.runs()
    wait_until(lambda: time.time() > run["finishes_at"] + 1, "the run to finish on the platform")
    (run,) = deployment.emulator.runs()
    assert run["polled_at"] == [], "polled before the triggerer was started"
    assert analyse()["state"] == "deferred"
    assert run["payload"] == {"data": "What a wonderful lamp!"}

    deployment.start_runs()
    assert deployment.airflow.finish("example_aixplain_run", run_id) == "success"
    run = next(found for found in deployment.emulator.runs() if found["id"] == run["id"])
    assert run["polled_at"]
    assert all("aiohttp" in agent for agent in run["polled_by"])


@pytest.fixture(scope="module")
def ended(deployment: Deployment) -> str:
    """A run of the DAG ``ended``, whose tasks were stopped as their names state."""
    deployment.start_runs()
    run_id = deployment.airflow.trigger("ended")

    def wait_for(task_id: str, state: str) -> None:
        def is_reached() -> bool:
            (task,) = [ti for ti in deployment.airflow.tasks("ended", run_id) if ti["task_id"] == task_id]
            log = deployment.airflow.log("ended", run_id, task_id) if task["state"] == state else ""
            return "Waiting for the run" in log or ("submitted a run of" in log and state == "running")

        wait_until(is_reached, f"{task_id} {state}")

    wait_for("cleared_in_its_wait", "deferred")
    body = {"dry_run": False, "dag_run_id": run_id, "task_ids": ["cleared_in_its_wait"], "only_failed": False}
    deployment.airflow.call("POST", "/dags/ended/clearTaskInstances", json=body)
    for task_id, before, after in [
        ("on_its_worker", "running", "failed"),
        ("marked_failed", "deferred", "failed"),
        ("marked_success", "deferred", "success"),
    ]:
        wait_for(task_id, before)
        deployment.airflow.call(
            "PATCH", f"/dags/ended/dagRuns/{run_id}/taskInstances/{task_id}", json={"new_state": after}
        )
    deployment.airflow.finish("ended", run_id)
    return run_id


@pytest.mark.skipif(not AIRFLOW_3_3, reason="below Airflow 3.3 a trigger does not learn that its task was ended")
class TestEnded:
    """The platform cannot cancel a run: the log of a stopped task states that it continues, and its poll URL."""

    def log(self, deployment: Deployment, run_id: str, task_id: str) -> str:
        return deployment.airflow.log("ended", run_id, task_id)

    def poll_url(self, deployment: Deployment, task_id: str) -> str:
        (run,) = [run for run in deployment.emulator.runs() if run["payload"].get("data") == task_id]
        return f"{deployment.emulator.url}/api/v1/data/{run['id']}"

    @pytest.mark.parametrize("task_id", ["marked_failed", "marked_success", "cleared_in_its_wait"])
    def test_the_trigger_logs_that_the_run_continues(self, deployment: Deployment, ended: str, task_id: str) -> None:
        sentence = (
            f"The run continues and is billed, as the platform cannot cancel it: {self.poll_url(deployment, task_id)}"
        )
        wait_until(lambda: sentence in self.log(deployment, ended, task_id), "the trigger's log line", 30)

    @pytest.mark.parametrize("task_id", ["on_its_worker", "execution_timeout_on_its_worker"])
    def test_the_worker_logs_that_the_run_continues(self, deployment: Deployment, ended: str, task_id: str) -> None:
        sentence = (
            f"Its run continues and is billed, as the platform cannot cancel it: {self.poll_url(deployment, task_id)}"
        )
        wait_until(lambda: sentence in self.log(deployment, ended, task_id), "the worker's log line", 30)

    def test_an_execution_timeout_ends_the_wait(self, deployment: Deployment, ended: str) -> None:
        log = self.log(deployment, ended, "execution_timeout")
        assert "stopped waiting; the run continues: " in log
        assert self.poll_url(deployment, "execution_timeout") in log

    def test_a_cleared_task_gets_the_result_of_its_run(self, deployment: Deployment, ended: str) -> None:
        (task,) = [ti for ti in deployment.airflow.tasks("ended", ended) if ti["task_id"] == "cleared_in_its_wait"]
        assert (task["state"], task["try_number"]) == ("success", 2)
        assert self.poll_url(deployment, "cleared_in_its_wait")  # one submission, or this raises


def test_every_field_of_the_response_is_an_xcom(deployment: Deployment) -> None:
    run_id = deployment.finish("example_aixplain_run")
    xcoms = deployment.airflow.xcoms("example_aixplain_run", run_id, "analyse")
    response = xcoms.pop("return_value")
    assert set(response) == RESPONSE_FIELDS
    run = deployment.run_of(response)
    assert response == {
        "status": "SUCCESS",
        "data": "positive",
        "details": response["details"],
        "completed": True,
        "error_message": "",
        "used_credits": pytest.approx(0.00002 * len(json.dumps(run["payload"]))),
        "run_time": RUN_SECONDS,
        "usage": response["usage"],
        "url": f"{deployment.emulator.url}/api/v1/data/{run['id']}",
        "error_code": None,
        "asset": {"assetId": "sentiment", "id": "sentiment"},
        "additional_fields": {"requestId": run["id"]},
    }
    assert response["details"]["compound"] > 0.05
    assert response["usage"]["total_tokens"] > 0
    assert xcoms == fields_with_values(response), "each field that is not empty is also an XCom"
    report = deployment.airflow.xcoms("example_aixplain_run", run_id, "report")["return_value"]
    assert report == {"data": "positive", "used_credits": response["used_credits"]}


@pytest.mark.parametrize(
    ("dag_id", "task_id", "expected"),
    [("example_aixplain_sensor", "report", "de"), ("example_aixplain_decorator", "count", ["negative", "positive"])],
)
def test_sensor_and_decorator_return_results(deployment: Deployment, dag_id: str, task_id: str, expected: Any) -> None:
    run_id = deployment.finish(dag_id)
    assert deployment.airflow.state(dag_id, run_id) == "success"
    assert deployment.airflow.xcoms(dag_id, run_id, task_id)["return_value"] == expected


def test_a_batch_is_one_task(deployment: Deployment) -> None:
    run_id = deployment.finish("example_aixplain_batch")
    assert deployment.airflow.state("example_aixplain_batch", run_id) == "success"
    manifest = deployment.airflow.xcoms("example_aixplain_batch", run_id, "analyse")["return_value"]
    assert (manifest["rows"], manifest["succeeded"], manifest["orphaned"]) == (24, 24, [])
    counted = deployment.airflow.xcoms("example_aixplain_batch", run_id, "count")["return_value"]
    assert sum(counted.values()) == 24
    deployment.finish("example_aixplain_mapped")
    texts = (ROOT / "example_dags" / "data" / "reviews.txt").read_text(encoding="utf-8").splitlines()
    submitted = Counter(str(run["payload"].get("data")) for run in deployment.emulator.runs())
    assert [submitted[text] for text in texts] == [2] * TEXTS + [1] * (24 - TEXTS), "the first are mapped tasks too"
    log = deployment.airflow.log("example_aixplain_batch", run_id, "analyse")
    assert "24 of 24 rows done, 0 of them failed, 0 in flight" in log


def test_mapped_runs_keep_their_order(deployment: Deployment) -> None:
    run_id = deployment.finish("example_aixplain_mapped")
    assert deployment.airflow.state("example_aixplain_mapped", run_id) == "success"
    texts = deployment.airflow.xcoms("example_aixplain_mapped", run_id, "read")["return_value"]
    results = []
    for index, text in enumerate(texts):
        response = deployment.airflow.xcoms("example_aixplain_mapped", run_id, "analyse", index)["return_value"]
        assert deployment.run_of(response)["payload"] == text
        results.append(response["data"])
    assert results == ["positive", "negative", "positive", "neutral"]
    counted = deployment.airflow.xcoms("example_aixplain_mapped", run_id, "count")["return_value"]
    assert counted == {"positive": 2, "negative": 1, "neutral": 1}


def test_a_submission_without_waiting(deployment: Deployment) -> None:
    run_id = deployment.finish("example_aixplain_submit")
    assert deployment.airflow.state("example_aixplain_submit", run_id) == "success"
    submitted = deployment.airflow.xcoms("example_aixplain_submit", run_id, "submit")["return_value"]
    assert (submitted["status"], submitted["completed"]) == ("IN_PROGRESS", False)
    looked = deployment.airflow.xcoms("example_aixplain_submit", run_id, "look")["return_value"]
    assert looked["status"] in ("IN_PROGRESS", "SUCCESS")
    run = deployment.run_of(submitted)
    assert [agent for agent in run["polled_by"] if "aiohttp" in agent] == []


def test_a_stream_is_written_to_the_log_and_returned(deployment: Deployment) -> None:
    run_id = deployment.finish("example_aixplain_stream")
    assert deployment.airflow.state("example_aixplain_stream", run_id) == "success"
    response = deployment.airflow.xcoms("example_aixplain_stream", run_id, "write")["return_value"]
    assert set(response) == RESPONSE_FIELDS
    assert (response["status"], response["completed"]) == ("SUCCESS", True)
    assert response["data"].strip() == STREAMED.strip()
    assert response["used_credits"] > 0
    log = deployment.airflow.log("example_aixplain_stream", run_id, "write")
    assert len([logged for logged in log.splitlines() if "best" in logged]) > 3


def test_a_file_is_uploaded_and_its_link_sent(deployment: Deployment) -> None:
    run_id = deployment.finish("example_aixplain_file")
    assert deployment.airflow.state("example_aixplain_file", run_id) == "success"
    response = deployment.airflow.xcoms("example_aixplain_file", run_id, "analyse")["return_value"]
    assert response["data"] == "en"
    link = deployment.run_of(response)["payload"]["text"]
    assert link.startswith("s3://")
    assert link.endswith("/reviews.txt")


def test_a_sensor_waits_for_a_training(deployment: Deployment) -> None:
    run_id = deployment.finish("example_aixplain_finetune")
    assert deployment.airflow.state("example_aixplain_finetune", run_id) == "success"
    trained = deployment.airflow.xcoms("example_aixplain_finetune", run_id, "trained")["return_value"]
    assert (trained["status"], trained["model_status"], trained["epoch"]) == ("completed", "onboarded", 3)


def test_the_answer_of_an_agent_is_used(deployment: Deployment) -> None:
    run_id = deployment.finish("example_aixplain_agent")
    assert deployment.airflow.state("example_aixplain_agent", run_id) == "success"
    xcoms = deployment.airflow.xcoms("example_aixplain_agent", run_id, "ask")
    response = xcoms.pop("return_value")
    assert set(response) == AGENT_FIELDS
    assert xcoms == fields_with_values(response)
    assert xcoms["output"] == "reviews 4, positive 1, neutral 2, negative 1, languages (en 2, de 1, fr 1)"
    assert len(xcoms["data"]["steps"]) == 8
    report = deployment.airflow.xcoms("example_aixplain_agent", run_id, "report")["return_value"]
    assert report == {"output": xcoms["output"], "used_credits": xcoms["used_credits"]}
    assert deployment.run_of(xcoms)["payload"]["executionParams"]["budget"] == {"maxCost": 1, "maxDurationSeconds": 600}


def test_an_agent_remembers_the_first_run_of_a_conversation(deployment: Deployment) -> None:
    run_id = deployment.finish("example_aixplain_conversation")
    output = deployment.airflow.xcoms("example_aixplain_conversation", run_id, "report")["return_value"]
    assert output == (
        "reviews 1, positive 0, neutral 0, negative 1, languages (en 1),"
        " earlier (reviews 1, positive 1, neutral 0, negative 0, languages (en 1))"
    )


@pytest.mark.skipif(not AIRFLOW_3_1, reason="below Airflow 3.1 no task can wait for a person")
def test_an_answer_is_used_once_a_person_has_approved_it(deployment: Deployment) -> None:
    deployment.start_runs()
    dag_id, run_id = "example_aixplain_approval", deployment.run_ids["example_aixplain_approval"]

    def states() -> dict[str, str | None]:
        return {ti["task_id"]: ti["state"] for ti in deployment.airflow.tasks(dag_id, run_id)}

    waits = "awaiting_input" if AIRFLOW_3_3 else "deferred"
    wait_until(lambda: states()["approve"] == waits, "the task that waits for a person")
    assert states()["publish"] is None
    path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/approve/-1/hitlDetails"
    answer = deployment.airflow.xcoms(dag_id, run_id, "ask")["output"]
    assert deployment.airflow.call("GET", path)["body"] == answer
    deployment.airflow.call("PATCH", path, json={"chosen_options": ["Approve"]})
    deployment.finish(dag_id)
    assert deployment.airflow.xcoms(dag_id, run_id, "publish")["return_value"] == answer


@pytest.mark.skipif(AIRFLOW_3 and not AIRFLOW_3_1, reason="Airflow 3.0 needs the provider fab for it")
def test_the_form_of_a_connection_has_every_field(deployment: Deployment) -> None:
    form = deployment.airflow.connection_form()
    for name, field in CONN_FIELDS.items():
        assert [text for text in (name, field["label"], field["description"]) if text not in form] == []
    assert "API key" in form, "the label of a standard field"
    assert AIRFLOW_3 or re.search(r'<input[^>]*id="extra__aixplain__proxy"[^>]*type="password"', form)


@pytest.mark.skipif(not AIRFLOW_3_1, reason="below Airflow 3.1 no plugin can add a page")
def test_the_usage_page_has_the_credits_of_a_task(deployment: Deployment) -> None:
    run_id = deployment.finish("example_aixplain_agent")
    credits = deployment.airflow.xcoms("example_aixplain_agent", run_id, "ask")["used_credits"]
    page = deployment.airflow.usage(dag_id="example_aixplain_agent")
    assert float(page["totals"]["credits"]) == pytest.approx(credits)


@pytest.fixture(scope="module")
def run_id(deployment: Deployment) -> str:
    """A finished run of the DAG ``endings``, one of whose tasks uses a Connection that is stored in Airflow."""
    return deployment.finish("endings")


class TestEndings:
    def state(self, deployment: Deployment, run_id: str, task_id: str) -> tuple[str, int]:
        (task,) = [ti for ti in deployment.airflow.tasks("endings", run_id) if ti["task_id"] == task_id]
        assert task["state"] in FINISHED
        return task["state"], task["try_number"]

    def test_a_failed_run_logs_the_platforms_message(self, deployment: Deployment, run_id: str) -> None:
        assert self.state(deployment, run_id, "failing_run") == ("failed", 1)
        log = deployment.airflow.log("endings", run_id, "failing_run")
        run = next(run for run in deployment.emulator.runs() if run["model_id"] == "fail")
        url = f"{deployment.emulator.url}/api/v1/data/{run['id']}"
        assert f"Model fail: the run failed: this model always fails; poll URL: {url}" in log

    def test_a_slow_run_times_out(self, deployment: Deployment, run_id: str) -> None:
        assert self.state(deployment, run_id, "too_slow") == ("failed", 1)
        log = deployment.airflow.log("endings", run_id, "too_slow")
        assert "Model echo: stopped waiting; the run continues: " in log
        assert f"; poll URL: {deployment.emulator.url}/api/v1/data/" in log

    def test_a_task_can_wait_on_its_worker(self, deployment: Deployment, run_id: str) -> None:
        assert self.state(deployment, run_id, "on_the_worker") == ("success", 1)
        response = deployment.airflow.xcoms("endings", run_id, "on_the_worker")["return_value"]
        assert all("requests" in agent for agent in deployment.run_of(response)["polled_by"])

    def test_a_permanent_error_fails_without_retrying(self, deployment: Deployment, run_id: str) -> None:
        assert self.state(deployment, run_id, "no_such_model") == ("failed", 1)
        assert "Model nope: the submission failed: HTTP 404 (resource): no model nope" in deployment.airflow.log(
            "endings", run_id, "no_such_model"
        )

    def test_the_response_can_be_a_single_xcom(self, deployment: Deployment, run_id: str) -> None:
        assert self.state(deployment, run_id, "whole_response") == ("success", 1)
        assert set(deployment.airflow.xcoms("endings", run_id, "whole_response")) == {"return_value"}

    def test_values_that_airflow_cannot_store_are_replaced(self, deployment: Deployment, run_id: str) -> None:
        assert self.state(deployment, run_id, "odd_values") == ("success", 1)
        assert deployment.airflow.xcoms("endings", run_id, "odd_values")["data"] == {
            "big": str(10**30),
            "negative": str(-(10**30)),
            "half a pair": "a\ufffdb",
            "nul": "a\ufffdb",
            "fine": "😀",
        }

    def test_a_connection_can_be_stored_in_airflow(self, deployment: Deployment, run_id: str) -> None:
        assert self.state(deployment, run_id, "stored_connection") == ("success", 1)


@pytest.fixture(scope="module")
def tries(deployment: Deployment) -> str:
    """A finished run of the DAG ``tries``."""
    return deployment.finish("tries")


@pytest.mark.skipif(not AIRFLOW_3_3, reason="the task state store came with Airflow 3.3: below it each try submits")
class TestTries:
    """A later try resumes the run that an earlier one paid for, whichever process was killed in between."""

    def submissions(self, deployment: Deployment, text: str) -> int:
        return sum(run["payload"].get("data") == text for run in deployment.emulator.runs())

    @pytest.mark.parametrize("task_id", ["timed_out", "before_deferral", "with_result"])
    def test_it_is_paid_once_and_delivered(self, deployment: Deployment, tries: str, task_id: str) -> None:
        (task,) = [ti for ti in deployment.airflow.tasks("tries", tries) if ti["task_id"] == task_id]
        assert task["state"] == "success"
        assert task["try_number"] > 1
        assert deployment.airflow.xcoms("tries", tries, task_id)["data"] == task_id
        numbers = range(1, task["try_number"] + 1)
        logs = [deployment.airflow.log("tries", tries, task_id, try_number=number) for number in numbers]
        # On a busy machine Airflow itself may kill a task during its submission, which the next try reports.
        in_doubt = "".join(logs).count("it is unknown whether the platform accepted it")
        assert self.submissions(deployment, task_id) == 1 + in_doubt, "\n".join(logs)
        assert "re-attached to the run of an earlier try" in logs[-1]

    def test_a_submission_in_doubt_is_logged_and_repeated(self, deployment: Deployment, tries: str) -> None:
        (task,) = [ti for ti in deployment.airflow.tasks("tries", tries) if ti["task_id"] == "orphan"]
        assert (task["state"], task["try_number"]) == ("success", 2)
        assert self.submissions(deployment, "orphan") == 2
        log = deployment.airflow.log("tries", tries, "orphan", try_number=2)
        assert "it is unknown whether the platform accepted it" in log

    def test_a_task_that_is_cleared_after_its_success_runs_again(self, deployment: Deployment, tries: str) -> None:
        assert self.submissions(deployment, "cleared") == 1
        body = {"dry_run": False, "dag_run_id": tries, "task_ids": ["cleared"], "only_failed": False}
        deployment.airflow.call("POST", "/dags/tries/clearTaskInstances", json=body)
        wait_until(lambda: self.submissions(deployment, "cleared") == 2, "the second submission")
        assert deployment.airflow.finish("tries", tries) == "success"


@pytest.fixture(scope="module")
def agents(deployment: Deployment) -> str:
    """A finished run of the DAG ``agents``."""
    return deployment.finish("agents")


class TestAgents:
    def result(self, deployment: Deployment, agents: str, task_id: str) -> dict[str, Any]:
        xcoms = deployment.airflow.xcoms("agents", agents, task_id)
        stored = xcoms.pop("return_value")
        if isinstance(stored, str):  # the XCom backend keeps large values in files
            stored = json.loads(Path(stored.removeprefix("file://")).read_text())
        response: dict[str, Any] = stored
        assert set(response) == AGENT_FIELDS
        assert xcoms in ({}, fields_with_values(response))
        return response

    def submissions(self, deployment: Deployment, query: str) -> int:
        return sum((run["payload"].get("query") or {}).get("input") == query for run in deployment.emulator.runs())

    def test_all_tasks_succeed_except_the_aborted_one(self, deployment: Deployment, agents: str) -> None:
        states = {ti["task_id"]: ti["state"] for ti in deployment.airflow.tasks("agents", agents)}
        assert {name for name, state in states.items() if state != "success"} == {"aborted"}
        assert "Agent echo-agent: the run failed: ABORTED: " in deployment.airflow.log("agents", agents, "aborted")

    def test_its_steps_are_logged_and_its_answer_is_an_xcom(self, deployment: Deployment, agents: str) -> None:
        response = self.result(deployment, agents, "first")
        assert "2" in response["output"]
        assert response["used_credits"] > 0
        log = deployment.airflow.log("agents", agents, "first")
        steps = ("py3langid: detect the language of a review (", "VADER: rate the sentiment of a review (")
        assert [log.count(step) for step in steps] == [2, 2]

    def test_a_session_continues(self, deployment: Deployment, agents: str) -> None:
        first, second = (self.result(deployment, agents, task_id) for task_id in ("first", "second"))
        assert first["session_id"] == second["session_id"]
        assert first["request_id"] != second["request_id"]

    @pytest.mark.parametrize("task_id", ["on_its_worker", "sensor", "killed", "decorated", "large", "growing"])
    def test_each_mode_returns_the_answer_of_one_run(self, deployment: Deployment, agents: str, task_id: str) -> None:
        query = "submitted" if task_id == "sensor" else task_id
        assert self.result(deployment, agents, task_id)["output"] == query
        assert self.submissions(deployment, query) == (1 if AIRFLOW_3_3 or task_id != "killed" else 2)

    def test_mapped_answers_are_validated(self, deployment: Deployment, agents: str) -> None:
        outputs = [deployment.airflow.xcoms("agents", agents, "validated", index)["output"] for index in range(2)]
        assert outputs == [{"rating": 1}, {"rating": 2}]

    def test_a_budget_ends_a_run_with_a_warning(self, deployment: Deployment, agents: str) -> None:
        response = self.result(deployment, agents, "over_budget")
        assert len(response["data"]["steps"]) == 3
        assert "BLOCKED_BY_BUDGET" in deployment.airflow.log("agents", agents, "over_budget")

    def test_a_large_unfinished_answer_stays_in_the_triggerer(self, deployment: Deployment, agents: str) -> None:
        log = deployment.airflow.log("agents", agents, "growing")
        assert log.count("Deferred: ") == 1
        assert len(json.dumps(self.result(deployment, agents, "large")["data"]["steps"])) > 4_900_000

    @pytest.mark.skipif(not AIRFLOW_3_3, reason="the task state store came with Airflow 3.3")
    def test_an_agent_that_is_cleared_after_its_success_runs_again(self, deployment: Deployment, agents: str) -> None:
        """Last in this class: the other tests count submissions."""
        body = {"dry_run": False, "dag_run_id": agents, "task_ids": ["decorated"], "only_failed": False}
        deployment.airflow.call("POST", "/dags/agents/clearTaskInstances", json=body)
        wait_until(lambda: self.submissions(deployment, "decorated") == 2, "the second submission")
        deployment.airflow.finish("agents", agents)


def test_a_worker_stores_a_large_result(deployment: Deployment) -> None:
    """In the XCom backend, and not by the trigger's event, which Airflow stores in its database."""
    run_id = deployment.finish("large")
    assert deployment.airflow.state("large", run_id) == "success"
    (stored,) = [path for path in deployment.xcoms.rglob("*") if path.is_file() and run_id in str(path)]
    assert len(json.loads(stored.read_text())["data"]) >= 29_000_000
    (run,) = [run for run in deployment.emulator.runs() if len(str(run["payload"].get("data"))) > 1_000_000]
    assert "aiohttp" in " ".join(run["polled_by"])
    assert "requests" in " ".join(run["polled_by"])
    with sqlite3.connect(deployment.airflow.processes.home / "airflow.db") as database:
        (longest,) = database.execute("SELECT max(length(next_kwargs)) FROM task_instance").fetchone()
    assert (longest or 0) < 1_000_000


def test_a_trigger_stores_no_key_and_no_input(deployment: Deployment) -> None:
    """Its row in the database has the poll URL, the Connection's id and times."""
    deployment.start_runs()
    run_id = deployment.airflow.trigger("example_aixplain_run", {"text": "secret-input"})
    query = "SELECT classpath, kwargs FROM trigger JOIN task_instance ON trigger.id = trigger_id WHERE run_id = ?"

    def stored() -> str | None:
        with sqlite3.connect(deployment.airflow.processes.home / "airflow.db") as database:
            row = database.execute(query, [run_id]).fetchone()
        return " ".join(row) if row else None

    trigger = wait_until(stored, "the trigger's row", every=0.05)
    assert trigger.startswith("airflow_provider_aixplain.triggers.aixplain.AixplainModelRunTrigger ")
    for name in (
        "poll_url",
        "aixplain_conn_id",
        "wait_time",
        "timeout",
        "submitted_at",
        f"{deployment.emulator.url}/api/v1",
    ):
        assert name in trigger
    assert "secret-input" not in trigger
    assert deployment.key not in trigger
    deployment.airflow.finish("example_aixplain_run", run_id)


def test_logs_and_database_do_not_contain_the_key(deployment: Deployment, run_id: str) -> None:
    """Last in this file: searches the logs of all runs above, and Airflow's database.

    The database has rendered templates, XComs, triggers and serialized DAGs. One task logs a key on purpose, which
    Airflow masks, except in the copy of the task's log in the scheduler's own log.
    """
    log = deployment.airflow.log("endings", run_id, "indiscreet")
    for sentence in ("The key is ***, of", "The key is ***", "the key is ***"):
        assert sentence in log
    assert LOGGED_KEY not in log
    logs = [path for path in deployment.airflow.processes.home.rglob("*.log*") if path.is_file()]
    assert logs
    for path in logs:
        text = path.read_text(errors="replace")
        assert deployment.key not in text, path
        assert STORED_KEY not in text, path
    with sqlite3.connect(deployment.airflow.processes.home / "airflow.db") as database:
        assert [row for row in database.iterdump() if deployment.key in row] == []
