"""Tasks that their triggers end, in a real Airflow that stores XComs itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.deployment import AIRFLOW_3, Airflow, Emulator, Processes
from tests.public_api import RESPONSE_FIELDS

DAG_ID = "ended_by_triggers"


class Line:
    """A finished run of the DAG, and who did what in it."""

    def __init__(self, processes: Processes) -> None:
        self.emulator = Emulator(processes, seconds=1)
        connections = {"aixplain_default": self.emulator.connection}
        self.airflow = Airflow(processes, Path(__file__).parent / "trigger_dags", connections)
        self.airflow.start()
        self.run_id = self.airflow.trigger(DAG_ID)
        self.airflow.finish(DAG_ID, self.run_id)

    def tasks(self) -> dict[str, dict[str, Any]]:
        return {f"{ti['task_id']}/{ti['map_index']}": ti for ti in self.airflow.tasks(DAG_ID, self.run_id)}

    def xcoms(self, task_id: str, map_index: int = -1) -> dict[str, Any]:
        return self.airflow.xcoms(DAG_ID, self.run_id, task_id, map_index)

    def log(self, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        return self.airflow.log(DAG_ID, self.run_id, task_id, try_number, map_index)

    def submissions(self, data: str) -> int:
        return sum(run["payload"]["data"] == data for run in self.emulator.runs())


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    with Processes(tmp_path_factory.mktemp("ended") / "airflow") as processes:
        yield Line(processes)


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
    body = {"task_ids": ["whole"], "dag_run_id": line.run_id, "dry_run": False, "reset_dag_runs": True}
    line.airflow.call("POST", f"/dags/{DAG_ID}/clearTaskInstances", json={**body, "only_failed": False})
    line.airflow.finish(DAG_ID, line.run_id)
    assert line.tasks()["whole/-1"]["state"] == "success"
    assert line.submissions("whole") == 2
