"""What a task leaves in Airflow besides its result: lineage, asset events and links; and pools that limit its runs.

The last module of its folder: it adds to the metrics that another one counts.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.deployment import AIRFLOW_3, wait_until
from tests.support.monitored import Monitored

DAG = "traced"


@pytest.fixture(scope="module")
def linked(monitored: Monitored) -> str | None:
    """A run of the DAG ``linked``, which has just started; None on Airflow 2."""
    return monitored.airflow.trigger("linked") if AIRFLOW_3 else None


@pytest.fixture(scope="module")
def run_id(monitored: Monitored, linked: str | None) -> str:
    """A run of the DAG ``traced``, with which a run of ``linked`` has started."""
    pool = {"name": "two_runs", "slots": 2, "include_deferred": True}
    monitored.airflow.call("POST", "/pools", json=pool)
    return monitored.airflow.trigger(DAG)


@pytest.fixture(scope="module")
def finished(monitored: Monitored, run_id: str) -> str:
    """The same run when it has finished."""
    monitored.airflow.finish(DAG, run_id)
    states = {(ti["task_id"], ti["state"]) for ti in monitored.airflow.tasks(DAG, run_id)}
    expected = {"batch": "success", "failed_batch": "failed", "agent": "success", "pooled": "success"}
    assert states == set(expected.items())
    return run_id


def links(monitored: Monitored, dag_id: str, run_id: str, task_id: str, **query: int) -> dict[str, str | None]:
    path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/links"
    found = monitored.airflow.call("GET", path, params=query)
    shown: dict[str, str | None] = found["extra_links"] if AIRFLOW_3 else found
    return shown


@pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2 runs one task at a time here")
class TestLinksOfATask:
    """In the order of the states. A link without URL is not shown."""

    def wait_for(self, monitored: Monitored, run_id: str, task_id: str, condition: Callable[[Any], Any]) -> None:
        def is_reached() -> bool:
            return all(condition(ti) for ti in monitored.airflow.tasks("linked", run_id) if ti["task_id"] == task_id)

        wait_until(is_reached, f"{task_id}: the state")

    @pytest.mark.parametrize(
        ("task_id", "condition", "has_page"),
        [
            ("running", lambda ti: ti["state"] == "running", False),
            ("deferred", lambda ti: ti["state"] == "deferred", True),
            ("failed", lambda ti: ti["try_number"] == 2 and ti["state"] == "failed", True),
            ("deferred", lambda ti: ti["state"] == "success", True),
        ],
        ids=["running", "deferred", "failed", "succeeded"],
    )
    def test_no_link_leads_nowhere(
        self, monitored: Monitored, run_id: str, linked: str, task_id: str, condition: Any, has_page: bool
    ) -> None:
        self.wait_for(monitored, linked, task_id, condition)
        model = "fail" if task_id == "failed" else "echo"
        page = f"{monitored.emulator.url}/discover/model/{model}" if has_page else None
        usage = f"{monitored.airflow.url}/plugin/aixplain?dag_id=linked"
        expected = {"aiXplain page": page, "aiXplain usage": usage}
        assert links(monitored, "linked", linked, task_id) == expected
        if task_id == "failed":
            assert links(monitored, "linked", linked, task_id, try_number=1) == expected

    @pytest.mark.parametrize("index", [0, 1])
    def test_mapped_tasks_have_links_of_their_own(self, monitored: Monitored, linked: str, index: int) -> None:
        self.wait_for(monitored, linked, "decorated", lambda ti: ti["state"] == "success")
        shown = links(monitored, "linked", linked, "decorated", map_index=index)
        assert {name for name, url in shown.items() if url} == {"aiXplain page", "aiXplain usage"}


@pytest.mark.parametrize("task_id", ["batch", "failed_batch"])
def test_a_batch_links_to_its_results_and_manifest(monitored: Monitored, finished: str, task_id: str) -> None:
    shown = links(monitored, DAG, finished, task_id)
    base = f"{monitored.airflow.url}/dags/{DAG}"
    page = (
        f"{base}/runs/{finished}/tasks/{task_id}/xcom"
        if AIRFLOW_3
        else f"{base}/grid?dag_run_id={finished}&task_id={task_id}&tab=xcom"
    )
    assert (shown.pop("Results"), shown.pop("Manifest")) == (page, page), "a browser cannot open file://"
    assert set(shown) == ({"aiXplain usage"} if AIRFLOW_3 else set())


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


def test_a_pool_limits_the_paid_runs_in_flight(monitored: Monitored, finished: str) -> None:
    runs = [run for run in monitored.emulator.runs() if "pooled" in str(run["payload"].get("data"))]
    assert len(runs) == 4
    moments = [(run[name], step) for run in runs for name, step in (("submitted_at", 1), ("finishes_at", -1))]
    in_flight, most = 0, 0
    for _, step in sorted(moments):
        in_flight += step
        most = max(most, in_flight)
    assert most <= 2
