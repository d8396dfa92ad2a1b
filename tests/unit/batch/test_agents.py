"""Batches of an agent: what is sent for a row, and what its result has."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, TaskDeferred, task
from pydantic import BaseModel

from airflow_provider_aixplain.batch.batch import read_results
from airflow_provider_aixplain.exceptions import AixplainInputError, AixplainPermanentError, AixplainRunFailed
from airflow_provider_aixplain.inputs.rows import Mapper, Row, read
from airflow_provider_aixplain.observability.metrics import RunMetrics
from airflow_provider_aixplain.observability.progress import ProgressReporter
from airflow_provider_aixplain.operators.batch import AixplainBatchRunOperator
from airflow_provider_aixplain.protocol.agent import AgentInput
from airflow_provider_aixplain.protocol.assets import Asset
from airflow_provider_aixplain.triggers.batch import AixplainBatchTrigger
from tests.support.deployment import Emulator
from tests.support.scripted import Handler, serve

CONTEXT: Any = {}


class Answer(BaseModel):
    """The answer to a row."""

    reviews: int


def rows(source: Any, **mapping: Any) -> list[Any]:
    """Return the body of each row's run, and the reason of each bad row."""
    mapper = Mapper(**mapping, shared=AgentInput("a", None))
    found = read(source, mapper)
    return [json.loads(row.payload) if isinstance(row, Row) else row.reason for row in found]


@pytest.mark.parametrize(
    ("row", "mapping", "query"),
    [
        ("{}", {}, {"input": "{}"}),
        ({"input": "a", "n": 1}, {}, {"input": "a", "n": 1}),
        ({"text": "a", "lang": "en"}, {"data": "text"}, {"input": "a"}),
        ({"text": 5}, {"data": "text"}, {"input": 5}),
        (
            {"text": "a", "lang": "en"},
            {"data": {"q": "text"}, "parameter_columns": {"l": "lang"}},
            {"q": "a", "l": "en"},
        ),
        ({"text": "a"}, {"data": "text", "parameters": {"l": "de"}}, {"input": "a", "l": "de"}),
    ],
)
def test_a_row_becomes_the_query(row: Any, mapping: dict[str, Any], query: dict[str, Any]) -> None:
    (body,) = rows([row], **mapping)
    assert (body["id"], body["query"]) == ("a", query)


@pytest.mark.parametrize(
    ("row", "mapping", "reason"),
    [
        (None, {}, "input is None: the row has no input for the agent"),
        (" ", {}, "input is an empty text: the row has no input for the agent"),
        ({"input": "", "lang": "en"}, {}, "query is {'input': ''"),
        ({}, {}, "query is {}: give a text"),
        ({"text": "a"}, {"data": "text", "parameters": {"input": "b"}}, "parameters hold 'input' too"),
    ],
)
def test_an_empty_query_is_a_bad_row(row: Any, mapping: dict[str, Any], reason: str) -> None:
    (problem,) = rows([row], **mapping)
    assert problem.startswith(reason)


def test_invalid_settings_are_refused_in_the_dag_file(tmp_path: Path) -> None:
    with pytest.raises(AixplainInputError, match=r"^give either model_id or agent_id$"):
        batch(tmp_path, ["a"], model_id="echo")
    with pytest.raises(AixplainInputError, match=r"^budget\['max_cost'\] is -1"):
        batch(tmp_path, ["a"], agent_settings={"budget": {"max_cost": -1}})


def batch(tmp_path: Path, source: Any, **arguments: Any) -> AixplainBatchRunOperator:
    now = {"parameters": {"delay": 0}, "deferrable": False, "wait_time": 0.2, "result_path": f"file://{tmp_path}/out"}
    return AixplainBatchRunOperator(
        **{"task_id": "batch", "agent_id": "echo-agent", "input": source, **now, **arguments}
    )


def sent(emulator: Emulator, text: str) -> list[dict[str, Any]]:
    return [run["payload"] for run in emulator.runs() if text in json.dumps(run["payload"])]


@pytest.mark.usefixtures("connection")
def test_results_have_what_only_agents_answer(tmp_path: Path, emulator: Emulator) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet is an extra")
    arguments = {"agent_id": "review-analyst", "data": "text", "result_format": "parquet"}
    settings = {"output_format": "json", "expected_output": Answer}
    source = [{"text": "The coffee is wonderful."}, {"text": "It is fine.\nThe clock is late."}]
    manifest = batch(tmp_path, source, **arguments, agent_settings=settings).execute(CONTEXT)
    assert manifest["succeeded"] == 2
    assert manifest["credits"] > 0
    first, second = sorted(read_results(f"file://{tmp_path}/out"), key=lambda result: result["row"])
    assert [json.loads(result["data"]) for result in (first, second)] == [{"reviews": 1}, {"reviews": 2}]
    runs = {run["id"]: run for run in emulator.runs() if run["agent_id"] == "review-analyst"}
    assert runs[first["request_id"]]["session_id"] == first["session_id"]
    assert [artifact["name"] for artifact in second["artifacts"]] == ["reviews.csv"]
    assert "steps" not in first
    table = parquet.read_table(tmp_path / "out" / "results.parquet").to_pylist()
    for row, result in zip(sorted(table, key=lambda row: row["row"]), (first, second), strict=True):
        assert json.loads(row["artifacts"]) == result["artifacts"]
        assert json.loads(row["data"]) == result["data"]
        assert (row["session_id"], row["request_id"]) == (result["session_id"], result["request_id"])


