"""The batch operator: what it reads, when it fails, what it returns."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import weakref
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, ObjectStoragePath, TaskDeferred, task

from airflow_provider_aixplain.batch.batch import read_results
from airflow_provider_aixplain.batch.ledger import Totals
from airflow_provider_aixplain.decorators.batch import AixplainBatchDecoratedOperator, aixplain_batch_task
from airflow_provider_aixplain.exceptions import (
    AixplainError,
    AixplainInputError,
    AixplainPermanentError,
    AixplainRunFailed,
)
from airflow_provider_aixplain.operators.batch import AixplainBatchRunOperator
from airflow_provider_aixplain.triggers.batch import AixplainBatchTrigger
from tests.support.deployment import Emulator
from tests.support.task_log import TaskLog

pytestmark = pytest.mark.usefixtures("connection")
CONTEXT: Any = {}
NOW = {"parameters": {"delay": 0}, "deferrable": False, "wait_time": 0.2}
TAGS = (f"b{os.getpid()}-{number}" for number in range(10_000))


def batch(tmp_path: Path, source: Any, **arguments: Any) -> AixplainBatchRunOperator:
    told = {"task_id": "batch", "model_id": "echo", "result_path": f"file://{tmp_path}/out", **NOW, **arguments}
    return AixplainBatchRunOperator(input=source, **told)


def submitted(emulator: Emulator, text: str) -> int:
    return sum(text in str(run["payload"].get("data")) for run in emulator.runs())


def test_it_returns_a_manifest(tmp_path: Path) -> None:
    manifest = batch(tmp_path, ["a", "b", "c"]).execute(CONTEXT)
    assert {name: manifest[name] for name in ("rows", "succeeded", "failed", "bad_rows", "orphaned")} == {
        "rows": 3,
        "succeeded": 3,
        "failed": 0,
        "bad_rows": 0,
        "orphaned": [],
    }
    assert manifest["credits"] > 0
    assert manifest["tokens"] > 0
    assert manifest["path"] == f"file://{tmp_path}/out/results.jsonl"
    lines = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert {line["key"]: line["data"] for line in lines} == {1: "a", 2: "b", 3: "c"}
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == manifest


def test_a_worker_gives_it_to_a_trigger_and_takes_its_end(tmp_path: Path) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        batch(tmp_path, ["a", "b"], deferrable=True, max_in_flight=7).execute(CONTEXT)
    trigger = deferred.value.trigger
    assert isinstance(trigger, AixplainBatchTrigger)
    _, stored = trigger.serialize()
    assert stored["result_path"] == f"file://{tmp_path}/out"
    assert stored["limits"]["max_in_flight"] == 7
    assert set(stored) == {"result_path", "batch", "model_id", "aixplain_conn_id", "limits"}, "and no input"
    assert deferred.value.method_name == "execute_complete"


def test_a_worker_that_finishes_takes_no_other_batch_for_its_own(tmp_path: Path) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        batch(tmp_path, ["a"], deferrable=True).execute(CONTEXT)
    event = {"batch": deferred.value.trigger.serialize()[1]["batch"], "error": None}
    other = batch(tmp_path, ["b"], on_changed_input="restart")
    other.execute(CONTEXT)
    with pytest.raises(AixplainError, match="Another batch") as told:
        batch(tmp_path, ["a"]).execute_complete(CONTEXT, event)
    assert not isinstance(told.value, AirflowFailException), "a retry reads what is there"
    assert other.execute(CONTEXT)["succeeded"] == 1, "and takes nothing away"


@pytest.mark.parametrize("name", ["in.csv", "in.jsonl", "out.csv/part-0.csv"])
def test_a_file_is_read_by_its_columns(tmp_path: Path, name: str) -> None:
    text = "id,text\nx,hello\n" if name.endswith("csv") else '{"id": "x", "text": "hello"}\n'
    (tmp_path / "out.csv").mkdir()
    (tmp_path / name).write_text(text)
    batch(tmp_path, f"file://{tmp_path}/{name.partition('part')[0]}", key="id", data="text").execute(CONTEXT)
    (result,) = read_results(f"file://{tmp_path}/out")
    assert (result["key"], result["data"]) == ("x", "hello")


def test_text_of_a_file_is_sent_as_text(tmp_path: Path, emulator: Emulator) -> None:
    text = next(TAGS)
    cells = [f'{{"data": "{text}", "max_tokens": 100000}}', f" {text} 1E5 ", f'"{text}"']
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps({"text": cell}) for cell in cells))
    batch(tmp_path, f"file://{tmp_path}/in.jsonl", data="text", parameters={}).execute(CONTEXT)
    sent = [run["payload"] for run in emulator.runs() if text in str(run["payload"].get("data"))]
    assert sorted(sent, key=str) == sorted(({"data": cell} for cell in cells), key=str)


@pytest.mark.parametrize(
    ("content", "arguments", "problem"),
    [
        (b'text\n{0} 1\n"{0} 2\n{0} 3\n', {"data": "text"}, "line 3: unexpected end of data"),
        (b"id;text\n1;{0}\n", {}, "use delimiter=';'"),
        (b"text\n{0}\xe9\n", {"data": "text"}, "set encoding, such as encoding='cp1252'"),
        (b"id,text\n1,{0}\n2,{0}\n", {"data": "txt"}, "it has no column 'txt'; there are 'id', 'text'$"),
        (b"text\n{0}\n", {"data": "text", "include_columns": ["id"]}, "it has no column 'id'; there are 'text'$"),
        (b"text\n{0}\n", {"data": "text", "include_columns": "text"}, "include_columns is 'text': give a list"),
        (b"text\n{0}\n", {"data": "text", "include_columns": [5]}, "include_columns is .5.: give a list"),
    ],
)
@pytest.mark.parametrize("on_bad_row", ["fail", "skip"])
def test_a_file_that_cannot_be_read_costs_nothing(
    tmp_path: Path, emulator: Emulator, content: bytes, arguments: dict[str, Any], problem: str, on_bad_row: str
) -> None:
    text = next(TAGS)
    (tmp_path / "in.csv").write_bytes(content.replace(b"{0}", text.encode()))
    with pytest.raises(AixplainInputError, match=problem) as raised:
        batch(tmp_path, f"file://{tmp_path}/in.csv", on_bad_row=on_bad_row, **arguments).execute(CONTEXT)
    assert isinstance(raised.value, AirflowFailException)
    assert submitted(emulator, text) == 0


def test_a_long_cell_is_one_run(tmp_path: Path, emulator: Emulator) -> None:
    text = next(TAGS)
    cell = f"{text}\n" * 20_000
    (tmp_path / "in.csv").write_text(f'text\n"{cell}"\n')
    arguments: dict[str, Any] = {"data": "text", "on_bad_row": "skip", "model_id": "nobodys"}
    with pytest.raises(AixplainPermanentError, match="0 of 1 rows succeeded, 1 failed"):
        batch(tmp_path, f"file://{tmp_path}/in.csv", **arguments).execute(CONTEXT)


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
    source = [{"text": "a", "label": "x", "n": 1}, {"text": "b", "label": None, "n": "\ud800"}]
    arguments: dict[str, Any] = {"data": "text", "include_columns": ["label", "n"], "result_format": "parquet"}
    batch(tmp_path, source, **arguments).execute(CONTEXT)
    lines = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert {line["data"]: line["input"] for line in lines} == {
        "a": {"label": "x", "n": 1},
        "b": {"label": None, "n": "\ud800"},
    }
    rows = parquet.read_table(tmp_path / "out" / "results.parquet").to_pylist()
    assert {row["data"]: row["input"] for row in rows} == {
        '"a"': {"label": "x", "n": "1"},
        '"b"': {"label": None, "n": "\ufffd"},
    }
    with pytest.raises(AixplainInputError, match="holds the batch of another input"):
        batch(tmp_path, source, **{**arguments, "include_columns": ["n"]}).execute(CONTEXT)


def test_how_a_file_is_read_is_templated() -> None:
    assert {"encoding", "delimiter", "include_columns"} < set(AixplainBatchRunOperator.template_fields)
    assert {"encoding", "delimiter", "include_columns"} < set(AixplainBatchDecoratedOperator.template_fields)


def test_a_result_path_that_cannot_be_written_is_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, emulator: Emulator
) -> None:
    text = next(TAGS)
    (tmp_path / "file").write_text("")
    with pytest.raises(AixplainInputError, match=r"result_path: file://.*/file/out cannot be written: .*Name a folder"):
        batch(tmp_path, [text], result_path=f"file://{tmp_path}/file/out").execute(CONTEXT)
    for error, kind in (
        (PermissionError(13, "Permission denied"), AixplainInputError),
        (OSError(30, "Read-only file system"), AixplainInputError),
        (OSError(28, "No space left on device"), OSError),
    ):

        def fail(*_: Any, error: OSError = error, **__: Any) -> Any:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(Path, "mkdir", fail)
            with pytest.raises(kind):
                batch(tmp_path, [text]).execute(CONTEXT)
    assert submitted(emulator, text) == 0


def test_sums_are_decimal() -> None:
    totals = Totals()
    for _ in range(3):
        totals.add_cost({"used_credits": 0.1, "tokens": 1, "run_time": 0.7})
    totals.add_cost({"used_credits": 1e-7, "tokens": 0, "run_time": 0})
    assert (totals.credits, totals.run_time, totals.tokens) == (0.3000001, 2.1, 3)


def test_a_template_may_give_a_list_as_text(tmp_path: Path) -> None:
    assert batch(tmp_path, '["a", "b"]').execute(CONTEXT)["rows"] == 2


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
        ({"source": [1], "result_path": "nowhere://b/a"}, "Airflow knows no filesystem for nowhere://"),
        ({"source": "nowhere://b/a.csv"}, "Airflow knows no filesystem for nowhere://"),
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
    with pytest.raises(AixplainInputError, match=r"input has 2 bad rows.*line 2: data is None.*; line 3: "):
        batch(tmp_path, [text, None, {"a": {1}}]).execute(CONTEXT)
    assert submitted(emulator, text) == 0
    manifest = batch(tmp_path, [text, None], on_bad_row="skip").execute(CONTEXT)
    assert (manifest["rows"], manifest["bad_rows"]) == (1, 1)
    assert manifest["first_bad_rows"][0].startswith("line 2: data is None")


def test_a_reason_of_many_rows_is_reported_once(tmp_path: Path) -> None:
    source = [{"a": 1}, {"a": 2}, {"b": 3}]
    with pytest.raises(AixplainInputError, match=r"is fail: line 1, line 2: it has no column 'b'; there are a$"):
        batch(tmp_path, source, data="b").execute(CONTEXT)


def test_a_retry_or_a_clear_submits_only_what_is_left(tmp_path: Path, emulator: Emulator) -> None:
    text = next(TAGS)
    for _ in range(3):
        assert batch(tmp_path, [f"{text} 1", f"{text} 2"]).execute(CONTEXT)["succeeded"] == 2
    assert submitted(emulator, text) == 2


def test_a_finished_batch_that_is_cleared_states_that(tmp_path: Path, task_log: TaskLog) -> None:
    batch(tmp_path, ["a", "b"]).execute(CONTEXT)
    batch(tmp_path, ["a", "b"]).execute(CONTEXT)
    line = next(line for line in task_log.lines(logging.INFO) if "nothing to run" in line)
    assert line.startswith(f"All 2 rows at file://{tmp_path}/out")


def test_a_failed_batch_states_the_first_error(tmp_path: Path, task_log: TaskLog) -> None:
    expected = "fail_on is any. The first error, of 3 rows: this model always fails: file://"
    with pytest.raises(AixplainRunFailed, match=expected):
        batch(tmp_path, ["a", "b", "c"], model_id="fail").execute(CONTEXT)
    assert "The first error, of 3 rows: this model always fails" in str(task_log)


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


def test_failed_rows_fail_it_and_are_tried_again(tmp_path: Path, emulator: Emulator) -> None:
    text = next(TAGS)
    for _ in range(2):
        with pytest.raises(AixplainRunFailed, match="0 of 2 rows succeeded, 2 failed, and fail_on is any") as raised:
            batch(tmp_path, [f"{text} 1", f"{text} 2"], model_id="fail").execute(CONTEXT)
        assert not isinstance(raised.value, AirflowFailException)
    assert submitted(emulator, text) == 4
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["succeeded"], manifest["failed"]) == (0, 2)
    assert batch(tmp_path, [f"{text} 1"], model_id="fail", fail_on=0.9, on_changed_input="restart")


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


def test_results_as_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet is an extra")
    manifest = batch(tmp_path, ["a", {"data": {"b": 1}}], result_format="parquet").execute(CONTEXT)
    assert manifest["path"].endswith("/results.parquet")
    rows = parquet.read_table(tmp_path / "out" / "results.parquet").to_pylist()
    assert {row["key"]: row["data"] for row in rows} == {"1": '"a"', "2": '{"b": 1}'}
    assert all(row["used_credits"] > 0 for row in rows)


def test_an_object_storage_holds_all_of_it(objects: str, emulator: Emulator) -> None:
    pyarrow = pytest.importorskip("pyarrow.parquet", reason="Parquet is an extra")
    text, place = next(TAGS), ObjectStoragePath(f"{objects}/{next(TAGS)}")

    def run(model_id: str, rows: list[str], **arguments: Any) -> dict[str, Any]:
        arguments = {"result_path": str(place), "model_id": model_id, **arguments}
        manifest: dict[str, Any] = batch(Path(), rows, **arguments).execute(CONTEXT)
        return manifest

    rows = [f"{text} {number}" for number in range(5)]
    with pytest.raises(AixplainRunFailed):
        run("fail", rows)
    with pytest.raises(AixplainRunFailed):
        run("fail", rows)
    assert submitted(emulator, text) == 10, "failed rows are tried again"
    with pytest.raises(AixplainInputError, match="holds the batch of another input"):
        run("echo", rows)
    manifest = run("echo", rows, on_changed_input="restart")
    assert manifest == json.loads((place / "manifest.json").read_text())
    assert manifest["path"] == f"{place}/results.jsonl"
    lines = ObjectStoragePath(manifest["path"]).read_text().splitlines()
    assert sorted(json.loads(line)["data"] for line in lines) == rows
    assert "FAILED" not in str(list(read_results(str(place)))), "of the batch that was replaced"
    assert run("echo", rows)["seconds"] >= manifest["seconds"]
    assert submitted(emulator, text) == 15, "a batch that is done submits nothing"

    path = run("echo", rows, result_format="parquet")["path"]
    with ObjectStoragePath(path).open("rb") as file:
        assert pyarrow.read_table(file).num_rows == 5


def test_a_folder_of_parquet_in_an_object_storage_is_read(objects: str, emulator: Emulator) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet is an extra")
    from pyarrow import parquet

    text, place = next(TAGS), ObjectStoragePath(f"{objects}/{next(TAGS)}")
    for number in range(2):
        path = place / "in" / f"day=0{number}" / f"part-{number}.snappy.parquet"
        file = io.BytesIO()
        parquet.write_table(pyarrow.table({"id": [number], "text": [f"{text} {number}"]}), file)
        path.fs.pipe_file(path.path, file.getvalue())
    place.fs.pipe_file((place / "in" / "_SUCCESS").path, b"")
    arguments: dict[str, Any] = {"data": "text", "key": "id", "include_columns": ["day"], "result_path": f"{place}/out"}
    manifest = batch(Path(), f"{place}/in/", **arguments).execute(CONTEXT)
    lines = [json.loads(line) for line in ObjectStoragePath(manifest["path"]).read_text().splitlines()]
    assert sorted((line["key"], line["data"], line["input"]) for line in lines) == [
        (0, f"{text} 0", {"day": "00"}),
        (1, f"{text} 1", {"day": "01"}),
    ]


def test_a_decorated_function_makes_the_input(tmp_path: Path) -> None:
    def texts() -> list[str]:
        return ["a", "b {{ c }}"]

    with DAG("decorated_batch", schedule=None):
        made: Any = aixplain_batch_task(model_id="echo", result_path=f"file://{tmp_path}/out", **NOW)(texts)()

        @task.aixplain_batch(model_id="echo", result_path="file:///nowhere")
        def named() -> list[str]:
            return []

        by_name: Any = named()
    assert made.operator.execute({})["succeeded"] == 2
    assert isinstance(by_name.operator, AixplainBatchDecoratedOperator)
    results = (tmp_path / "out" / "results.jsonl").read_text()
    assert "b {{ c }}" in results


class TestFunctionsThatMakeRows:
    """A function of ``@task.aixplain_batch`` yields its rows, or is async, or both."""

    def run_batch(self, tmp_path: Path, function: Any, **arguments: Any) -> Any:
        settings = {"task_id": "batch", "model_id": "echo", "result_path": f"file://{tmp_path}/out", **NOW, **arguments}
        return AixplainBatchDecoratedOperator(python_callable=function, **settings).execute(CONTEXT)

    def results(self, tmp_path: Path) -> dict[Any, Any]:
        lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
        return {line["key"]: line["data"] for line in map(json.loads, lines)}

    def functions(self, rows: list[Any], calls: list[int]) -> dict[str, Any]:
        def generator() -> Iterator[Any]:
            calls.append(0)
            yield from rows

        async def async_generator() -> AsyncIterator[Any]:
            calls.append(0)
            for row in rows:
                await asyncio.sleep(0)
                yield row

        async def asynchronous() -> list[Any]:
            calls.append(0)
            return rows

        async def returns_a_generator() -> AsyncIterator[Any]:
            return async_generator()

        return {
            "generator": generator,
            "async generator": async_generator,
            "async": asynchronous,
            "async that returns a generator": returns_a_generator,
            "map": lambda: map(str, generator()),
        }

    KINDS = ("generator", "async generator", "async", "async that returns a generator", "map")

    @pytest.mark.parametrize("kind", KINDS)
    def test_each_row_is_run(self, tmp_path: Path, kind: str) -> None:
        calls: list[int] = []
        manifest = self.run_batch(tmp_path, self.functions(["a", "b", "c"], calls)[kind])
        assert (manifest["succeeded"], len(calls)) == (3, 1)
        assert self.results(tmp_path) == {1: "a", 2: "b", 3: "c"}

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_retry_calls_it_once_and_submits_nothing_again(
        self, tmp_path: Path, kind: str, emulator: Emulator
    ) -> None:
        text, calls = next(TAGS), list[int]()
        for _ in range(2):
            self.run_batch(tmp_path, self.functions([f"{text} 1", f"{text} 2"], calls)[kind])
        assert (len(calls), submitted(emulator, text)) == (2, 2)

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_restart_with_other_rows_calls_it_once(self, tmp_path: Path, kind: str) -> None:
        self.run_batch(tmp_path, lambda: ["before"])
        calls: list[int] = []
        rows = ["a", None, "b"] if kind != "map" else ["a", "", "b"]
        settings = {"on_changed_input": "restart", "on_bad_row": "skip"}
        manifest = self.run_batch(tmp_path, self.functions(rows, calls)[kind], **settings)
        assert (manifest["rows"] + manifest["bad_rows"], len(calls)) == (3, 1)
        assert {1: "a", 3: "b"}.items() <= self.results(tmp_path).items()

    def test_rows_are_not_held_in_memory(self, tmp_path: Path) -> None:
        counts: list[int] = []

        class Text(str):
            __slots__ = ("__weakref__",)

        def generator() -> Iterator[str]:
            alive: weakref.WeakSet[Text] = weakref.WeakSet()
            for number in range(50):
                text = Text(f"{number}")
                alive.add(text)
                counts.append(len(alive))
                yield text

        task = batch(tmp_path, None)
        task.input = generator()
        with TemporaryFile() as spool:
            task._prepare(task._batch(), task._submission_url(), spool)
        assert len(counts) == 50
        assert max(counts) <= 3

    @pytest.mark.parametrize("kind", ["generator", "async generator"])
    def test_an_error_in_it_submits_nothing_and_a_retry_begins(
        self, tmp_path: Path, kind: str, emulator: Emulator
    ) -> None:
        text = next(TAGS)

        class Broken(list[str]):
            def __iter__(self) -> Iterator[str]:
                yield text
                raise LookupError("the source broke off")

        with pytest.raises(LookupError, match="the source broke off"):
            self.run_batch(tmp_path, self.functions(Broken(), [])[kind])
        assert submitted(emulator, text) == 0
        assert self.run_batch(tmp_path, self.functions([text], [])[kind])["succeeded"] == 1


def test_resuming_without_an_event_is_a_clear_error(tmp_path: Path) -> None:
    """As when ``airflow dags test`` and a scheduler use one database."""
    with pytest.raises(AixplainError, match=r"use another AIRFLOW_HOME for it\. A retry") as raised:
        batch(tmp_path, ["a"]).resume_execution("execute_complete", {}, CONTEXT)
    assert not isinstance(raised.value, AirflowFailException)


@pytest.mark.parametrize("in_triggerer", [True, False])
def test_its_trigger_waits_until_the_worker_is_released(
    tmp_path: Path, in_triggerer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "100000")
    with pytest.raises(TaskDeferred) as deferred:
        batch(tmp_path, ["a"], deferrable=True).execute(CONTEXT)
    trigger = deferred.value.trigger
    waits: list[float] = []

    async def first_event() -> Any:
        sleep = asyncio.sleep

        async def record(seconds: float, *_: Any) -> None:
            waits.append(seconds)
            await sleep(0 if seconds > 1000 else seconds)

        monkeypatch.setattr("airflow_provider_aixplain.triggers.worker_release.asyncio.sleep", record)
        return await anext(aiter(trigger.run()))

    if in_triggerer:
        trigger.trigger_id = 1  # type: ignore[assignment] # as a triggerer does
    assert asyncio.run(first_event()).payload["error"] is None
    assert any(seconds > 90_000 for seconds in waits) is in_triggerer
