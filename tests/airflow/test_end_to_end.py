"""The whole line in a real Airflow, with nothing mocked on the way: its processes, its database, its REST API."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.deployment import AIRFLOW_3, FINISHED, Airflow, Emulator, Processes, wait_until
from tests.support.public_api import RESPONSE_FIELDS

ROOT = Path(__file__).parents[2]
RUN_SECONDS = 1.5
TEXTS = 4
TOLD_KEY = "key-that-a-task-tells"


class Line:
    """An emulator and a real Airflow that uses it, its triggerer not yet started."""

    def __init__(self, processes: Processes, dags: Path) -> None:
        self.emulator = Emulator(processes, RUN_SECONDS)
        self.key: str = json.loads(self.emulator.connection)["password"]
        told = {**json.loads(self.emulator.connection), "password": TOLD_KEY}
        connections = {"aixplain_default": self.emulator.connection, "indiscreet": json.dumps(told)}
        self.airflow = Airflow(processes, dags, connections)
        # What Airflow would encrypt in its database is left readable, so that the tests can search it, and the
        # logs hold whatever anybody would ever log.
        processes.env["AIRFLOW__CORE__FERNET_KEY"] = ""
        processes.env["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "DEBUG"
        # A backend of XComs that takes what is large, as teams use it that have such results.
        self.xcoms = processes.home / "xcoms"
        processes.env["AIRFLOW__CORE__XCOM_BACKEND"] = (
            "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend"
        )
        processes.env["AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH"] = f"file://{self.xcoms}"
        processes.env["AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD"] = "1000000"
        self.airflow.start(without=("triggerer",))

    def need_triggerer(self) -> None:
        """Start the triggerer unless it runs."""
        if "triggerer" not in self.airflow.processes.running:
            self.airflow.start_component("triggerer")

    def run(self, dag_id: str, conf: dict[str, Any] | None = None) -> str:
        """Run a DAG to its end and return the run's id."""
        self.need_triggerer()
        run_id = self.airflow.trigger(dag_id, conf)
        self.airflow.finish(dag_id, run_id)
        return run_id

    def run_of(self, response: dict[str, Any]) -> dict[str, Any]:
        """The emulator's journal of the run that a response is about."""
        return next(run for run in self.emulator.runs() if response["url"].endswith(run["id"]))


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    folder = tmp_path_factory.mktemp("line")
    dags = folder / "dags"
    shutil.copytree(ROOT / "example_dags", dags)
    shutil.copytree(ROOT / "tests" / "airflow" / "dags", dags, dirs_exist_ok=True)
    texts = dags / "data" / "reviews.txt"
    texts.write_text("\n".join(texts.read_text(encoding="utf-8").splitlines()[:TEXTS]), encoding="utf-8")
    with Processes(folder / "airflow") as processes:
        yield Line(processes, dags)


def test_it_is_the_triggerer_that_polls(line: Line) -> None:
    """First in this file: the triggerer is not running yet."""
    assert "triggerer" not in line.airflow.processes.running
    run_id = line.airflow.trigger("example_aixplain_run", {"text": "What a wonderful lamp!"})

    def analyse() -> dict[str, Any]:
        return next(ti for ti in line.airflow.tasks("example_aixplain_run", run_id) if ti["task_id"] == "analyse")

    wait_until(lambda: analyse()["state"] == "deferred", "the deferral")
    (run,) = line.emulator.runs()
    wait_until(lambda: time.time() > run["finishes_at"] + 1, "the end of the run on the platform")
    (run,) = line.emulator.runs()
    assert run["polled_at"] == [], "somebody polled before there was a triggerer"
    assert analyse()["state"] == "deferred"
    assert run["payload"] == {"data": "What a wonderful lamp!"}

    line.need_triggerer()
    assert line.airflow.finish("example_aixplain_run", run_id) == "success"
    (run,) = line.emulator.runs()
    assert run["polled_at"]
    assert all("aiohttp" in agent for agent in run["polled_by"])