@pytest.mark.usefixtures("connection")
def test_a_failed_row_names_its_request(tmp_path: Path) -> None:
    failing = {"parameters": {"delay": 0, "outcome": "failed"}, "fail_on": 0.9}
    with pytest.raises(AixplainRunFailed, match="0 of 1 rows succeeded"):
        batch(tmp_path, ["a"], **failing).execute(CONTEXT)
    (result,) = read_results(f"file://{tmp_path}/out")
    assert (result["status"], result["data"], result["artifacts"]) == ("FAILED", None, [])
    assert "as its query requests" in result["error"]
    assert result["request_id"]


@pytest.mark.usefixtures("connection")
def test_other_settings_or_another_agent_are_another_input(tmp_path: Path, emulator: Emulator, tag: str) -> None:
    for _ in range(2):
        batch(tmp_path, [tag], agent_settings={"max_tokens": 10}).execute(CONTEXT)
    changes: list[dict[str, Any]] = [
        {"agent_settings": {"max_tokens": 20}},
        {"agent_id": "review-team", "agent_settings": {"max_tokens": 10}},
    ]
    for change in changes:
        with pytest.raises(AixplainInputError, match="holds the batch of another input, agent or endpoint"):
            batch(tmp_path, [tag], **change).execute(CONTEXT)
    assert [payload["executionParams"] for payload in sent(emulator, tag)] == [{"maxTokens": 10}]


@pytest.mark.usefixtures("connection")
def test_its_trigger_runs_the_agent(tmp_path: Path, tag: str) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        batch(tmp_path, [tag], deferrable=True, agent_settings={"expected_output": Answer}).execute(CONTEXT)
    stored = json.loads(json.dumps(deferred.value.trigger.serialize()[1]))
    assert stored["agent_id"] == "echo-agent"
    assert "model_id" not in stored

    async def run() -> list[Any]:
        return [event.payload["error"] async for event in AixplainBatchTrigger(**stored).run()]

    assert asyncio.run(run()) == [None]
    assert [result["data"] for result in read_results(f"file://{tmp_path}/out")] == [tag]


@pytest.mark.usefixtures("connection")
def test_the_decorator_runs_an_agent(tmp_path: Path) -> None:
    with DAG("decorated_agents", schedule=None):

        @task.aixplain_batch(
            agent_id="echo-agent", parameters={"delay": 0}, deferrable=False, result_path=f"file://{tmp_path}/out"
        )
        def texts() -> Any:
            yield "a"
            yield "b"

        decorated: Any = texts()
    assert decorated.operator.execute(CONTEXT)["succeeded"] == 2
    assert {"model_id", "agent_id"} < set(decorated.operator.template_fields)


def test_an_error_names_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(http: Handler) -> None:
        http.answer(402, b'{"error": "no credits left"}')

    with serve(refuse) as server:
        monkeypatch.setenv("AIRFLOW_CONN_REFUSED", json.dumps({"host": server.url, "password": "key"}))
        with pytest.raises(AixplainPermanentError, match=r"^Agent echo-agent: .*no credits left"):
            batch(tmp_path, ["a"], aixplain_conn_id="refused").execute(CONTEXT)
    assert {request.path for request in server.asked} == {"/v2/agents/echo-agent/run"}


def test_gauges_name_the_agent() -> None:
    found: list[Any] = []
    stats = SimpleNamespace(gauge=lambda name, value, tags: found.append((name, tags)))
    totals = SimpleNamespace(done=0, failed=0, credits=0.0)
    ledger = SimpleNamespace(done=bytearray(1), totals=totals, batch="1-0a")
    engine: Any = SimpleNamespace(asset=Asset("agent", "a"), in_flight=1, ledger=ledger, metrics=RunMetrics())
    ProgressReporter(engine, SimpleNamespace(dag_id="d", task_id="t"), lambda: stats).report(is_finished=False)
    tags = {"dag_id": "d", "task_id": "t", "agent_id": "a", "batch_id": "1-0a"}
    assert found[0] == ("aixplain.batch.done", tags)
