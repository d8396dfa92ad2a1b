"""The operator of agents: their input, their answer, and the check of the answer."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pendulum
import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, ObjectStoragePath
from airflow.serialization import serialized_objects
from pydantic import BaseModel

from airflow_provider_aixplain.client.account import Platform
from airflow_provider_aixplain.client.blocking import Client
from airflow_provider_aixplain.decorators.aixplain import aixplain_agent_task
from airflow_provider_aixplain.exceptions import AixplainInputError, AixplainPermanentError, AixplainRunFailed
from airflow_provider_aixplain.files import Upload
from airflow_provider_aixplain.operators.aixplain import AixplainRunAgentOperator
from airflow_provider_aixplain.protocol.agent import AgentInput
from airflow_provider_aixplain.workerless.eligibility import reason_not_end_from_trigger, reason_not_start_from_trigger
from tests.support.deployment import AIRFLOW_3, Emulator
from tests.support.kinds import AGENT, submissions
from tests.support.task_log import TaskLog
from tests.unit.operators.test_aixplain import CONTEXT, Tries

pytestmark = pytest.mark.usefixtures("connection")
START = pendulum.datetime(2026, 1, 1, tz="UTC")
dag_serialization: Any = getattr(serialized_objects, "DagSerialization" if AIRFLOW_3 else "SerializedDAG")


class Answer(BaseModel):
    rating: int
    day: datetime.date | None = None


class NoSchema(BaseModel):
    function: Callable[[], None]


def operator(**arguments: Any) -> AixplainRunAgentOperator:
    given = {"task_id": "ask", "agent_id": "echo-agent", "query": "Hello", **arguments}
    return AixplainRunAgentOperator(**{"deferrable": False, "wait_time": 0.2, **given})


def run(query: Any = "Hello", **arguments: Any) -> dict[str, Any]:
    """Run an agent that answers its input, quickly."""
    return operator(query=query, **{"variables": {"delay": 0.1}, **arguments}).execute(CONTEXT)


def rendered(task: Any, **context: Any) -> Any:
    """Return a task as its worker executes it."""
    task.render_template_fields({"task": task, "expanded_ti_count": None, "run_id": "1", **context})
    return task


def test_the_answer_has_fields_of_its_own(emulator: Emulator) -> None:
    result = operator(agent_id="review-analyst", query="What a wonderful lamp!").execute(CONTEXT)
    assert set(result) == AGENT.fields
    assert result["output"].startswith("reviews 1, positive 1")
    assert [artifact["name"] for artifact in result["artifacts"]] == ["reviews.csv"]
    last = emulator.runs()[-1]
    assert (result["request_id"], result["session_id"]) == (last["id"], last["session_id"])
    assert len(result["data"]["steps"]) == 2
    json.dumps(result)


def test_a_submission_returns_the_ids_of_its_run(emulator: Emulator) -> None:
    result = run(wait_for_completion=False)
    last = emulator.runs()[-1]
    assert (result["request_id"], result["session_id"]) == (last["id"], last["session_id"])
    assert (result["output"], result["artifacts"]) == (None, [])


def test_settings_are_sent_and_others_are_not(emulator: Emulator) -> None:
    run()
    assert emulator.runs()[-1]["payload"]["executionParams"] == {}
    run(
        output_format="text",
        max_tokens=5,
        max_time=60,
        budget={"max_cost": 2},
        tools=[{"id": "t", "parameters": {"a": 1}}],
    )
    payload = emulator.runs()[-1]["payload"]
    budget = {"maxCost": 2}
    assert payload["executionParams"] == {"outputFormat": "text", "maxTokens": 5, "maxTime": 60, "budget": budget}
    assert payload["tools"] == [{"id": "t", "parameters": [{"name": "a", "value": 1}]}]


def test_a_session_continues(emulator: Emulator) -> None:
    first = run()
    second = rendered(operator(session_id="{{ session }}", variables={"delay": 0.1}), session=first["session_id"])
    assert second.execute(CONTEXT)["session_id"] == first["session_id"]
    assert emulator.runs()[-1]["payload"]["sessionId"] == first["session_id"]


def test_a_budget_that_ends_a_run_is_a_warning(task_log: TaskLog) -> None:
    result = run(variables={"delay": 0.1, "steps": 3}, budget={"max_iterations": 2})
    assert (result["status"], len(result["data"]["steps"])) == ("SUCCESS", 2)
    assert any("BLOCKED_BY_BUDGET" in line for line in task_log.lines())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"budget": {"max_cost": -1}}, r"budget\['max_cost'\] is -1: give a number above 0"),
        ({"output_format": "xml"}, "output_format is 'xml': use text, markdown, json"),
        ({"expected_output": Answer(rating=1)}, "expected_output is Answer.*: give a text, a dict or a pydantic class"),
        ({"expected_output": NoSchema}, "expected_output is NoSchema, which has no JSON schema"),
        ({"max_tokens": "many"}, "max_tokens is 'many': give an integer"),
        ({"tools": ["search"]}, r"tools\[0\] is 'search': give a dict"),
    ],
)
def test_bad_settings_are_named_when_the_dag_is_read(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(AixplainInputError, match=named):
        operator(**arguments)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"agent_id": "{{ empty }}"}, "agent_id is ''"),
        ({"query": "{{ empty }}"}, "query is ''"),
        ({"query": "{{ none }}"}, "query: its template rendered to None"),
        ({"query": {"input": ["{{ none }}"]}}, r"query\['input'\]\[0\]: its template rendered to None"),
        ({"variables": {"tone": "{{ none }}"}}, r"variables\['tone'\]: its template rendered to None"),
        ({"variables": {"input": "a"}}, "variables has the key 'input'"),
        ({"session_id": "{{ none }}"}, "session_id: its template rendered to None"),
        ({"session_id": "{{ empty }}"}, "session_id is ''"),
        ({"attachments": ["{{ path }}"]}, r"attachments\[0\] is '/data/a.wav': give a link"),
        ({"attachments": [{"url": "{{ none }}"}]}, r"attachments\[0\]\['url'\]: its template rendered to None"),
        ({"query": ObjectStoragePath("file:///a")}, "query is a ObjectStoragePath.* wrap it in Upload"),
        ({"variables": {"f": ObjectStoragePath("file:///a")}}, r"variables\['f'\] is a ObjectStoragePath.* wrap it"),
        ({"attachments": [ObjectStoragePath("file:///a")]}, r"attachments\[0\] is a ObjectStoragePath.* wrap it in"),
        ({"attachments": [Upload("{{ path }}")]}, r"attachments\[0\]: Upload\('/data/a.wav'\): path is not a URI"),
    ],
)
def test_bad_input_is_named_and_nothing_is_sent(arguments: dict[str, Any], named: str, emulator: Emulator) -> None:
    before = len(emulator.runs())
    task = rendered(operator(**arguments), empty="", none=None, path="/data/a.wav")
    with pytest.raises(AixplainInputError, match=f"^{named}") as raised:
        task.execute(CONTEXT)
    assert isinstance(raised.value, AirflowFailException), "a retry cannot fix it"
    assert len(emulator.runs()) == before


def test_an_unknown_session_is_not_retried() -> None:
    with pytest.raises(AixplainPermanentError, match=r"Agent echo-agent: .*HTTP 400 .*sessionId.*no session nobodys"):
        run(session_id="nobodys")


class TestFiles:
    def test_files_anywhere_are_uploaded_once(self, tmp_path: Path, emulator: Emulator) -> None:
        (tmp_path / "a.csv").write_text("a review")
        upload = Upload(f"file://{tmp_path}/{{{{ name }}}}.csv")
        variables = {"delay": 0.1, "file": upload}
        task = operator(
            query={"input": upload}, variables=variables, attachments=[upload, {"url": upload, "name": "b"}]
        )
        rendered(task, name="a").execute(CONTEXT)
        payload = emulator.runs()[-1]["payload"]
        link = payload["query"]["input"]
        assert link.startswith("s3://")
        assert payload["query"]["file"] == link
        known = {"name": "a.csv", "type": "text", "mimeType": "text/csv"}
        url = f"{emulator.url}/emulator/store/{link.removeprefix('s3://emulator/')}"
        assert payload["attachments"] == [{"url": url, **known}, {"url": url, "name": "b"}]

    def test_a_file_above_the_limit_is_named(self, tmp_path: Path, emulator: Emulator) -> None:
        with (tmp_path / "a.png").open("wb") as file:
            file.truncate(26 * 1024 * 1024)
        before = len(emulator.runs())
        with pytest.raises(
            AixplainInputError, match=r"^attachments\[0\]: the file 'a.png' has 26.0 MiB, and the limit"
        ):
            run(attachments=[Upload(f"file://{tmp_path}/a.png")])
        assert len(emulator.runs()) == before


def test_the_fingerprint_contains_every_field(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    client, upload = Client(Platform("key")), Upload(f"file://{path}")
    changes: list[dict[str, Any]] = [
        {},
        {"agent_id": "b"},
        {"query": "other"},
        {"query": {"input": "a", "more": 1}},
        {"variables": {"a": 1}},
        {"session_id": "s"},
        {"attachments": [upload]},
        {"attachments": ["https://h/a.txt"]},
        {"tools": [{"id": "t", "parameters": {"a": 1}}]},
        {"output_format": "text"},
        {"expected_output": {"a": 1}},
        {"expected_output": Answer},
        {"max_tokens": 1},
        {"max_time": 1},
        {"budget": {"max_cost": 1}},
        {"budget": {"max_iterations": 1}},
    ]

    def fingerprints() -> list[str]:
        return [client.fingerprint(AgentInput(**{"agent_id": "a", "query": "a", **change})) for change in changes]

    first, again = fingerprints(), fingerprints()
    assert first == again
    assert len(set(first)) == len(changes)
    path.write_text("three")
    changed = [change for change, old, new in zip(changes, first, fingerprints(), strict=True) if old != new]
    assert changed == [{"attachments": [upload]}]


class TestExpectedOutput:
    """A pydantic class."""

    @pytest.mark.parametrize(
        "answer",
        [
            '{"rating": "5", "day": "2026-01-01"}',
            '```json\n{"rating": 5, "day": "2026-01-01"}\n```\n',
            {"rating": 5, "day": "2026-01-01", "more": 1},
        ],
    )
    def test_a_matching_answer_is_returned_as_json(self, answer: Any, emulator: Emulator) -> None:
        result = run(answer, expected_output=Answer) if isinstance(answer, str) else complete(answer)
        assert result["output"] == {"rating": 5, "day": "2026-01-01"}
        json.dumps(result)

    def test_its_schema_is_sent(self, emulator: Emulator) -> None:
        run('{"rating": 5}', expected_output=Answer)
        assert emulator.runs()[-1]["payload"]["executionParams"] == {
            "outputFormat": "json",
            "expectedOutput": Answer.model_json_schema(),
        }

    @pytest.mark.parametrize("answer", ["no JSON", '{"rating": "high"}', None, ["rating"]])
    def test_another_answer_is_a_failed_run(self, answer: Any) -> None:
        message = "^Agent echo-agent: the run failed: the answer does not match expected_output: 1 validation error for"
        with pytest.raises(AixplainRunFailed, match=message) as raised:
            complete(answer)
        assert str(raised.value).endswith("; poll URL: https://h/run")
        assert not isinstance(raised.value, AirflowFailException), "the next answer may match"

    def test_a_retry_submits_the_query_again(self, emulator: Emulator) -> None:
        text = "no answer of this type"
        tries = Tries(AGENT, **AGENT.echo(text, delay=0.1), expected_output=Answer)
        for count in (1, 2):
            with pytest.raises(AixplainRunFailed, match="does not match expected_output"):
                tries.run()
            assert not tries.submission
            assert submissions(emulator, text) == count

    def test_a_submission_is_not_checked(self) -> None:
        assert run("no JSON", expected_output=Answer, wait_for_completion=False)["output"] is None

    def test_a_worker_starts_and_finishes_the_task(self) -> None:
        task = operator(deferrable=True, expected_output=Answer, end_from_trigger=True, start_from_trigger=True)
        assert reason_not_end_from_trigger(task) == "the check of its answer"
        assert task.start_trigger_args is None
        loss = str(reason_not_start_from_trigger(task))
        assert ("that JSON does not hold" if AIRFLOW_3 else "below Airflow 3.3") in loss

    def test_a_mapped_task_has_its_class(self, emulator: Emulator) -> None:
        def build() -> Any:
            with DAG("mapped", start_date=START, schedule=None) as dag:
                arguments: Any = {"agent_id": "echo-agent", "expected_output": Answer, "deferrable": False}
                AixplainRunAgentOperator.partial(task_id="run", **arguments).expand(query=['{"rating": 5}'])
                decorated: Any = aixplain_agent_task(lambda text: text, task_id="decorated", **arguments)
                decorated.expand(text=["a"])
                AixplainRunAgentOperator(task_id="plain", query="a", **arguments)
            return dag

        stored, again = (json.dumps(dag_serialization.to_dict(build()), sort_keys=True) for _ in range(2))
        assert stored == again
        assert " at 0x" not in stored
        dag_serialization.from_dict(json.loads(stored))
        task = build().get_task("run").unmap({"query": '{"rating": 5}'})
        task.wait_time = 0.2
        assert task.execute(CONTEXT)["output"] == {"rating": 5, "day": None}


def complete(output: Any) -> dict[str, Any]:
    """Return the result of a run with this answer, which a trigger has reported."""
    response = {"status": "SUCCESS", "data": {"output": output}, "error_message": "", "url": "https://h/run"}
    response |= {"run_time": 1, "used_credits": 1, "usage": None, "additional_fields": {}}
    event = {"status": "success", "message": "", "response": response, "poll_url": "https://h/run"}
    return operator(expected_output=Answer).execute_complete(CONTEXT, event)