def test_every_field_of_the_response_arrives(line: Line) -> None:
    run_id = line.run("example_aixplain_run")
    xcoms = line.airflow.xcoms("example_aixplain_run", run_id, "analyse")
    response = xcoms.pop("return_value")
    assert set(response) == RESPONSE_FIELDS
    run = line.run_of(response)
    assert response == {
        "status": "SUCCESS",
        "data": "positive",
        "details": response["details"],
        "completed": True,
        "error_message": "",
        "used_credits": pytest.approx(0.00002 * len(json.dumps(run["payload"]))),
        "run_time": RUN_SECONDS,
        "usage": response["usage"],
        "url": f"{line.emulator.url}/api/v1/data/{run['id']}",
        "error_code": None,
        "asset": {"assetId": "sentiment", "id": "sentiment"},
        "additional_fields": {"requestId": run["id"]},
    }
    assert response["details"]["compound"] > 0.05
    assert response["usage"]["total_tokens"] > 0
    assert xcoms == response, "each field is an XCom of its own name too"
    report = line.airflow.xcoms("example_aixplain_run", run_id, "report")["return_value"]
    assert report == {"data": "positive", "used_credits": response["used_credits"]}


@pytest.mark.parametrize(
    ("dag_id", "task_id", "told"),
    [("example_aixplain_sensor", "report", "de"), ("example_aixplain_decorator", "count", ["negative", "positive"])],
)
def test_the_sensor_and_the_decorator(line: Line, dag_id: str, task_id: str, told: Any) -> None:
    run_id = line.run(dag_id)
    assert line.airflow.state(dag_id, run_id) == "success"
    assert line.airflow.xcoms(dag_id, run_id, task_id)["return_value"] == told


def test_a_batch_is_one_task(line: Line, tmp_path: Path) -> None:
    before = len(line.emulator.runs())
    run_id = line.run("example_aixplain_batch", {"result_path": f"file://{tmp_path}"})
    assert line.airflow.state("example_aixplain_batch", run_id) == "success"
    manifest = line.airflow.xcoms("example_aixplain_batch", run_id, "analyse")["return_value"]
    assert (manifest["rows"], manifest["succeeded"], manifest["orphaned"]) == (24, 24, [])
    counted = line.airflow.xcoms("example_aixplain_batch", run_id, "count")["return_value"]
    assert sum(counted.values()) == 24
    assert len(line.emulator.runs()) == before + 24
    log = line.airflow.log("example_aixplain_batch", run_id, "analyse")
    assert "24 of 24 rows done, 0 of them failed, 0 in flight" in log


def test_mapped_runs_keep_their_order(line: Line) -> None:
    submitted = len(line.emulator.runs())
    run_id = line.run("example_aixplain_mapped")
    assert line.airflow.state("example_aixplain_mapped", run_id) == "success"
    assert len(line.emulator.runs()) == submitted + TEXTS
    texts = line.airflow.xcoms("example_aixplain_mapped", run_id, "read")["return_value"]
    results = []
    for index, text in enumerate(texts):
        response = line.airflow.xcoms("example_aixplain_mapped", run_id, "analyse", index)["return_value"]
        assert line.run_of(response)["payload"] == text
        results.append(response["data"])
    assert results == ["positive", "negative", "positive", "neutral"]
    counted = line.airflow.xcoms("example_aixplain_mapped", run_id, "count")["return_value"]
    assert counted == {"positive": 2, "negative": 1, "neutral": 1}


def test_a_submission_without_waiting(line: Line) -> None:
    run_id = line.run("example_aixplain_submit")
    assert line.airflow.state("example_aixplain_submit", run_id) == "success"
    submitted = line.airflow.xcoms("example_aixplain_submit", run_id, "submit")["return_value"]
    assert (submitted["status"], submitted["completed"]) == ("IN_PROGRESS", False)
    looked = line.airflow.xcoms("example_aixplain_submit", run_id, "look")["return_value"]
    assert looked["status"] in ("IN_PROGRESS", "SUCCESS")
    run = line.run_of(submitted)
    assert [agent for agent in run["polled_by"] if "aiohttp" in agent] == []


def test_a_stream_is_written_to_the_log_and_returned(line: Line) -> None:
    run_id = line.run("example_aixplain_stream", {"text": "It was the best of times. " * 20})
    assert line.airflow.state("example_aixplain_stream", run_id) == "success"
    response = line.airflow.xcoms("example_aixplain_stream", run_id, "write")["return_value"]
    assert set(response) == RESPONSE_FIELDS
    assert (response["status"], response["completed"]) == ("SUCCESS", True)
    assert response["data"].strip() == ("It was the best of times. " * 20).strip()
    assert response["used_credits"] > 0
    written = [
        text for text in line.airflow.log("example_aixplain_stream", run_id, "write").splitlines() if "best" in text
    ]
    assert len(written) > 3


