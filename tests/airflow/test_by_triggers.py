"""Tasks that their triggers end, and start, in a real Airflow that stores XComs itself."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.deployment import AIRFLOW_3, Airflow, Emulator, Processes
from tests.support.public_api import RESPONSE_FIELDS

HERE = Path(__file__).parent


class Line:
    """A finished run of a DAG, and who did what in it."""

    def __init__(self, airflow: Airflow, emulator: Emulator, dag_id: str) -> None:
        self.airflow, self.emulator, self.dag_id = airflow, emulator, dag_id
        self.run_id = airflow.trigger(dag_id)
        airflow.finish(dag_id, self.run_id)

    def tasks(self) -> dict[str, dict[str, Any]]:
        return {f"{ti['task_id']}/{ti['map_index']}": ti for ti in self.airflow.tasks(self.dag_id, self.run_id)}

    def xcoms(self, task_id: str, map_index: int = -1) -> dict[str, Any]:
        return self.airflow.xcoms(self.dag_id, self.run_id, task_id, map_index)

    def log(self, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        return self.airflow.log(self.dag_id, self.run_id, task_id, try_number, map_index)

    def submissions(self, data: Any) -> int:
        return sum(run["payload"]["data"] == data for run in self.emulator.runs())

    def clear(self, task_id: str) -> None:
        body = {"task_ids": [task_id], "dag_run_id": self.run_id, "dry_run": False, "reset_dag_runs": True}
        self.airflow.call("POST", f"/dags/{self.dag_id}/clearTaskInstances", json={**body, "only_failed": False})
        self.airflow.finish(self.dag_id, self.run_id)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Airflow, Emulator]]:
    folder = tmp_path_factory.mktemp("triggers")
    dags = Path(shutil.copytree(HERE / "trigger_dags", folder / "dags"))
    shutil.copy(HERE.parents[1] / "example_dags" / "example_aixplain_no_worker.py", dags)
    with Processes(folder / "airflow") as processes:
        emulator = Emulator(processes, seconds=1)
        connections = {"aixplain_default": emulator.connection}
        airflow = Airflow(processes, dags, connections)
        airflow.start()
        yield airflow, emulator


@pytest.fixture(scope="module")
def line(deployment: tuple[Airflow, Emulator]) -> Line:
    return Line(*deployment, "ended_by_triggers")


@pytest.fixture(scope="module")
def started(deployment: tuple[Airflow, Emulator]) -> Line:
    return Line(*deployment, "started_by_triggers")


DONE = "echo is done after"
"""What the worker writes that takes a result."""


def test_the_states(line: Line) -> None:
    states = {name: ti["state"] for name, ti in line.tasks().items()}
    assert {name for name, state in states.items() if state != "success"} == {"failing/-1"}, states
    assert all(line.submissions(data) == 1 for data in ("a", "b", "fields", "whole", "nothing", "callback"))


@pytest.mark.parametrize(("task_id", "map_index"), [("fields", -1), ("mapped", 0), ("mapped", 1)])
def test_no_worker_takes_the_result_where_airflow_can_and_each_field_is_an_xcom(
    line: Line, task_id: str, map_index: int
) -> None:
    xcoms = line.xcoms(task_id, map_index)
    response = xcoms.pop("return_value")
    assert set(response) == RESPONSE_FIELDS
    assert response["status"] == "SUCCESS"
    assert xcoms == response
    log = line.log(task_id, map_index=map_index)
    assert (DONE in log) == ("as a trigger that ends the task loses its XComs, below Airflow 3.3" in log)
    assert (DONE not in log) == AIRFLOW_3
    task = line.tasks()[f"{task_id}/{map_index}"]
    assert task["duration"] >= 1, "from the submission to the end of the run"


def test_what_comes_after_gets_the_fields(line: Line) -> None:
    assert line.xcoms("passed_on")["return_value"]["data"] == "fields"
    assert line.xcoms("passed_on")["return_value"]["credits"] > 0


def test_only_the_xcoms_that_the_task_asks_for(line: Line) -> None:
    assert set(line.xcoms("whole")) == {"return_value"}
    assert line.xcoms("nothing") == {}
    assert DONE not in line.log("nothing")


def test_what_needs_a_worker_gets_one(line: Line) -> None:
    log = line.log("callback")
    assert log.count("a worker takes the result, as a trigger that ends the task loses its on_success_callback") == 1
    assert "The callback ran for callback" in log
    assert DONE in log
    assert DONE in line.log("large")
    assert len(line.xcoms("large")["return_value"]["data"]) == 300_000


def test_a_failure_keeps_its_retries_and_its_reason(line: Line) -> None:
    assert line.tasks()["failing/-1"]["try_number"] == 2
    for try_number in (1, 2):
        assert "the run failed: " in line.log("failing", try_number)
    assert line.submissions("failing") == 2


@pytest.mark.skipif(not AIRFLOW_3, reason="below Airflow 3.3 a task remembers nothing")
def test_a_task_that_is_cleared_after_its_end_runs_the_model_again(line: Line) -> None:
    line.clear("whole")
    assert line.tasks()["whole/-1"]["state"] == "success"
    assert line.submissions("whole") == 2


def test_the_example(deployment: tuple[Airflow, Emulator]) -> None:
    example = Line(*deployment, "example_aixplain_no_worker")
    assert example.xcoms("analyse")["data"] == "positive"
    assert bool(example.tasks()["analyse/-1"]["hostname"]) != AIRFLOW_3


SUBMITTED = "the run of model echo is at"


class TestStarted:
    def test_the_states(self, started: Line) -> None:
        states = {name: ti["state"] for name, ti in started.tasks().items()}
        failed = {name for name, state in states.items() if state != "success"}
        assert failed == {"failing/-1", "refused/-1", "undefined/-1"}, states

    def test_no_worker_is_needed_where_airflow_can(self, started: Line) -> None:
        """Airflow tells the host of whatever a worker has run."""
        hosts = {name: ti["hostname"] for name, ti in started.tasks().items()}
        by_triggers = {name.partition("/")[0] for name, host in hosts.items() if not host}
        assert by_triggers == ({"rendered", "text", "list"} if AIRFLOW_3 else set())
        for task_id in ("rendered", "text", "list"):
            log = started.log(task_id)
            assert SUBMITTED in log
            assert ("a worker submits the run" not in log) == AIRFLOW_3

    def test_each_submits_once(self, started: Line) -> None:
        for data in (
            ["a param", 5, None],
            "taken",
            "{{ this is no template }}",
            [1, None, True],
            "mapped 0",
            "mapped 1",
            "LARGE " * 50_000,
        ):
            assert started.submissions(data) == (2 if data == "{{ this is no template }}" else 1), data
        assert started.submissions("failing in each try") == 2

    def test_each_field_is_an_xcom(self, started: Line) -> None:
        xcoms = started.xcoms("rendered")
        record = xcoms.pop("aixplain_run", None)
        xcoms.pop("aixplain_submission", None)
        response = xcoms.pop("return_value")
        assert xcoms == response
        assert set(response) == RESPONSE_FIELDS
        assert started.xcoms("passed_on")["return_value"] == ["a param", 5, None]
        if AIRFLOW_3:
            assert record["poll_url"] == response["url"]

    def test_a_worker_takes_what_a_trigger_cannot_end(self, started: Line) -> None:
        assert DONE in started.log("taken")
        assert DONE in started.log("large")
        assert len(started.xcoms("large")["return_value"]["data"]) == 300_000

    @pytest.mark.parametrize(
        ("task_id", "map_index", "why"),
        [
            ("pulled", -1, "its input: ti in a template"),
            ("mapped", 0, "its place among mapped tasks"),
        ],
    )
    def test_a_worker_submits_what_a_trigger_cannot_start(
        self, started: Line, task_id: str, map_index: int, why: str
    ) -> None:
        log = started.log(task_id, map_index=map_index)
        lost = why if AIRFLOW_3 else "its XComs, below Airflow 3.3"
        assert log.count(f"a worker submits the run, as a trigger that starts the task loses {lost}") == 1

    def test_failures_keep_their_retries_and_their_reasons(self, started: Line) -> None:
        assert started.tasks()["failing/-1"]["try_number"] == 2
        assert started.tasks()["refused/-1"]["try_number"] == 1
        for try_number in (1, 2):
            assert "AixplainRunFailed: Model fail: the run failed: this model always fails" in started.log(
                "failing", try_number
            )
        assert "Model nobodys: the submission failed: HTTP 404 (resource)" in started.log("refused")
        assert "AixplainPermanentError" in started.log("refused")
        assert not any("undefined" in str(run["payload"]) for run in started.emulator.runs())

    @pytest.mark.skipif(not AIRFLOW_3, reason="below Airflow 3.3 a task remembers nothing")
    def test_a_task_that_is_cleared_after_its_end_runs_the_model_again(self, started: Line) -> None:
        before = started.xcoms("list")["return_value"]
        started.clear("list")
        assert started.tasks()["list/-1"]["state"] == "success"
        assert started.submissions([1, None, True]) == 2
        assert started.xcoms("list")["return_value"]["url"] != before["url"]
