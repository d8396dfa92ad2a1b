"""The batch operator: what it reads, when it fails, what it returns."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, ObjectStoragePath, TaskDeferred

from airflow_provider_aixplain.batch.batch import read_results
from airflow_provider_aixplain.exceptions import (
    AixplainError,
    AixplainInputError,
    AixplainPermanentError,
    AixplainRunFailed,
)
from airflow_provider_aixplain.operators.batch import AixplainBatchRunOperator
from tests.support.deployment import Emulator
from tests.support.task_log import TaskLog

pytestmark = pytest.mark.usefixtures("connection")
CONTEXT: Any = {}
NOW = {"parameters": {"delay": 0}, "deferrable": False, "wait_time": 0.2}
TAGS = (f"b{os.getpid()}-{number}" for number in range(10_000))


def batch(tmp_path: Path, source: Any, **arguments: Any) -> AixplainBatchRunOperator:
    arguments = {"task_id": "batch", "model_id": "echo", "result_path": f"file://{tmp_path}/out", **NOW, **arguments}
    return AixplainBatchRunOperator(input=source, **arguments)


def submitted(emulator: Emulator, text: str) -> int:
    return sum(text in str(run["payload"].get("data")) for run in emulator.runs())


def results_of(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]


def test_it_returns_a_manifest(tmp_path: Path) -> None:
    manifest = batch(tmp_path, '["a", "b", "c"]').execute(CONTEXT)  # a template may render a list as a string
    expected = {"rows": 3, "succeeded": 3, "failed": 0, "bad_rows": 0, "first_bad_rows": [], "orphaned": []}
    assert expected.items() <= manifest.items()
    assert manifest["credits"] > 0
    assert manifest["tokens"] > 0
    assert manifest["path"] == f"file://{tmp_path}/out/results.jsonl"
    assert {line["key"]: line["data"] for line in results_of(tmp_path)} == {1: "a", 2: "b", 3: "c"}
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == manifest


def test_it_defers_to_a_trigger_without_the_input(tmp_path: Path) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        batch(tmp_path, ["a", "b"], deferrable=True, max_in_flight=7).execute(CONTEXT)
    _, stored = deferred.value.trigger.serialize()
    assert stored["result_path"] == f"file://{tmp_path}/out"
    assert stored["limits"]["max_in_flight"] == 7
    assert set(stored) == {"result_path", "batch", "model_id", "aixplain_conn_id", "limits"}
    assert deferred.value.method_name == "execute_complete"

    event = {"batch": stored["batch"], "error": None}
    other = batch(tmp_path, ["b"], on_changed_input="restart")
    other.execute(CONTEXT)
    with pytest.raises(AixplainError, match="Another batch") as raised:
        batch(tmp_path, ["a"]).execute_complete(CONTEXT, event)
    assert not isinstance(raised.value, AirflowFailException), "a retry reads the new batch"
    assert other.execute(CONTEXT)["succeeded"] == 1, "and its results are still there"


def test_text_of_a_file_is_sent_as_text(tmp_path: Path, emulator: Emulator) -> None:
    text = next(TAGS)
    cells = [f'{{"data": "{text}", "max_tokens": 100000}}', f" {text} 1E5 ", f'"{text}"']
    lines = (json.dumps({"id": f"row {number}", "text": cell}) for number, cell in enumerate(cells))
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    batch(tmp_path, f"file://{tmp_path}/in.jsonl", key="id", data="text", parameters={}).execute(CONTEXT)
    sent = [run["payload"] for run in emulator.runs() if text in str(run["payload"].get("data"))]
    assert sorted(sent, key=str) == sorted(({"data": cell} for cell in cells), key=str)
    assert {result["key"] for result in read_results(f"file://{tmp_path}/out")} == {"row 0", "row 1", "row 2"}


@pytest.mark.parametrize(
    ("content", "arguments", "problem"),
    [
        (b'text\n{0} 1\n"{0} 2\n{0} 3\n', {"on_bad_row": "skip"}, "line 3: unexpected end of data"),
        (b"text\n{0}\n", {"data": "txt", "on_bad_row": "skip"}, "it has no column 'txt'; there are 'text'$"),
        (b"text\n{0}\n", {"include_columns": ["id"]}, "it has no column 'id'; there are 'text'$"),
        (b"text\n{0}\n", {"include_columns": "text"}, "include_columns is 'text': give a list"),
        (b"text\n{0}\n", {"include_columns": [5]}, "include_columns is .5.: give a list"),
    ],
)
def test_a_file_that_cannot_be_read_costs_nothing(
    tmp_path: Path, emulator: Emulator, content: bytes, arguments: dict[str, Any], problem: str
) -> None:
    text = next(TAGS)
    (tmp_path / "in.csv").write_bytes(content.replace(b"{0}", text.encode()))
    with pytest.raises(AixplainInputError, match=problem):
        batch(tmp_path, f"file://{tmp_path}/in.csv", **{"data": "text", **arguments}).execute(CONTEXT)
    assert submitted(emulator, text) == 0


def test_a_temporary_read_error_keeps_the_retries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in.csv").write_text("text\na\n")

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(type(ObjectStoragePath(f"file://{tmp_path}").fs), "isfile", fail)
    with pytest.raises(AixplainError, match=r"cannot be read now: .*Input/output error") as raised:
        batch(tmp_path, f"file://{tmp_path}/in.csv").execute(CONTEXT)
    assert not isinstance(raised.value, AirflowFailException)


def test_results_repeat_columns_of_the_input(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet is an extra")
    source = [{"text": "a", "label": "x", "n": 1}, {"text": {"b": 1}, "label": None, "n": "\ud800"}]
    arguments: dict[str, Any] = {"data": "text", "include_columns": ["label", "n"], "result_format": "parquet"}
    manifest = batch(tmp_path, source, **arguments).execute(CONTEXT)
    lines = sorted(results_of(tmp_path), key=lambda line: line["row"])
    assert [line["input"] for line in lines] == [{"label": "x", "n": 1}, {"label": None, "n": "\ud800"}]
    assert manifest["path"].endswith("/results.parquet")
    rows = sorted(parquet.read_table(tmp_path / "out" / "results.parquet").to_pylist(), key=lambda row: row["row"])
    assert [row["input"] for row in rows] == [{"label": "x", "n": "1"}, {"label": None, "n": "\ufffd"}]
    assert [(row["key"], row["data"]) for row in rows] == [("1", '"a"'), ("2", '{"b": 1}')]
    assert all(row["used_credits"] > 0 for row in rows)
    with pytest.raises(AixplainInputError, match="holds the batch of another input"):
        batch(tmp_path, source, **{**arguments, "include_columns": ["n"]}).execute(CONTEXT)


def test_how_a_file_is_read_is_templated() -> None:
    assert {"encoding", "delimiter", "include_columns"} < set(AixplainBatchRunOperator.template_fields)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PermissionError(13, "Permission denied"), AixplainInputError),
        (OSError(30, "Read-only file system"), AixplainInputError),
        (OSError(28, "No space left on device"), OSError),
    ],
)
def test_a_result_path_that_can_never_be_written_is_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, kind: Any
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(kind, match=str(error.strerror)) as raised:
        batch(tmp_path, ["a"]).execute(CONTEXT)
    assert isinstance(raised.value, AixplainInputError) is (kind is AixplainInputError)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"source": "in.csv"}, "input is 'in.csv': give a list, or a URI"),
        ({"source": []}, "input has no rows"),
        ({"source": '["a", '}, "invalid JSON: Expecting value"),
        ({"source": '[{"a": 1, "a": 2}]'}, "invalid JSON: an object has two members named 'a'"),
        ({"source": 7}, "input is a int"),
        ({"source": [1], "result_path": "/data/out"}, "result_path is '/data/out': give the URI"),
        ({"source": [1], "result_path": "file://data/out"}, "result_path is 'file://data/out': give the URI"),
        ({"source": [1], "result_path": "s3://"}, "result_path is 's3://': give the URI"),
        ({"source": [1], "result_path": "s3://b/[1]/*"}, r"leave out \* \[ \]"),
        ({"source": [1], "result_path": "nowhere://b/a"}, "Airflow has no filesystem for nowhere://"),
        ({"source": "nowhere://b/a.csv"}, "Airflow has no filesystem for nowhere://"),
        ({"source": [1], "model_id": ""}, "model_id is ''"),
    ],
)
def test_bad_input_costs_nothing(tmp_path: Path, emulator: Emulator, arguments: dict[str, Any], named: str) -> None:
    before = len(emulator.runs())
    with pytest.raises(AixplainInputError, match=named):
        batch(tmp_path, **arguments).execute(CONTEXT)
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


def test_bad_rows_fail_it_before_anything_is_submitted(tmp_path: Path, emulator: Emulator) -> None:
    text = next(TAGS)
    with pytest.raises(AixplainInputError, match=r"input has 3 bad rows.*: line 2, line 3: data is None.*; line 4: "):
        batch(tmp_path, [text, None, None, {"a": {1}}]).execute(CONTEXT)
    assert submitted(emulator, text) == 0
    manifest = batch(tmp_path, [text, None], on_bad_row="skip").execute(CONTEXT)
    assert (manifest["rows"], manifest["bad_rows"]) == (1, 1)
    assert manifest["first_bad_rows"][0].startswith("line 2: data is None")


def test_a_retry_or_a_clear_submits_only_rows_without_result(
    tmp_path: Path, emulator: Emulator, task_log: TaskLog
) -> None:
    text = next(TAGS)
    for _ in range(3):
        assert batch(tmp_path, [f"{text} 1", f"{text} 2"]).execute(CONTEXT)["succeeded"] == 2
    assert submitted(emulator, text) == 2
    line = next(line for line in task_log.lines(logging.INFO) if "nothing to run" in line)
    assert line.startswith(f"All 2 rows at file://{tmp_path}/out")


def test_input_that_has_changed_is_noticed(tmp_path: Path, emulator: Emulator) -> None:
    text = next(TAGS)
    batch(tmp_path, [f"{text} 1"]).execute(CONTEXT)
    changes: list[dict[str, Any]] = [{"source": [f"{text} 2"]}, {"source": [f"{text} 1"], "model_id": "language"}]
    for change in changes:
        with pytest.raises(AixplainInputError, match="holds the batch of another input, model or endpoint"):
            batch(tmp_path, **change).execute(CONTEXT)
    assert submitted(emulator, text) == 1
    manifest = batch(tmp_path, [f"{text} 2"], on_changed_input="restart").execute(CONTEXT)
    assert (manifest["rows"], manifest["succeeded"]) == (1, 1)
    assert submitted(emulator, f"{text} 2") == 1


@pytest.mark.parametrize(
    ("fail_on", "failed", "fails"),
    [("any", 0, False), ("any", 1, True), ("all", 3, False), ("all", 4, True), (0.5, 2, False), (0.5, 3, True)],
)
def test_when_failed_rows_fail_it(tmp_path: Path, fail_on: Any, failed: int, fails: bool) -> None:
    operator = batch(tmp_path, ["a"], fail_on=fail_on)
    assert operator._has_failed(4, failed) is fails


def test_failed_rows_fail_it_and_are_tried_again(tmp_path: Path, emulator: Emulator, task_log: TaskLog) -> None:
    text, reason = next(TAGS), "The first error, of 2 rows: this model always fails"
    spent = [0.0]
    for _ in range(2):
        with pytest.raises(AixplainRunFailed, match=f"0 of 2 rows succeeded.*fail_on is any. {reason}: file") as raised:
            batch(tmp_path, [f"{text} 1", f"{text} 2"], model_id="fail").execute(CONTEXT)
        assert not isinstance(raised.value, AirflowFailException)
        manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
        assert (manifest["succeeded"], manifest["failed"]) == (0, 2)
        spent.append(manifest["credits"])
    assert reason in str(task_log)
    assert submitted(emulator, text) == 4
    assert spent[0] < spent[1] < spent[2], "failed attempts are paid for"


def test_rows_that_cannot_succeed_end_it_for_good(tmp_path: Path) -> None:
    with pytest.raises(AixplainPermanentError, match="1 failed"):
        batch(tmp_path, ["a"], model_id="nobodys").execute(CONTEXT)


def test_spent_credits_end_it_for_good_and_a_higher_limit_goes_on(tmp_path: Path, emulator: Emulator) -> None:
    text = next(TAGS)
    source = [f"{text} {number}" for number in range(6)]
    with pytest.raises(AixplainPermanentError, match=r"max_credits is 1e-05.*rows are left\. Raise it"):
        batch(tmp_path, source, max_credits=1e-5, max_in_flight=1).execute(CONTEXT)
    assert submitted(emulator, text) == 1
    assert batch(tmp_path, source, max_credits=1).execute(CONTEXT)["succeeded"] == 6
    assert submitted(emulator, text) == 6


def test_an_object_storage_holds_all_of_it(objects: str, emulator: Emulator) -> None:
    pyarrow = pytest.importorskip("pyarrow.parquet", reason="Parquet is an extra")
    text, place = next(TAGS), ObjectStoragePath(f"{objects}/{next(TAGS)}")
    rows = [f"{text} {number}" for number in range(5)]

    def run(model_id: str, **arguments: Any) -> Any:
        return batch(Path(), rows, **{"result_path": str(place), "model_id": model_id, **arguments}).execute(CONTEXT)

    for _ in range(2):
        with pytest.raises(AixplainRunFailed):
            run("fail")
    assert submitted(emulator, text) == 10, "failed rows are tried again"
    with pytest.raises(AixplainInputError, match="holds the batch of another input"):
        run("echo")
    manifest = run("echo", on_changed_input="restart")
    assert manifest == json.loads((place / "manifest.json").read_text())
    assert manifest["path"] == f"{place}/results.jsonl"
    lines = ObjectStoragePath(manifest["path"]).read_text().splitlines()
    assert sorted(json.loads(line)["data"] for line in lines) == rows
    assert "FAILED" not in str(list(read_results(str(place)))), "results of the replaced batch"
    with ObjectStoragePath(run("echo", result_format="parquet")["path"]).open("rb") as file:
        assert pyarrow.read_table(file).num_rows == 5
    assert submitted(emulator, text) == 15, "a batch that has finished submits nothing"


def test_resuming_without_an_event_is_a_clear_error(tmp_path: Path) -> None:
    """As when ``airflow dags test`` and a scheduler use one database."""
    with pytest.raises(AixplainError, match=r"use another AIRFLOW_HOME for it\. A retry") as raised:
        batch(tmp_path, ["a"]).resume_execution("execute_complete", {}, CONTEXT)
    assert not isinstance(raised.value, AirflowFailException)