def test_a_file_is_uploaded_and_analysed(line: Line) -> None:
    run_id = line.run("example_aixplain_file")
    assert line.airflow.state("example_aixplain_file", run_id) == "success"
    response = line.airflow.xcoms("example_aixplain_file", run_id, "analyse")["return_value"]
    assert response["data"] == "en"
    link = line.run_of(response)["payload"]["text"]
    assert link.startswith("s3://")
    assert link.endswith("/reviews.txt")


def test_a_training_is_waited_for(line: Line) -> None:
    run_id = line.run("example_aixplain_finetune")
    assert line.airflow.state("example_aixplain_finetune", run_id) == "success"
    trained = line.airflow.xcoms("example_aixplain_finetune", run_id, "trained")["return_value"]
    assert (trained["status"], trained["model_status"], trained["epoch"]) == ("completed", "onboarded", 3)


STORED_KEY = "key-in-the-database"


@pytest.fixture(scope="module")
def run_id(line: Line) -> str:
    """A finished run of the DAG ``endings``, one of whose tasks uses a Connection made as the UI makes them."""
    fields = {"connection_id": "stored", "conn_type": "aixplain", "host": line.emulator.url, "password": STORED_KEY}
    line.airflow.call("POST", "/connections", json=fields)
    return line.run("endings")


class TestEndings:
    def state(self, line: Line, run_id: str, task_id: str) -> tuple[str, int]:
        (task,) = [ti for ti in line.airflow.tasks("endings", run_id) if ti["task_id"] == task_id]
        assert task["state"] in FINISHED
        return task["state"], task["try_number"]

    def test_a_failed_run_fails_in_the_platforms_words(self, line: Line, run_id: str) -> None:
        assert self.state(line, run_id, "failing_run") == ("failed", 1)
        log = line.airflow.log("endings", run_id, "failing_run")
        run = next(run for run in line.emulator.runs() if run["model_id"] == "fail")
        url = f"{line.emulator.url}/api/v1/data/{run['id']}"
        assert f"Model fail: the run failed: this model always fails (poll URL: {url})" in log

    def test_a_run_that_is_too_slow_times_out(self, line: Line, run_id: str) -> None:
        assert self.state(line, run_id, "too_slow") == ("failed", 1)
        log = line.airflow.log("endings", run_id, "too_slow")
        assert "Model echo: stopped waiting; the run goes on: not over after 2 s." in log
        assert f"(poll URL: {line.emulator.url}/api/v1/data/" in log

    def test_a_task_can_wait_on_its_worker(self, line: Line, run_id: str) -> None:
        assert self.state(line, run_id, "on_the_worker") == ("success", 1)
        response = line.airflow.xcoms("endings", run_id, "on_the_worker")["return_value"]
        assert all("requests" in agent for agent in line.run_of(response)["polled_by"])

    def test_what_retrying_cannot_mend_uses_up_no_retries(self, line: Line, run_id: str) -> None:
        assert self.state(line, run_id, "no_such_model") == ("failed", 1)
        assert "Model nope: the submission failed: HTTP 404 (resource): no model nope" in line.airflow.log(
            "endings", run_id, "no_such_model"
        )

    def test_the_response_can_stay_whole(self, line: Line, run_id: str) -> None:
        assert self.state(line, run_id, "whole_response") == ("success", 1)
        assert set(line.airflow.xcoms("endings", run_id, "whole_response")) == {"return_value"}

    def test_values_that_airflow_cannot_hold_do_not_lose_the_result(self, line: Line, run_id: str) -> None:
        assert self.state(line, run_id, "odd_values") == ("success", 1)
        assert line.airflow.xcoms("endings", run_id, "odd_values")["data"] == {
            "big": str(10**30),
            "negative": str(-(10**30)),
            "half a pair": "a\ufffdb",
            "nul": "a\ufffdb",
            "fine": "😀",
        }

    def test_a_connection_can_be_stored_in_airflow(self, line: Line, run_id: str) -> None:
        assert self.state(line, run_id, "stored_connection") == ("success", 1)


