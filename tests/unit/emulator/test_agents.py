"""The emulator's agents work with its models."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_provider_aixplain.emulator.agents import AgentRun, Outcome, check, rated_reviews, work
from airflow_provider_aixplain.emulator.models import MODELS, credits_for
from tests.support.deployment import Emulator, Processes, wait_until

KEY = {"x-api-key": "any"}
TOKEN = {"Authorization": "Token any"}
GOOD = "I love this wonderful lamp, it is the best of all"
BAD = "This is a terrible disappointment and a waste of money"
ITALIAN = "Il libro racconta la storia di una famiglia italiana durante la guerra"


def submission(query: Any, **parameters: Any) -> dict[str, Any]:
    return {"query": query, "executionParams": parameters}


def outcome_of(agent_id: str, query: Any, *earlier: Outcome, texts: tuple[str, ...] = (), **parameters: Any) -> Outcome:
    steps = [step for outcome in earlier for step in outcome.steps]
    return work(agent_id, submission(query, **parameters), 10.0, list(texts), steps)


def answer_to(outcome: Outcome, query: Any, seconds: float, elapsed: float) -> dict[str, Any]:
    """Return the response to a poll at a time of the run."""

    async def respond() -> dict[str, Any]:
        output: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        output.set_result(outcome)
        fields = {"id": "r", "agent_id": "a", "session_id": "s", "payload": submission(query), "seconds": seconds}
        return AgentRun(**fields, submitted_at=time.time() - elapsed, output=output).response()

    return asyncio.run(respond())


def submit(emulator: Emulator, agent_id: str, body: Any, path: str = "v2/agents") -> requests.Response:
    return requests.post(f"{emulator.url}/{path}/{agent_id}/run", json=body, headers=KEY, timeout=10)


def finish(submitted: requests.Response) -> dict[str, Any]:
    assert submitted.status_code == 201, submitted.text

    def finished() -> Any:
        answer = requests.get(submitted.json()["data"], headers=KEY, timeout=10).json()
        return answer if answer["completed"] else None

    answer: dict[str, Any] = wait_until(finished, "the run", 20, every=0.05)
    return answer


@pytest.mark.parametrize("query", [f"{GOOD}\n\n {BAD}\n{ITALIAN}\n", json.dumps([GOOD, BAD, ITALIAN])])
def test_the_analyst_counts_what_the_models_return(query: str) -> None:
    outcome = outcome_of("review-analyst", query)
    assert [(step["input"], step["unit"]["id"], step["output"]) for step in outcome.steps] == [
        (review, model, MODELS[model].run({"data": review}).data)
        for review in (GOOD, BAD, ITALIAN)
        for model in ("language", "sentiment")
    ]
    assert outcome.output == "reviews 3, positive 1, neutral 1, negative 1, languages (en 2, it 1)"


def test_a_step_costs_what_its_model_costs() -> None:
    (step, _) = outcome_of("review-analyst", GOOD).steps
    assert step["used_credits"] == credits_for(len(json.dumps({"data": GOOD}))) > 0


def test_a_conversation_knows_its_earlier_reviews() -> None:
    first = outcome_of("review-analyst", f"{GOOD}\n{GOOD}")
    second = outcome_of("review-analyst", BAD, first)
    assert second.output == (
        "reviews 1, positive 0, neutral 0, negative 1, languages (en 1), "
        "earlier (reviews 2, positive 2, neutral 0, negative 0, languages (en 2))"
    )


SCHEMA = {"type": "object", "properties": {"negative": {"type": "integer"}, "reviews": {}, "author": {}}}


@pytest.mark.parametrize(
    ("expected", "output"),
    [
        (SCHEMA, {"negative": 1, "reviews": 1, "author": None}),
        (json.dumps({"positive": 0}), {"positive": 0}),
        ("[]", {"reviews": 1, "positive": 0, "neutral": 0, "negative": 1, "languages": {"en": 1}}),
    ],
)
def test_json_output_has_the_expected_properties(expected: Any, output: dict[str, Any]) -> None:
    outcome = outcome_of("review-analyst", BAD, outputFormat="json", expectedOutput=expected)
    assert json.loads(str(outcome.output)) == output


@pytest.mark.parametrize(("query", "output"), [("no JSON", "no JSON"), ({"input": {"reviews": 2}}, '{"reviews": 2}')])
def test_the_echo_agent_answers_any_json_output(query: Any, output: str) -> None:
    assert outcome_of("echo-agent", query, outputFormat="json", expectedOutput='{"reviews": 1}').output == output


def test_attachments_are_further_input() -> None:
    assert len(rated_reviews(outcome_of("review-analyst", GOOD, texts=(f"{BAD}\n{GOOD}", BAD)).steps)) == 4
    assert len(rated_reviews(outcome_of("review-analyst", "", texts=(BAD,)).steps)) == 1
    assert outcome_of("echo-agent", "query", texts=("file",)).output == "query\nfile"


def test_a_team_has_the_steps_of_its_members() -> None:
    outcome = outcome_of("review-team", GOOD)
    assert [step["agent"]["name"] for step in outcome.steps] == ["Review analyst", "Review analyst", "Echo agent"]
    analysis = outcome_of("review-analyst", GOOD).output
    assert outcome.output == f"review-analyst ({analysis}), echo-agent {GOOD}"
    assert "earlier (reviews 1" in str(outcome_of("review-team", BAD, outcome).output)


@pytest.mark.parametrize(
    ("budget", "steps"),
    [
        ({"maxIterations": 2}, 2),
        ({"maxIterations": 4}, 4),
        ({"maxCost": 0.0}, 1),
        ({"maxCost": 2 * credits_for(14)}, 3),
        ({"maxDurationSeconds": 2.5}, 2),  # a step takes 2 s
        ({"maxDurationSeconds": 6, "maxIterations": None}, 4),
        ({"maxIterations": 0}, 0),
    ],
)
def test_a_budget_ends_a_run(budget: dict[str, Any], steps: int) -> None:
    query = {"input": "ab", "steps": 5}
    outcome = work("echo-agent", submission(query, budget=budget), 10.0, [], [])
    assert len(outcome.steps) == steps
    answer = answer_to(outcome, query, 10.0, elapsed=2.0 * steps)
    assert (answer["completed"], answer["status"], answer["runTime"]) == (True, "SUCCESS", 2.0 * steps)
    assert (
        answer["usedCredits"] == answer["data"]["executionStats"]["credits"] == pytest.approx(steps * credits_for(14))
    )
    assert answer["data"]["governanceStatus"] == "BLOCKED_BY_BUDGET"
    assert f"after {steps} of 5 steps" in answer["data"]["governanceReason"]


def test_a_sufficient_budget_ends_nothing() -> None:
    budget = {"maxCost": 1, "maxDurationSeconds": 10, "maxIterations": 2}
    outcome = outcome_of("review-analyst", GOOD, budget=budget)
    assert (len(outcome.steps), outcome.exceeded) == (2, None)
    assert "governanceStatus" not in answer_to(outcome, GOOD, 10.0, elapsed=10.0)["data"]


def test_a_failing_model_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "sentiment", MODELS["fail"])
    answer = answer_to(outcome_of("review-analyst", f"{GOOD}\n{BAD}"), "", 10.0, elapsed=5.0)
    message = "this model always fails"
    assert (answer["status"], answer["error"]) == ("FAILED", message)
    assert answer["errorDetails"] == {"code": "EMULATED_FAILURE", "message": message}
    assert (answer["data"]["steps"][1]["output"], answer["data"]["output"]) == (f"ERROR: {message}", None)
    assert answer["data"]["diagnosticErrorCodes"] == ["TOOL_FAILED"]
    assert answer["usedCredits"] > 0


@pytest.mark.parametrize("query", [" \n ", {"input": [1]}, {"other": "text"}])
def test_the_analyst_needs_reviews(query: Any) -> None:
    answer = answer_to(outcome_of("review-analyst", query), query, 10.0, elapsed=10.0)
    assert (answer["status"], answer["data"]["steps"]) == ("FAILED", [])


@pytest.mark.parametrize("status", ["FAILED", "ABORTED"])
def test_a_query_can_request_how_its_run_ends(status: str) -> None:
    query = {"input": "hello", "outcome": status.lower()}
    answer = answer_to(outcome_of("echo-agent", query), query, 1.0, elapsed=1.0)
    assert (answer["completed"], answer["status"], answer["data"]["output"]) == (True, status, None)
    assert status in answer["error"]


def test_steps_grow_while_time_passes() -> None:
    outcome = outcome_of("review-analyst", f"{GOOD}\n{BAD}")
    assert len(outcome.steps) == 4
    for done in range(4):
        answer = answer_to(outcome, "", 4000.0, elapsed=1000.0 * done + 500)
        assert (answer["completed"], answer["status"]) == (False, "IN_PROGRESS")
        *finished, current = answer["data"]["steps"]
        assert finished == outcome.steps[:done]
        assert current["id"] == outcome.steps[done]["id"]
        assert current["task"]
        assert not {"output", "used_credits"} & set(current)


def test_answers_have_the_requested_size() -> None:
    query = {"input": "hello", "steps_bytes": 123_456, "progress_bytes": 100_000}
    outcome = outcome_of("echo-agent", query)

    def thoughts(elapsed: float) -> int:
        steps = answer_to(outcome, query, 1000.0, elapsed)["data"]["steps"]
        assert len({step["id"] for step in steps}) == len(steps)
        return sum(len(step.get("thought", "")) for step in steps)

    assert thoughts(250.0) == pytest.approx(25_000, abs=1_000)
    assert thoughts(990.0) == pytest.approx(99_000, abs=1_000)
    assert thoughts(1000.0) == 123_456


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "query"),
        (submission(""), "query"),
        (submission({}), "query"),
        (submission({"input": " "}), "query"),
        (submission({"input": "a", "outcome": "good"}), "query.outcome"),
        (submission({"input": "a", "steps": "many"}), "query.steps"),
        (submission("a", budget={"maxCost": -1}), "executionParams.budget.maxCost"),
        (submission("a", budget={"maxIterations": "two"}), "executionParams.budget.maxIterations"),
        (submission("a", budget={"maxDurationSeconds": True}), "executionParams.budget.maxDurationSeconds"),
        (submission("a", budget=[1]), "budget"),
        (submission("a", outputFormat="json"), "executionParams.expectedOutput"),
        (submission("a", outputFormat="json", expectedOutput="words"), "executionParams.expectedOutput"),
        ({"query": "a", "executionParams": 1}, "executionParams"),
        ({"query": "a", "attachments": "a"}, "attachments"),
    ],
)
def test_invalid_submissions_name_the_field(body: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (submission(""), "query"),
        ({"query": "a", "sessionId": "review-analyst_1"}, "sessionId"),
        ({"query": "a", "attachments": [{"url": "s3://bucket/key/a.txt"}]}, "attachments"),
        ({"query": "a", "attachments": [{}]}, "attachments"),
        (submission({"input": "a", "delay": -1}), "delay"),
        ([], "body"),
    ],
)
def test_invalid_submissions_are_refused(emulator: Emulator, body: Any, message: str) -> None:
    answer = submit(emulator, "review-analyst", body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_an_unknown_agent_is_404(emulator: Emulator) -> None:
    url = f"{emulator.url}/v2/agents/nope"
    for answer in (submit(emulator, "nope", submission("a")), requests.get(url, headers=KEY, timeout=10)):
        assert answer.status_code == 404
        assert answer.json()["error"] == "no agent nope; there are review-analyst, echo-agent, review-team"


def test_a_session_continues_a_conversation(emulator: Emulator) -> None:
    submitted = submit(emulator, "review-analyst", submission({"input": GOOD, "delay": 0}))
    session, request = submitted.json()["sessionId"], submitted.json()["requestId"]
    assert submitted.json()["data"] == f"{emulator.url}/sdk/agents/{request}/result"
    first = finish(submitted)
    assert (first["sessionId"], first["requestId"]) == (session, request)
    body = {**submission({"input": BAD, "delay": 0}), "sessionId": session}
    second = finish(submit(emulator, "review-analyst", body))
    assert (second["sessionId"], second["data"]["session_id"]) == (session, session)
    assert "earlier (reviews 1, positive 1" in second["data"]["output"]
    assert submit(emulator, "echo-agent", body).status_code == 400, "a session belongs to one agent"
    entries = [run for run in emulator.runs() if run["session_id"] == session]
    assert [(run["agent_id"], run["model_id"], run["payload"]["query"]["input"]) for run in entries] == [
        ("review-analyst", None, GOOD),
        ("review-analyst", None, BAD),
    ]


def test_polls_of_agents_get_faults(emulator: Emulator) -> None:
    url = submit(emulator, "echo-agent", submission("a")).json()["data"]
    emulator.set_faults(rate=1, kinds=["redirect"])
    try:
        assert requests.get(url, headers=KEY, timeout=10, allow_redirects=False).status_code == 302
    finally:
        emulator.set_faults()


def test_an_artifact_needs_no_key_until_its_link_expires(emulator: Emulator) -> None:
    query = {"input": f"{GOOD}\n{ITALIAN}", "delay": 0}
    (artifact,) = finish(submit(emulator, "review-analyst", submission(query)))["data"]["artifacts"]
    assert datetime.fromisoformat(artifact["url_expires_at"]).timestamp() == pytest.approx(time.time() + 86400, abs=60)
    content = requests.get(artifact["url"], timeout=10)
    assert len(content.content) == artifact["byte_size"]
    assert list(csv.reader(io.StringIO(content.text))) == [
        ["review", "language", "sentiment"],
        [GOOD, "en", "positive"],
        [ITALIAN, "it", "neutral"],
    ]
    expired = finish(submit(emulator, "review-analyst", submission({**query, "link_seconds": 0})))["data"]["artifacts"]
    for url in (expired[0]["url"], artifact["url"] + "x"):
        assert requests.get(url, timeout=10).status_code == 403
    assert finish(submit(emulator, "echo-agent", submission({"input": "a", "delay": 0})))["data"]["artifacts"] == []


@pytest.mark.parametrize("path", ["sdk/agents", "sdk/agent-communities"])
def test_legacy_endpoints_run_agents(emulator: Emulator, path: str) -> None:
    body = {"query": {"input": GOOD, "delay": 0}, "sessionId": "review-team_20260101", "executionParams": {}}
    assert finish(submit(emulator, "review-team", body, path))["sessionId"] == body["sessionId"]
    body["sessionId"] = "other_20260101"
    assert submit(emulator, "review-team", body, path).status_code == 400


def test_an_agent_has_a_record_and_a_page(emulator: Emulator) -> None:
    record = requests.get(f"{emulator.url}/v2/agents/review-analyst", headers=KEY, timeout=10).json()
    assert (record["id"], record["name"], record["status"]) == ("review-analyst", "Review analyst", "onboarded")
    page = requests.get(f"{emulator.url}/discover/agent/review-analyst", timeout=10)
    assert record["description"] in page.text


def test_runs_and_attachments_survive_a_restart(tmp_path: Path) -> None:
    with Processes(tmp_path / "emulator") as processes:
        emulator = Emulator(processes, seconds=600)
        form = {"originalName": "reviews.txt"}
        upload = f"{emulator.url}/sdk/file/upload/temp-url"
        offer = requests.post(upload, headers=TOKEN, data=form, timeout=10).json()
        requests.put(offer["uploadUrl"], data=BAD.encode(), timeout=10).raise_for_status()
        links = [{"url": f"s3://bucket/{offer['key']}"}, {"url": offer["downloadUrl"]}]
        first = submit(emulator, "review-analyst", submission({"input": GOOD, "delay": 0})).json()
        body = {"query": GOOD, "attachments": links, "sessionId": first["sessionId"]}
        submitted = submit(emulator, "review-analyst", body)

        def steps() -> Any:
            return requests.get(submitted.json()["data"], headers=KEY, timeout=10).json()["data"]["steps"]

        before = wait_until(steps, "the models", 30)
        processes.kill("emulator")
        emulator.start()
        assert wait_until(steps, "the models", 30) == before
        again = finish(submit(emulator, "review-analyst", {**body, "query": {"input": GOOD, "delay": 0}}))
        assert (
            "reviews 3, positive 1, neutral 0, negative 2, languages (en 3), earlier (reviews 4,"
            in again["data"]["output"]
        )
