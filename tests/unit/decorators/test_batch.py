"""Functions whose value is the input of a batch."""

from __future__ import annotations

import asyncio
import json
import weakref
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_aixplain.decorators.batch import AixplainBatchDecoratedOperator, aixplain_batch_task
from airflow_provider_aixplain.operators.batch import AixplainBatchRunOperator
from tests.support.deployment import Emulator

pytestmark = pytest.mark.usefixtures("connection")
CONTEXT: Any = {}
NOW = {"parameters": {"delay": 0}, "deferrable": False, "wait_time": 0.2}
KINDS = ("generator", "async generator", "async", "async that returns a generator", "map")


def test_a_decorated_function_makes_the_input(tmp_path: Path) -> None:
    def texts() -> list[str]:
        return ["a", "b {{ c }}"]

    with DAG("decorated_batch", schedule=None):
        decorated: Any = aixplain_batch_task(model_id="echo", result_path=f"file://{tmp_path}/out", **NOW)(texts)()

        @task.aixplain_batch(model_id="echo", result_path="file:///nowhere")
        def named() -> list[str]:
            return []

        by_name: Any = named()
    assert decorated.operator.execute({})["succeeded"] == 2
    assert set(results(tmp_path).values()) == {"a", "b {{ c }}"}
    assert isinstance(by_name.operator, AixplainBatchDecoratedOperator)
    assert {"encoding", "delimiter", "include_columns"} < set(AixplainBatchDecoratedOperator.template_fields)


def run_batch(tmp_path: Path, function: Any, **arguments: Any) -> Any:
    settings = {"task_id": "batch", "model_id": "echo", "result_path": f"file://{tmp_path}/out", **NOW, **arguments}
    return AixplainBatchDecoratedOperator(python_callable=function, **settings).execute(CONTEXT)


def results(tmp_path: Path) -> dict[Any, Any]:
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    return {line["key"]: line["data"] for line in map(json.loads, lines)}


def function_of(kind: str, rows: list[Any], calls: list[int]) -> Any:
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
    }[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_each_attempt_calls_it_once(tmp_path: Path, kind: str, emulator: Emulator, tag: str) -> None:
    calls: list[int] = []
    for attempt in (1, 2):
        manifest = run_batch(tmp_path, function_of(kind, [f"{tag} 1", f"{tag} 2"], calls))
        assert (manifest["succeeded"], len(calls)) == (2, attempt)
    assert results(tmp_path) == {1: f"{tag} 1", 2: f"{tag} 2"}
    assert sum(tag in str(run["payload"].get("data")) for run in emulator.runs()) == 2, "a retry submits nothing"


@pytest.mark.parametrize("kind", KINDS)
def test_a_restart_with_other_rows_calls_it_once(tmp_path: Path, kind: str) -> None:
    run_batch(tmp_path, lambda: ["before"])
    calls: list[int] = []
    rows = ["a", None, "b"] if kind != "map" else ["a", "", "b"]
    settings = {"on_changed_input": "restart", "on_bad_row": "skip"}
    manifest = run_batch(tmp_path, function_of(kind, rows, calls), **settings)
    assert (manifest["rows"] + manifest["bad_rows"], len(calls)) == (3, 1)
    assert {1: "a", 3: "b"}.items() <= results(tmp_path).items()


def test_rows_are_not_held_in_memory(tmp_path: Path) -> None:
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

    operator = AixplainBatchRunOperator(
        task_id="batch", model_id="echo", input=None, result_path=f"file://{tmp_path}/out"
    )
    operator.input = generator()
    with TemporaryFile() as spool:
        operator._prepare(operator._batch(), operator._submission_url(), spool)
    assert len(counts) == 50
    assert max(counts) <= 3


@pytest.mark.parametrize("kind", ["generator", "async generator"])
def test_an_error_in_it_submits_nothing_and_a_retry_begins(
    tmp_path: Path, kind: str, emulator: Emulator, tag: str
) -> None:

    class Broken(list[str]):
        def __iter__(self) -> Iterator[str]:
            yield tag
            raise LookupError("the source broke off")

    with pytest.raises(LookupError, match="the source broke off"):
        run_batch(tmp_path, function_of(kind, Broken(), []))
    assert not any(tag in str(run["payload"].get("data")) for run in emulator.runs())
    assert run_batch(tmp_path, function_of(kind, [tag], []))["succeeded"] == 1
