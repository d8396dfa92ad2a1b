"""Tasks that triggers start and finish, in a real Airflow that stores XComs in its database."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_aixplain.protocol.values import fields_with_values
from tests.support.deployment import AIRFLOW_3, Airflow, Emulator, Processes
from tests.support.public_api import AGENT_FIELDS, RESPONSE_FIELDS

HERE = Path(__file__).parent


class DagRun:
    """A run of a DAG."""

    def __init__(self, airflow: Airflow, emulator: Emulator, dag_id: str) -> None:
        self.airflow, self.emulator, self.dag_id = airflow, emulator, dag_id
        self.run_id = airflow.trigger(dag_id)

    def finish(self) -> DagRun:
        self.airflow.finish(self.dag_id, self.run_id)
        return self

    def tasks(self) -> dict[str, dict[str, Any]]:
        return {f"{ti['task_id']}/{ti['map_index']}": ti for ti in self.airflow.tasks(self.dag_id, self.run_id)}

    def xcoms(self, task_id: str, map_index: int = -1) -> dict[str, Any]:
        return self.airflow.xcoms(self.dag_id, self.run_id, task_id, map_index)

    def log(self, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        return self.airflow.log(self.dag_id, self.run_id, task_id, try_number, map_index)

    def submissions(self, data: Any) -> int:
        return sum(data in (run["payload"].get("data"), run["payload"].get("query")) for run in self.emulator.runs())

    def clear(self, task_id: str) -> None:
        body = {"task_ids": [task_id], "dag_run_id": self.run_id, "dry_run": False, "reset_dag_runs": True}
        self.airflow.call("POST", f"/dags/{self.dag_id}/clearTaskInstances", json={**body, "only_failed": False})
        self.airflow.finish(self.dag_id, self.run_id)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, DagRun]]:
    """One run of each DAG, by DAG id. All run at the same time, as each mostly waits."""
    folder = tmp_path_factory.mktemp("triggers")
    dags = Path(shutil.copytree(HERE / "trigger_dags", folder / "dags"))
    shutil.copy(HERE.parents[1] / "example_dags" / "example_aixplain_no_worker.py", dags)
    with Processes(folder / "airflow") as processes:
        emulator = Emulator(processes, seconds=4)  # longer than a loop of a busy scheduler
        airflow = Airflow(processes, dags, {"aixplain_default": emulator.connection})
        airflow.start()
        names = ("ended_by_triggers", "started_by_triggers", "example_aixplain_no_worker")
        yield {name: DagRun(airflow, emulator, name) for name in names}


@pytest.fixture(scope="module")
def ended(runs: dict[str, DagRun]) -> DagRun:
    return runs["ended_by_triggers"].finish()


@pytest.fixture(scope="module")
def started(runs: dict[str, DagRun]) -> DagRun:
    return runs["started_by_triggers"].finish()


DONE = "echo succeeded after"
"""Logged by a worker that returns a result."""


def test_all_tasks_succeed_except_the_failing_one(ended: DagRun) -> None:
    states = {name: ti["state"] for name, ti in ended.tasks().items()}
    assert {name for name, state in states.items() if state != "success"} == {"failing/-1"}, states
    assert all(ended.submissions(data) == 1 for data in ("a", "b", "fields", "whole", "nothing", "callback"))


@pytest.mark.parametrize(("task_id", "map_index"), [("fields", -1), ("mapped", 0), ("mapped", 1), ("agent", -1)])
def test_the_trigger_finishes_the_task_and_pushes_xcoms(ended: DagRun, task_id: str, map_index: int) -> None:
    xcoms = ended.xcoms(task_id, map_index)
    response = xcoms.pop("return_value")
    assert set(response) == (AGENT_FIELDS if task_id == "agent" else RESPONSE_FIELDS)
    assert response["status"] == "SUCCESS"
    assert xcoms == fields_with_values(response)
    log = ended.log(task_id, map_index=map_index)
    done = "agent echo-agent succeeded after" if task_id == "agent" else DONE
    assert (done in log) == ("as a trigger would lose its XComs, below Airflow 3.3" in log)
    assert (done not in log) == AIRFLOW_3
    task = ended.tasks()[f"{task_id}/{map_index}"]
    assert task["duration"] >= 1, "from the submission until the run has finished"


def test_downstream_tasks_read_the_fields(ended: DagRun) -> None:
    assert ended.xcoms("passed_on")["return_value"]["data"] == "fields"
    assert ended.xcoms("passed_on")["return_value"]["credits"] > 0


def test_no_other_xcoms_are_pushed_than_requested(ended: DagRun) -> None:
    assert set(ended.xcoms("whole")) == {"return_value"}
    assert ended.xcoms("nothing") == {}
    assert DONE not in ended.log("nothing")


def test_a_worker_finishes_tasks_that_need_one(ended: DagRun) -> None:
    log = ended.log("callback")
    assert log.count("a worker finishes the task, as a trigger would lose its on_success_callback") == 1
    assert "The callback ran for callback" in log
    assert DONE in log
    assert DONE in ended.log("large")
    assert len(ended.xcoms("large")["return_value"]["data"]) == 300_000


def test_a_failure_is_retried_and_logs_its_reason(ended: DagRun) -> None:
    assert ended.tasks()["failing/-1"]["try_number"] == 2
    for try_number in (1, 2):
        assert "the run failed: " in ended.log("failing", try_number)
    assert ended.submissions("failing") == 2


@pytest.mark.skipif(not AIRFLOW_3, reason="the task state store came with Airflow 3.3")
def test_a_cleared_finished_task_runs_the_model_again(ended: DagRun) -> None:
    ended.clear("whole")
    assert ended.tasks()["whole/-1"]["state"] == "success"
    assert ended.submissions("whole") == 2


def test_the_example_needs_no_worker(runs: dict[str, DagRun]) -> None:
    example = runs["example_aixplain_no_worker"].finish()
    assert example.xcoms("analyse")["data"] == "positive"
    assert bool(example.tasks()["analyse/-1"]["hostname"]) != AIRFLOW_3


class TestStarted:
    def test_all_tasks_succeed_except_the_failing_ones(self, started: DagRun) -> None:
        states = {name: ti["state"] for name, ti in started.tasks().items()}
        failed = {name for name, state in states.items() if state != "success"}
        assert failed == {"failing/-1", "refused/-1", "undefined/-1"}, states

    def test_triggers_start_tasks_without_a_worker(self, started: DagRun) -> None:
        """Airflow stores the host name of a task that a worker has run."""
        hosts = {name: ti["hostname"] for name, ti in started.tasks().items()}
        by_triggers = {name.partition("/")[0] for name, host in hosts.items() if not host}
        assert by_triggers == ({"rendered", "text", "list", "agent"} if AIRFLOW_3 else set())
        for task_id in ("rendered", "text", "list", "agent"):
            log = started.log(task_id)
            assert "submitted a run of " in log
            assert ("a worker submits the run" not in log) == AIRFLOW_3

    def test_each_task_submits_once(self, started: DagRun) -> None:
        for data in (
            ["a param", 5, None],
            "taken",
            "{{ this is no template }}",
            [1, None, True],
            "mapped 0",
            "mapped 1",
            "LARGE " * 50_000,
            {"input": "asked a param", "steps": 2},
        ):
            assert started.submissions(data) == (2 if data == "{{ this is no template }}" else 1), data
        assert started.submissions("failing in each try") == 2

    def test_each_field_is_an_xcom(self, started: DagRun) -> None:
        xcoms = started.xcoms("rendered")
        record = xcoms.pop("aixplain_run", None)
        xcoms.pop("aixplain_submission", None)
        response = xcoms.pop("return_value")
        assert xcoms == fields_with_values(response)
        assert set(response) == RESPONSE_FIELDS
        agent = started.xcoms("agent")
        assert set(agent["return_value"]) == AGENT_FIELDS
        assert (agent["output"], len(agent["data"]["steps"])) == ("asked a param", 2)
        assert started.xcoms("passed_on")["return_value"] == ["a param", 5, None]
        if AIRFLOW_3:
            assert record["poll_url"] == response["url"]

    def test_a_worker_finishes_what_a_trigger_cannot(self, started: DagRun) -> None:
        assert DONE in started.log("taken")
        assert DONE in started.log("large")
        assert len(started.xcoms("large")["return_value"]["data"]) == 300_000

    @pytest.mark.parametrize(
        ("task_id", "map_index", "reason"),
        [
            ("pulled", -1, "its input: ti in a template"),
            ("mapped", 0, "its place among mapped tasks"),
        ],
    )
    def test_a_worker_submits_what_a_trigger_cannot(
        self, started: DagRun, task_id: str, map_index: int, reason: str
    ) -> None:
        log = started.log(task_id, map_index=map_index)
        lost = reason if AIRFLOW_3 else "its XComs, below Airflow 3.3"
        assert log.count(f"a worker submits the run, as a trigger would lose {lost}") == 1

    def test_failures_are_retried_and_log_their_reasons(self, started: DagRun) -> None:
        assert started.tasks()["failing/-1"]["try_number"] == 2
        assert started.tasks()["refused/-1"]["try_number"] == 1
        for try_number in (1, 2):
            assert "AixplainRunFailed: Model fail: the run failed: this model always fails" in started.log(
                "failing", try_number
            )
        assert "Model nobodys: the submission failed: HTTP 404 (resource)" in started.log("refused")
        assert "AixplainPermanentError" in started.log("refused")
        assert not any("undefined" in str(run["payload"]) for run in started.emulator.runs())

    @pytest.mark.skipif(not AIRFLOW_3, reason="the task state store came with Airflow 3.3")
    def test_a_cleared_finished_task_runs_the_model_again(self, started: DagRun) -> None:
        before = started.xcoms("list")["return_value"]
        started.clear("list")
        assert started.tasks()["list/-1"]["state"] == "success"
        assert started.submissions([1, None, True]) == 2
        assert started.xcoms("list")["return_value"]["url"] != before["url"]
