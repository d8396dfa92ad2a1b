"""The batch operator: what it reads, when it fails, what it returns."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, ObjectStoragePath, TaskDeferred
from fsspec.implementations.local import LocalFileSystem

from airflow_provider_aixplain.batch.batch import read_results
from airflow_provider_aixplain.exceptions import (
    AixplainError,
    AixplainInputError,
    AixplainPermanentError,
    AixplainRunFailed,
)
from airflow_provider_aixplain.operators.batch import AixplainBatchRunOperator
from tests.support.deployment import Emulator, wait_until
from tests.support.task_log import TaskLog
from tests.unit.batch.batches import fail_calls, submitted
from tests.unit.operators.test_aixplain import Tries

pytestmark = pytest.mark.usefixtures("connection")
CONTEXT: Any = {}
NOW = {"parameters": {"delay": 0}, "deferrable": False, "wait_time": 0.2}


def batch(place: Path | str, source: Any, **arguments: Any) -> AixplainBatchRunOperator:
    """An operator whose results are in a folder, named by its URI, or in ``out`` in a local folder."""
    result_path = f"file://{place}/out" if isinstance(place, Path) else place
    arguments = {"task_id": "batch", "model_id": "echo", "result_path": result_path, **NOW, **arguments}
    return AixplainBatchRunOperator(input=source, **arguments)


def results_at(place: str) -> list[dict[str, Any]]:
    return list(map(json.loads, ObjectStoragePath(f"{place}/results.jsonl").read_text().splitlines()))


def test_it_returns_a_manifest(place: str) -> None:
    manifest = batch(place, '["a", "b", "c"]').execute(CONTEXT)  # a template may render a list as a string
    expected = {"rows": 3, "succeeded": 3, "failed": 0, "bad_rows": 0, "first_bad_rows": [], "orphaned": []}
    assert {**expected, "path": f"{place}/results.jsonl"}.items() <= manifest.items()
    assert manifest["credits"] > 0
    assert manifest["tokens"] > 0
    assert {line["key"]: line["data"] for line in results_at(place)} == {1: "a", 2: "b", 3: "c"}
    assert json.loads(ObjectStoragePath(f"{place}/manifest.json").read_text()) == manifest


def test_it_defers_to_a_trigger_without_the_input(tmp_path: Path) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        batch(tmp_path, ["a", "b"], deferrable=True, max_in_flight=7).execute(CONTEXT)
    _, stored = deferred.value.trigger.serialize()
    assert stored["result_path"] == f"file://{tmp_path}/out"
    assert stored["limits"]["max_in_flight"] == 7
    assert set(stored) == {"result_path", "batch", "model_id", "aixplain_conn_id", "limits", "usage", "asset_page"}
    assert deferred.value.method_name == "execute_complete"

    event = {"batch": stored["batch"], "error": None}
    other = batch(tmp_path, ["b"], on_changed_input="restart")
    other.execute(CONTEXT)
    with pytest.raises(AixplainError, match="Another batch") as raised:
        batch(tmp_path, ["a"]).execute_complete(CONTEXT, event)
    assert not isinstance(raised.value, AirflowFailException), "a retry reads the new batch"
    assert other.execute(CONTEXT)["succeeded"] == 1, "and its results are still there"


def test_text_of_a_file_is_sent_as_text(tmp_path: Path, emulator: Emulator, tag: str) -> None:
    cells = [f'{{"data": "{tag}", "max_tokens": 100000}}', f" {tag} 1E5 ", f'"{tag}"']
    lines = (json.dumps({"id": f"row {number}", "text": cell}) for number, cell in enumerate(cells))
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    source = f"file://{tmp_path}/in.jsonl"
    manifest = batch(tmp_path, source, key="id", data="text", parameters={}).execute(CONTEXT)
    sent = [run["payload"] for run in emulator.runs() if tag in str(run["payload"].get("data"))]
    assert sorted(sent, key=str) == sorted(({"data": cell} for cell in cells), key=str)
    assert {result["key"] for result in read_results(manifest["path"])} == {"row 0", "row 1", "row 2"}


def test_results_repeat_columns_of_the_input(place: str) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet is an extra")
    source = [{"text": "a", "label": "x", "n": 1}, {"text": {"b": 1}, "label": None, "n": "\ud800"}]
    arguments: dict[str, Any] = {"data": "text", "include_columns": ["label", "n"]}
    batch(place, source, **arguments).execute(CONTEXT)
    lines = sorted(results_at(place), key=lambda line: line["row"])
    assert [line["input"] for line in lines] == [{"label": "x", "n": 1}, {"label": None, "n": "\ud800"}]
    manifest = batch(place, source, result_format="parquet", **arguments).execute(CONTEXT)
    assert manifest["path"] == f"{place}/results.parquet"
    with ObjectStoragePath(manifest["path"]).open("rb") as file:
        rows = sorted(parquet.read_table(file).to_pylist(), key=lambda row: row["row"])
    assert [row["input"] for row in rows] == [{"label": "x", "n": "1"}, {"label": None, "n": "\ufffd"}]
    assert [(row["key"], row["data"]) for row in rows] == [("1", '"a"'), ("2", '{"b": 1}')]
    assert all(row["used_credits"] > 0 for row in rows)
    with pytest.raises(AixplainInputError, match="holds the batch of another input"):
        batch(place, source, **{**arguments, "include_columns": ["n"]}).execute(CONTEXT)


@pytest.mark.parametrize(
    ("kind", "name", "error", "named"),
    [
        (LocalFileSystem, "isfile", OSError(5, "Input/output error"), "cannot be read now: .*Input/output error"),
        (Path, "mkdir", OSError(28, "No space left on device"), "No space left on device"),
        (Path, "mkdir", OSError(30, "Read-only file system"), "result_path.*Read-only file system"),
        (Path, "mkdir", PermissionError(13, "Permission denied"), "result_path.*Permission denied"),
    ],
)
def test_a_storage_error_is_final_only_if_it_lasts(
    tmp_path: Path, kind: Any, name: str, error: OSError, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.csv").write_text("text\na\n")
    fail_calls(monkeypatch, kind, name, range(100), error)
    with pytest.raises((OSError, AixplainError), match=named) as raised:
        batch(tmp_path, f"file://{tmp_path}/in.csv").execute(CONTEXT)
    assert isinstance(raised.value, AixplainInputError) is named.startswith("result_path")
    assert isinstance(raised.value, AirflowFailException) is named.startswith("result_path")


@pytest.mark.parametrize(
    ("source", "arguments", "named"),
    [
        ("in.csv", {}, "input is 'in.csv': give a list, or a URI"),
        ([], {}, "input has no rows"),
        ('["a", ', {}, "invalid JSON: Expecting value"),
        ('[{"a": 1, "a": 2}]', {}, "invalid JSON: an object has two members named 'a'"),
        (7, {}, "input is a int"),
        ("nowhere://b/a.csv", {}, "Airflow has no filesystem for nowhere://"),
        (b'text\na\n"b\nc\n', {"on_bad_row": "skip"}, "line 3: unexpected end of data"),
        (b"text\na\n", {"data": "txt", "on_bad_row": "skip"}, "it has no column 'txt'; there are 'text'$"),
        (b"text\na\n", {"include_columns": ["id"]}, "it has no column 'id'; there are 'text'$"),
        (b"text\na\n", {"include_columns": "text"}, "include_columns is 'text': give a list"),
        (b"text\na\n", {"include_columns": [5]}, "include_columns is .5.: give a list"),
        ([1], {"result_path": "/data/out"}, "result_path is '/data/out': give the URI"),
        ([1], {"result_path": "file://data/out"}, "result_path is 'file://data/out': give the URI"),
        ([1], {"result_path": "s3://"}, "result_path is 's3://': give the URI"),
        ([1], {"result_path": "s3://b/[1]/*"}, r"leave out \* \[ \]"),
        ([1], {"result_path": "nowhere://b/a"}, "Airflow has no filesystem for nowhere://"),
        ([1], {"model_id": ""}, "model_id is ''"),
    ],
)
def test_bad_input_costs_nothing(tmp_path: Path, emulator: Emulator, source: Any, arguments: Any, named: str) -> None:
    if isinstance(source, bytes):
        (tmp_path / "in.csv").write_bytes(source)
        source, arguments = f"file://{tmp_path}/in.csv", {"data": "text", **arguments}
    before = len(emulator.runs())
    with pytest.raises(AixplainInputError, match=named):
        batch(tmp_path, source, **arguments).execute(CONTEXT)
    assert len(emulator.runs()) == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"max_in_flight": 0}, "max_in_flight is 0"),
        ({"max_in_flight": 1.5}, "max_in_flight is 1.5"),
        ({"max_per_second": -1}, "max_per_second is -1"),
        ({"max_credits": True}, "max_credits is True"),
        ({"on_bad_row": "ignore"}, "on_bad_row is 'ignore': use fail or skip"),
        ({"on_changed_input": "ask"}, "on_changed_input is 'ask'"),
        ({"fail_on": "some"}, "fail_on is 'some'"),
        ({"fail_on": 1.5}, "fail_on is 1.5"),
        ({"result_format": "csv"}, "result_format is 'csv'"),
        ({"wait_time": -1}, "wait_time is -1"),
    ],
)
def test_bad_arguments_are_named_when_the_dag_is_read(tmp_path: Path, arguments: Any, named: str) -> None:
    with pytest.raises(AixplainInputError, match=named):
        batch(tmp_path, ["a"], **arguments)


@pytest.mark.parametrize("folder", ["", "/out", "/out/1"])
def test_a_result_path_in_the_input_is_refused(place: str, folder: str) -> None:
    source = ObjectStoragePath(f"{place}/in")
    source.fs.makedirs(str(source.path), exist_ok=True)
    source.fs.pipe_file(f"{source.path}/a.jsonl", b'"a"\n')
    with pytest.raises(AixplainInputError, match=r"result_path is .* which is in the input"):
        batch(f"{place}/in{folder}/", f"{place}/in/").execute(CONTEXT)
    for outside in (f"{place}/in-out", f"{place}/in/_out"):
        assert batch(outside, f"{place}/in").execute(CONTEXT)["rows"] == 1


def test_bad_rows_fail_it_before_anything_is_submitted(tmp_path: Path, emulator: Emulator, tag: str) -> None:
    with pytest.raises(
        AixplainInputError, match=r"input has bad rows, 3 in all, .*: line 2, line 3: data is None.*; line 4: "
    ):
        batch(tmp_path, [tag, None, None, {"a": {1}}]).execute(CONTEXT)
    assert submitted(emulator, tag) == {}
    manifest = batch(tmp_path, [tag, None], on_bad_row="skip").execute(CONTEXT)
    assert (manifest["rows"], manifest["bad_rows"]) == (1, 1)
    assert manifest["first_bad_rows"][0].startswith("line 2: data is None")


def test_a_retry_or_a_clear_repeats_no_row(place: str, emulator: Emulator, tag: str, task_log: TaskLog) -> None:
    texts = [f"{tag} 1", f"{tag} 2"]
    for _ in range(3):
        assert batch(place, texts).execute(CONTEXT)["succeeded"] == 2
    assert submitted(emulator, tag) == Counter(texts)
    line = next(line for line in task_log.lines(logging.INFO) if "nothing to run" in line)
    assert line.startswith(f"All 2 rows at {place}")


def test_a_timeout_of_the_task_awaits_the_answers_in_flight(tmp_path: Path, emulator: Emulator, tag: str) -> None:
    """As with ``execution_timeout``: Airflow raises an error from a signal handler in the main thread."""

    class TaskTimeout(BaseException):
        pass

    def raise_timeout(*_: Any) -> None:
        raise TaskTimeout

    def interrupt() -> None:
        wait_until(lambda: submitted(emulator, tag), "a submission", every=0.01)
        os.kill(os.getpid(), signal.SIGALRM)

    texts = [f"{tag} {number}" for number in range(20)]
    task = batch(tmp_path, texts, parameters={"delay": 1}, max_in_flight=10)
    before = signal.signal(signal.SIGALRM, raise_timeout)
    emulator.set_faults(submission_seconds=0.5)
    try:
        with ThreadPoolExecutor() as pool:
            pool.submit(interrupt)
            with pytest.raises(TaskTimeout):
                task.execute(CONTEXT)
    finally:
        emulator.set_faults()
        signal.signal(signal.SIGALRM, before)
    manifest = task.execute(CONTEXT)
    assert (manifest["succeeded"], manifest["orphaned"]) == (20, [])
    assert submitted(emulator, tag) == Counter(texts)


def test_input_that_has_changed_is_noticed(place: str, emulator: Emulator, tag: str) -> None:
    old, new = f"{tag} 1", f"{tag} 2"
    batch(place, [old]).execute(CONTEXT)
    for source, model_id in (([new], "echo"), ([old], "language")):
        with pytest.raises(AixplainInputError, match="holds the batch of another input, model or endpoint"):
            batch(place, source, model_id=model_id).execute(CONTEXT)
    assert submitted(emulator, tag) == {old: 1}
    manifest = batch(place, [new], on_changed_input="restart").execute(CONTEXT)
    assert (manifest["rows"], manifest["succeeded"]) == (1, 1)
    assert submitted(emulator, tag) == {old: 1, new: 1}
    assert [result["data"] for result in read_results(place)] == [new]


@pytest.mark.parametrize(
    ("fail_on", "failed", "fails"),
    [("any", 0, False), ("any", 1, True), ("all", 3, False), ("all", 4, True), (0.5, 2, False), (0.5, 3, True)],
)
def test_when_failed_rows_fail_it(tmp_path: Path, fail_on: Any, failed: int, fails: bool) -> None:
    assert batch(tmp_path, ["a"], fail_on=fail_on)._has_failed(4, failed) is fails


def test_failed_rows_fail_it_and_are_tried_again(place: str, emulator: Emulator, tag: str, task_log: TaskLog) -> None:
    texts, reason, spent = [f"{tag} 1", f"{tag} 2"], "The first error, of 2 rows: this model always fails", [0.0]
    for _ in range(2):
        with pytest.raises(AixplainRunFailed, match=f"0 of 2 rows succeeded.*fail_on is any. {reason}: ") as raised:
            batch(place, texts, model_id="fail").execute(CONTEXT)
        assert not isinstance(raised.value, AirflowFailException)
        manifest = json.loads(ObjectStoragePath(f"{place}/manifest.json").read_text())
        assert (manifest["succeeded"], manifest["failed"]) == (0, 2)
        spent.append(manifest["credits"])
    assert reason in str(task_log)
    assert submitted(emulator, tag) == Counter(texts * 2)
    assert spent[0] < spent[1] < spent[2], "failed attempts are paid for"


def test_rows_that_cannot_succeed_fail_it_without_retry(tmp_path: Path) -> None:
    with pytest.raises(AixplainPermanentError, match="1 failed"):
        batch(tmp_path, ["a"], model_id="nobodys").execute(CONTEXT)


def test_spent_credits_end_it_until_the_limit_is_higher(tmp_path: Path, emulator: Emulator, tag: str) -> None:
    texts = [f"{tag} {number}" for number in range(6)]
    with pytest.raises(AixplainPermanentError, match=r"max_credits is 1e-05.*rows are left\. Raise it"):
        batch(tmp_path, texts, max_credits=1e-5, max_in_flight=1).execute(CONTEXT)
    assert submitted(emulator, tag) == {texts[0]: 1}
    assert batch(tmp_path, texts, max_credits=1).execute(CONTEXT)["succeeded"] == 6
    assert submitted(emulator, tag) == Counter(texts)


def test_resuming_without_an_event_is_a_clear_error(tmp_path: Path) -> None:
    """As when ``airflow dags test`` and a scheduler use one database."""
    with pytest.raises(AixplainError, match=r"use another AIRFLOW_HOME for it\. A retry") as raised:
        batch(tmp_path, ["a"]).resume_execution("execute_complete", {}, CONTEXT)
    assert not isinstance(raised.value, AirflowFailException)


def test_the_usage_of_a_replaced_batch_is_kept(tmp_path: Path) -> None:
    """The record counts a resumed batch once, and adds a batch that replaces it."""
    tries = Tries()
    context: Any = {"ti": tries, "task_state_store": tries.store}

    def run(texts: list[str], **arguments: Any) -> Decimal:
        return Decimal(repr(batch(tmp_path, texts, **arguments).execute(context)["credits"]))

    first = run(["a", "b"])
    assert run(["a", "b"]) == first
    assert (tries.usage["runs"], Decimal(tries.usage["credits"])) == ({"success": 2}, first)
    state = tries.usage["batch"]
    assert (state["rows"], state["done"], state["failed"], state["is_finished"]) == (2, 2, 0, True)
    second = run(["c"], on_changed_input="restart")
    assert (tries.usage["runs"], Decimal(tries.usage["credits"])) == ({"success": 3}, first + second)
