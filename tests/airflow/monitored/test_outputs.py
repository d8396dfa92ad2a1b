"""What a task leaves in Airflow beside its result: lineage and asset events.

The last module of its folder: it adds to the metrics that another one counts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.deployment import AIRFLOW_3, wait_until
from tests.support.monitored import Monitored

DAG = "traced"


@pytest.fixture(scope="module")
def run_id(monitored: Monitored) -> str:
    """A run of the DAG ``traced``."""
    return monitored.airflow.trigger(DAG)


@pytest.fixture(scope="module")
def finished(monitored: Monitored, run_id: str) -> str:
    """The same run when it has finished."""
    monitored.airflow.finish(DAG, run_id)
    states = {(ti["task_id"], ti["state"]) for ti in monitored.airflow.tasks(DAG, run_id)}
    expected = {"batch": "success", "failed_batch": "failed", "agent": "success"}
    assert states == set(expected.items())
    return run_id


def dataset(path: str) -> dict[str, str]:
    return {"namespace": "file", "name": path}


def names(datasets: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [{name: value for name, value in found.items() if name in ("namespace", "name")} for found in datasets]


class TestLineage:
    def event(self, monitored: Monitored, task_id: str) -> dict[str, Any]:
        found: dict[str, Any] = wait_until(
            lambda: monitored.lineage_events().get(f"{DAG}.{task_id}"), f"the event of {task_id}", 60
        )
        return found

    @pytest.mark.parametrize(("task_id", "state", "succeeded"), [("batch", "COMPLETE", 3), ("failed_batch", "FAIL", 0)])
    def test_a_batch_reads_its_input_and_writes_results(
        self, monitored: Monitored, finished: str, task_id: str, state: str, succeeded: int
    ) -> None:
        event = self.event(monitored, task_id)
        home, rows = monitored.airflow.processes.home, f"{monitored.dags}/rows.jsonl"
        folder = "batch" if task_id == "batch" else "failed"
        assert event["eventType"] == state
        assert names(event["inputs"]) == [dataset(rows)]
        assert names(event["outputs"]) == [dataset(f"{home}/traced/{folder}/results.jsonl")]
        facet = event["run"]["facets"]["aixplain_run"]
        assert (facet["rows"], facet["succeeded"], facet["failed"]) == (3, succeeded, 3 - succeeded)
        manifest = json.loads(Path(f"{home}/traced/{folder}/manifest.json").read_text())
        assert (facet["usedCredits"], facet["runTime"]) == (manifest["credits"], manifest["run_time"])

    def test_an_agent_reads_uploads_and_writes_artifacts(self, monitored: Monitored, finished: str) -> None:
        event = self.event(monitored, "agent")
        assert names(event["inputs"]) == [dataset(f"{monitored.dags}/rows.jsonl")]
        assert names(event["outputs"]) == [dataset(f"{monitored.airflow.processes.home}/traced/artifacts")]
        assert event["run"]["facets"]["aixplain_run"]["agentId"] == "echo-agent"


def test_asset_events_have_the_cost(monitored: Monitored, finished: str) -> None:
    kind = "asset" if AIRFLOW_3 else "dataset"
    events = monitored.airflow.call("GET", f"/{kind}s/events", params={"source_dag_id": DAG})[f"{kind}_events"]
    extra = {event["source_task_id"]: event["extra"]["aixplain"] for event in events}
    assert set(extra) == {"agent", "batch"}, "failed tasks have no events"
    response = monitored.airflow.xcoms(DAG, finished, "agent", keys=["used_credits", "run_time"])
    assert extra["agent"] == {
        "agent_id": "echo-agent",
        "credits": pytest.approx(response["used_credits"]),
        "run_time": response["run_time"],
    }
    manifest = monitored.airflow.xcoms(DAG, finished, "batch", keys=["return_value"])["return_value"]
    figures = {name: manifest[name] for name in ("credits", "run_time", "rows", "succeeded", "failed", "path")}
    assert extra["batch"] == {"model_id": "echo", **figures}