@pytest.fixture(scope="module")
def tries(line: Line) -> str:
    """A finished run of the DAG ``tries``."""
    return line.run("tries")


@pytest.mark.skipif(not AIRFLOW_3, reason="the task state store came with Airflow 3.3: below it each try submits")
class TestTries:
    """What the first try has paid for, a later one finds, whatever process was killed in between."""

    def submissions(self, line: Line, text: str) -> int:
        return sum(run["payload"].get("data") == text for run in line.emulator.runs())

    @pytest.mark.parametrize("task_id", ["timed_out", "before_deferral", "with_result"])
    def test_it_is_paid_once_and_delivered(self, line: Line, tries: str, task_id: str) -> None:
        (task,) = [ti for ti in line.airflow.tasks("tries", tries) if ti["task_id"] == task_id]
        assert task["state"] == "success"
        assert task["try_number"] > 1
        assert line.airflow.xcoms("tries", tries, task_id)["data"] == task_id
        assert self.submissions(line, task_id) == 1
        log = line.airflow.log("tries", tries, task_id, try_number=task["try_number"])
        assert "going on with the run of an earlier try" in log

    def test_the_one_gap_is_told(self, line: Line, tries: str) -> None:
        (task,) = [ti for ti in line.airflow.tasks("tries", tries) if ti["task_id"] == "orphan"]
        assert (task["state"], task["try_number"]) == ("success", 2)
        assert self.submissions(line, "orphan") == 2
        log = line.airflow.log("tries", tries, "orphan", try_number=2)
        assert "never learnt whether it was accepted" in log

    def test_a_task_that_is_cleared_after_its_success_runs_again(self, line: Line, tries: str) -> None:
        assert self.submissions(line, "cleared") == 1
        body = {"dry_run": False, "dag_run_id": tries, "task_ids": ["cleared"], "only_failed": False}
        line.airflow.call("POST", "/dags/tries/clearTaskInstances", json=body)
        wait_until(lambda: self.submissions(line, "cleared") == 2, "the second submission")
        assert line.airflow.finish("tries", tries) == "success"


@pytest.fixture(scope="module")
def ended(line: Line) -> str:
    """A run of the DAG ``ended``, whose tasks have been ended as their names say."""
    line.need_triggerer()
    run_id = line.airflow.trigger("ended")

    def reached(task_id: str, state: str) -> None:
        def is_there() -> bool:
            (task,) = [ti for ti in line.airflow.tasks("ended", run_id) if ti["task_id"] == task_id]
            log = line.airflow.log("ended", run_id, task_id) if task["state"] == state else ""
            return "Waiting for the run at" in log or ("is at" in log and state == "running")

        wait_until(is_there, f"{task_id} {state}")

    for task_id, before, after in [
        ("marked_failed", "deferred", "failed"),
        ("marked_success", "deferred", "success"),
        ("on_its_worker", "running", "failed"),
    ]:
        reached(task_id, before)
        line.airflow.call("PATCH", f"/dags/ended/dagRuns/{run_id}/taskInstances/{task_id}", json={"new_state": after})
    reached("cleared_in_its_wait", "deferred")
    body = {"dry_run": False, "dag_run_id": run_id, "task_ids": ["cleared_in_its_wait"], "only_failed": False}
    line.airflow.call("POST", "/dags/ended/clearTaskInstances", json=body)
    line.airflow.finish("ended", run_id)
    return run_id


@pytest.mark.skipif(not AIRFLOW_3, reason="below Airflow 3.3 a trigger does not learn that its task was ended")
class TestEnded:
    """The platform cannot cancel a run: whoever ends its task is told that it goes on, and where."""

    def log(self, line: Line, run_id: str, task_id: str) -> str:
        return line.airflow.log("ended", run_id, task_id)

    def poll_url(self, line: Line, task_id: str) -> str:
        (run,) = [run for run in line.emulator.runs() if run["payload"].get("data") == task_id]
        return f"{line.emulator.url}/api/v1/data/{run['id']}"

    @pytest.mark.parametrize("task_id", ["marked_failed", "marked_success", "cleared_in_its_wait"])
    def test_in_its_wait(self, line: Line, ended: str, task_id: str) -> None:
        told = f"the run goes on, and is billed, as the platform cannot cancel it: {self.poll_url(line, task_id)}"
        wait_until(lambda: told in self.log(line, ended, task_id), "the trigger's last words", 30)

    @pytest.mark.parametrize("task_id", ["on_its_worker", "execution_timeout_on_its_worker"])
    def test_on_its_worker(self, line: Line, ended: str, task_id: str) -> None:
        told = f"Its run goes on, and is billed, as the platform cannot cancel it: {self.poll_url(line, task_id)}"
        wait_until(lambda: told in self.log(line, ended, task_id), "the worker's last words", 30)

    def test_an_execution_timeout_ends_the_wait(self, line: Line, ended: str) -> None:
        log = self.log(line, ended, "execution_timeout")
        assert "stopped waiting; the run goes on: not over after 5" in log
        assert self.poll_url(line, "execution_timeout") in log

    def test_a_cleared_task_gets_the_result_of_its_run(self, line: Line, ended: str) -> None:
        (task,) = [ti for ti in line.airflow.tasks("ended", ended) if ti["task_id"] == "cleared_in_its_wait"]
        assert (task["state"], task["try_number"]) == ("success", 2)
        assert self.poll_url(line, "cleared_in_its_wait")  # one submission, or this raises


def test_a_large_result_takes_the_way_of_the_worker(line: Line) -> None:
    """Not through the trigger's event and Airflow's database, but into the XCom backend."""
    run_id = line.run("large")
    assert line.airflow.state("large", run_id) == "success"
    (stored,) = [path for path in line.xcoms.rglob("*") if path.is_file() and run_id in str(path)]
    assert len(json.loads(stored.read_text())["data"]) >= 29_000_000
    (run,) = [run for run in line.emulator.runs() if len(str(run["payload"].get("data"))) > 1_000_000]
    assert "aiohttp" in " ".join(run["polled_by"])
    assert "requests" in " ".join(run["polled_by"])
    with sqlite3.connect(line.airflow.processes.home / "airflow.db") as database:
        (longest,) = database.execute("SELECT max(length(next_kwargs)) FROM task_instance").fetchone()
    assert (longest or 0) < 1_000_000


def test_what_is_stored_of_a_waiting_task(line: Line) -> None:
    """The trigger's row holds a poll URL, a Connection's id and times: no key and no input."""
    line.need_triggerer()
    run_id = line.airflow.trigger("example_aixplain_run", {"text": "secret-input"})

    def stored() -> str | None:
        with sqlite3.connect(line.airflow.processes.home / "airflow.db") as database:
            row = database.execute("SELECT classpath, kwargs FROM trigger").fetchone()
        return " ".join(row) if row else None

    trigger = wait_until(stored, "the trigger's row", every=0.05)
    assert trigger.startswith("airflow_provider_aixplain.triggers.aixplain.AixplainModelRunTrigger ")
    for name in ("poll_url", "aixplain_conn_id", "wait_time", "timeout", "submitted_at", f"{line.emulator.url}/api/v1"):
        assert name in trigger
    assert "secret-input" not in trigger
    assert line.key not in trigger
    line.airflow.finish("example_aixplain_run", run_id)


def test_the_key_is_nowhere_in_airflow(line: Line, run_id: str) -> None:
    """Last in this file: searches what all runs above have left in logs and database.

    The database is that of Airflow: rendered templates, XComs, triggers, serialized DAGs and all. One task has told a
    key on purpose, which Airflow's masking knows; only the copy of its log in the scheduler's own is not masked.
    """
    told = line.airflow.log("endings", run_id, "indiscreet")
    for sentence in ("The key is ***, of", "The key is ***", "the key is ***"):
        assert sentence in told
    assert TOLD_KEY not in told
    logs = [path for path in line.airflow.processes.home.rglob("*.log*") if path.is_file()]
    assert logs
    for path in logs:
        text = path.read_text(errors="replace")
        assert line.key not in text, path
        assert STORED_KEY not in text, path
    with sqlite3.connect(line.airflow.processes.home / "airflow.db") as database:
        assert [row for row in database.iterdump() if line.key in row] == []
