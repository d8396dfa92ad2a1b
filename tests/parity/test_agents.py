"""Agents: this project and ``aixplain.v2`` of the public package side by side, against one recording server.

The parts of a submission and of a result must be equal, as those of models in :mod:`tests.parity.test_parity`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_aixplain.client.account import Platform
from airflow_provider_aixplain.client.blocking import Client
from airflow_provider_aixplain.exceptions import AixplainError
from airflow_provider_aixplain.protocol.assets import Asset
from airflow_provider_aixplain.protocol.response import ModelResponse
from airflow_provider_aixplain.protocol.values import parse_number
from airflow_provider_aixplain.protocol.wait import Outcome
from tests.parity import differences
from tests.parity.differences import AGENT_DIFFERENCES, Case
from tests.parity.test_parity import ANYTHING, PLAIN, SHOWN, TEXT, WORDS, Sides, named, unexplained
from tests.support.peer import KEY, Peer
from tests.support.scripted import Asked, Handler, Server

ID = "6414bd3c"
ACCEPTED = {"requestId": "r", "sessionId": "s", "status": "IN_PROGRESS", "data": "SERVER/sdk/agents/r/result"}
RESULT = {
    "completed": True,
    "status": "SUCCESS",
    "requestId": "r",
    "sessionId": "s",
    "usedCredits": 0.5,
    "runTime": 2,
    "data": {
        "output": "Hello",
        "session_id": "s",
        "steps": [{"id": "1", "used_credits": 0.5}],
        "artifacts": [{"name": "a.csv", "url": "https://h/a.csv?signature=1"}],
    },
}


def submissions() -> list[Case]:
    link = "https://h/files/a.wav"
    table: list[dict[str, Any]] = [
        {},
        {"query": "", "attachments": [link]},
        {"query": {}},
        {"query": {"question": "Why?", "n": 1}, "variables": {"tone": "dry"}},
        {"variables": {"tone": "dry", "deep": [{"a": None}]}},
        {"variables": {"input": "replaces the query"}},
        {"query": {"__enum__": "Hello"}},
        {"query": {"a": {"__nan__": 1}}},
        {"session_id": "s-1"},
        {"agent_id": "team/an agent"},
        *({"output_format": value} for value in ("text", "markdown", "xml")),
        {"output_format": "json", "expected_output": '{"a": 1}'},
        {"output_format": "json", "expected_output": "no JSON"},
        {"expected_output": "a list of three"},
        {"expected_output": ""},
        {"expected_output": {"properties": {"é": {"type": "string"}}}, "output_format": "json"},
        {"expected_output": {"__answer__": 1}, "output_format": "json"},
        {"expected_output": {"__answer__": 1}},
        {"expected_output": {"__answer__": 1}, "output_format": "text"},
        {"max_tokens": 10, "max_time": 20, "output_format": "text", "expected_output": "short"},
        {"max_tokens": -1},
        {"budget": {"max_cost": 0.5, "max_duration_seconds": 60, "max_iterations": 3}},
        {"budget": {"max_cost": 1, "max_iterations": None}},
        *({"budget": {name: value}} for name, value in (("max_cost", -1), ("max_iterations", 0), ("most", 1))),
        {"tools": [{"id": "t", "parameters": {"limit": 5, "site": "h"}}, {"id": "u", "parameters": {}}]},
        {"tools": [{"id": "t", "parameters": {"limit": None, "site": "h"}}]},
        {"attachments": [f"{link}?signature=/x", "http://h/a.png", "s3://bucket/a.pdf", "https://h/a.py"]},
        {
            "attachments": [
                "s3://b/a.docx",
                "s3://b/a.ppt",
                "s3://b/a.xls",
                "s3://b/a.csv",
                "s3://b/a.json",
                "s3://b/a.none",
                "https://h/",
                "https://h",
            ]
        },
        {"attachments": [f"{link}#t=1"]},
        {
            "attachments": [
                {"url": link, "name": "b.mp3"},
                {"url": link, "name": "b", "type": "text", "mimeType": "a/b"},
            ]
        },
        {"attachments": [{"url": link}]},
        {"attachments": [{"url": "s3://b/k", "name": "k", "mimeType": "audio/wav"}]},
        {"attachments": [f"s3://b/a.{suffix}" for suffix in ("m4a", "opus", "dotx", "sqlite", "bin")]},
        {"attachments": [{"url": link, "name": "a", "codec": "pcm"}]},
        {"attachments": [differences.__file__]},
    ]
    answers: list[Any] = [
        {key: value for key, value in ACCEPTED.items() if key != "status"},
        {**ACCEPTED, "sessionId": None},
        RESULT,
        {**RESULT, "status": "FAILED", "error": "no"},
        {},
        b"<html>",
    ]
    arguments = {"agent_id": ID, "query": "Hello"}
    return [
        *(Case("submit_agent", {**arguments, **more}, 200, ACCEPTED) for more in table),
        *(Case("submit_agent", arguments, 200, body) for body in answers),
        *(Case("submit_agent", arguments, code, {"error": "no"}) for code in (400, 402, 404, 429, 503)),
        Case("run_agent_in_session", {**arguments, "session_id": "s-1", "max_tokens": 5}, 200, RESULT),
    ]


def polls() -> list[Case]:
    data = RESULT["data"]
    answers: list[Any] = [
        RESULT,
        {"completed": False},
        {"completed": False, "status": "IN_PROGRESS", "data": {"steps": [{"id": "1"}]}},
        {"completed": False, "status": "IN_PROGRESS", "progress": {"stage": "running"}},
        *({**RESULT, "status": status} for status in ("COMPLETED", "success", "ABORTED", "CANCELLED", "FAILED", "ODD")),
        {"completed": True, "data": data},
        {"completed": True},
        {"completed": False, "status": "SUCCESS", "data": data},
        {"status": "SUCCESS", "data": data},
        {"completed": "yes", "status": "SUCCESS"},
        {"completed": True, "status": None},
        {**RESULT, "requestId": None},
        {**RESULT, "sessionId": None},
        {**RESULT, "sessionId": 5, "requestId": {"a": 1}},
        {**RESULT, "sessionId": None, "data": {"sessionId": "s", "output": 5}},
        *({**RESULT, "data": value} for value in ("a text", "", None, 0, [1], {})),
        {**RESULT, "data": {"output": {"a": [1]}, "artifacts": "none", "steps": "none", "executionStats": [1]}},
        {**RESULT, "data": {"artifacts": [{"url": "https://h/1"}, 5, None, {"url": None, "content": "a"}, {"url": 5}]}},
        {**RESULT, "usedCredits": None, "runTime": None, "data": {"executionStats": {"credits": "1.5", "runtime": 3}}},
        {**RESULT, "usedCredits": 0, "runTime": 0, "data": {"steps": [{"used_credits": 0.25}, {"credits": 0.5}, 7]}},
        {**RESULT, "usedCredits": -1, "runTime": "soon"},
        *({"completed": True, "status": "ABORTED", **reason} for reason in ({"errorMessage": "no"}, {"error": "no"})),
        {"completed": True, "status": "SUCCESS", "data": {"error": "a warning", "output": "a"}},
        {"completed": True, "status": "SUCCESS", "supplierError": "quota"},
        {"completed": True, "status": "ABORTED", "errorDetails": {"message": "no", "code": "AX-1"}},
        {"error": "no"},
        {},
        b"<html>",
    ]
    url = {"poll_url": "SERVER/sdk/agents/r/result"}
    return [
        *(Case("poll_agent", url, 200, body) for body in answers),
        Case("poll_agent", url, 404, RESULT),
    ]


class AgentSides(Sides):
    """Both sides at work on one case of an agent."""

    def seen(self, case: Case, call: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
        tools = [
            {"id": tool["id"], "type": "model", "parameters": [{"name": name} for name in tool["parameters"]]}
            for tool in case.arguments.get("tools", ())
        ]
        record = {"id": case.arguments.get("agent_id"), "name": "A", "status": "onboarded", "tools": tools}

        def answer(http: Handler) -> None:
            status_code, body = 200, None
            if http.path.startswith("/v1/sessions/"):
                body = {"id": "s-1", "agentId": ID, "requestId": "r"}
            elif http.command == "GET" and http.path.startswith("/v2/agents/"):
                body = record
            elif http.command == "POST" and case.call == "run_agent_in_session":
                body = ACCEPTED
            else:
                status_code = case.status_code
            raw = case.raw if body is None else json.dumps(body).encode()
            http.answer(status_code, self.placed(raw), **{"Content-Type": "application/json"})

        self.recorder.script = answer
        self.recorder.asked.clear()
        outcome = call(json.loads(self.placed(json.dumps(case.arguments).encode())))
        posts = [asked for asked in self.recorder.asked if asked.method == "POST"]
        parts = {
            "submissions": len(posts),
            "other requests": [(asked.method, asked.path) for asked in self.recorder.asked if asked not in posts],
        }
        for asked in posts:
            parts |= self.flat(asked)
        return {**parts, **self.parts(outcome)}

    @staticmethod
    def flat(asked: Asked) -> dict[str, Any]:
        """Return the parts of a submission; null is a part too."""
        kind = asked.headers.get("content-type")
        parts: dict[str, Any] = {"path": asked.path, "key": asked.headers.get("x-api-key"), "media type": kind}
        for key, value in (json.loads(asked.body) if kind == "application/json" else {}).items():
            if key in ("executionParams", "metaData"):
                parts |= {f"{key}.{name}": "null" if item is None else item for name, item in value.items()}
            elif key == "attachments":
                names = {name for one in value for name in one}
                parts |= {f"{key}.{name}": [one.get(name) for one in value] for name in names}
            else:
                parts[key] = value
        return parts

    def ours(self, call: str, arguments: dict[str, Any]) -> dict[str, Any]:
        client = Client(Platform(KEY, backend_url=self.recorder.url, models_run_url=self.recorder.url))
        calls: dict[str, Callable[..., ModelResponse]] = {
            "submit_agent": client.run_agent_async,
            "run_agent_in_session": client.run_agent,
            "poll_agent": client.poll,
        }
        try:
            response = calls[call](**arguments)
        except AixplainError as error:
            return {"raises": str(error)}
        # A task reads the response from its trigger's event.
        event = Outcome("success", "", response).to_event(arguments.get("poll_url", ""))
        result = Asset("agent", "a").result(event["response"])
        names = ("status", "completed", "request_id", "output", "session_id")
        return {
            "returns": {
                **{name: result[name] for name in names},
                **{name: parse_number(result[name]) or 0 for name in ("used_credits", "run_time")},
                "url": result["url"] or None,
                "error_message": result["error_message"] or None,
                "artifacts": [one.get("url") if isinstance(one, dict) else one for one in result["artifacts"]],
            }
        }


@pytest.fixture(scope="module")
def sides(peer: Peer, recorder: Server, tmp_path_factory: pytest.TempPathFactory) -> AgentSides:
    return AgentSides(peer, recorder, tmp_path_factory.mktemp("upload"))


CASES = [*submissions(), *polls()]
RUN: list[Case] = []


@pytest.mark.parametrize("case", CASES, ids=named)
def test_submissions_and_results_are_equal(sides: AgentSides, case: Case) -> None:
    RUN.append(case)
    assert unexplained(sides, case, AGENT_DIFFERENCES) == {}


def test_every_listed_difference_occurs() -> None:
    """A row that no case shows is stale."""
    if len(RUN) < len(CASES):
        pytest.skip("only part of the cases ran")
    assert {row.what for row in AGENT_DIFFERENCES} - SHOWN == set()


def test_a_session_takes_the_package_five_requests(sides: AgentSides) -> None:
    arguments = {
        "agent_id": ID,
        "query": "Hello",
        "session_id": "s-1",
        "max_tokens": 5,
        "attachments": ["s3://b/a.wav"],
    }
    sides.differing(case := Case("run_agent_in_session", arguments, 200, RESULT))
    assert [(asked.method, asked.path) for asked in sides.recorder.asked] == [
        ("POST", f"/v2/agents/{ID}/run"),
        ("GET", "/sdk/agents/r/result"),
    ], "ours"
    theirs = sides.seen(case, lambda given: sides.peer.call(case.call, given))
    assert theirs["other requests"] == [
        ("GET", f"/v2/agents/{ID}"),
        ("GET", "/v1/sessions/s-1"),
        ("PUT", "/v1/sessions/s-1"),
        ("GET", "/sdk/agents/r/result"),
    ]
    assert (theirs["path"], theirs["role"], theirs["content"]) == ("/v1/sessions/s-1/messages", "user", "Hello")
    (settings,) = [json.loads(asked.body) for asked in sides.recorder.asked if asked.method == "PUT"]
    assert settings["executionConfig"] == {"executionParams": {"maxTokens": 5}}
    assert not {"metaData.userAgent", "executionParams.maxTokens", "sessionId"} & theirs.keys()


SOME = settings(ANYTHING, max_examples=60)
TEXTS = (TEXT | WORDS).filter(str.strip)
NAMES = WORDS.filter(lambda name: name not in ("", "input"))
VALUES = st.integers(1, 10**6) | st.floats(0.001, 1e9)
LINKS = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["https://h/", "http://h/d/", "s3://bucket/"]),
    st.text("ab%é ", min_size=1, max_size=5),
    st.sampled_from(["", ".wav", ".png", ".pdf", ".txt", ".csv", ".json", ".mp4", ".py", ".xlsx", ".ppt", ".odd"]),
    st.sampled_from(["", "?signature=/a.b&c=d"]),
)
ATTACHMENTS = LINKS | st.fixed_dictionaries(
    {"url": LINKS, "name": WORDS.filter(bool)}, optional={"type": st.sampled_from(["text", "audio", "document"])}
)
FORMATS = st.fixed_dictionaries({"output_format": st.sampled_from(["text", "markdown"]), "expected_output": TEXTS}) | (
    st.fixed_dictionaries(
        {"expected_output": st.dictionaries(WORDS, PLAIN, min_size=1, max_size=3) | PLAIN.map(json.dumps)},
        optional={"output_format": st.just("json")},
    )
)
ARGUMENTS = st.fixed_dictionaries(
    {"query": TEXTS | st.dictionaries(NAMES, PLAIN, min_size=1, max_size=3)},
    optional={
        "variables": st.dictionaries(NAMES, PLAIN, max_size=3),
        "session_id": st.text("abc-_1", min_size=1),
        "max_tokens": st.integers(1, 10**9),
        "max_time": VALUES,
        "budget": st.fixed_dictionaries(
            {}, optional={"max_cost": VALUES, "max_duration_seconds": VALUES, "max_iterations": st.integers(1, 99)}
        ),
        "attachments": st.lists(ATTACHMENTS, max_size=3),
        "tools": st.dictionaries(
            st.text("tu", min_size=1, max_size=3),
            st.dictionaries(NAMES, PLAIN.filter(lambda value: value is not None), max_size=3),
            max_size=2,
        ).map(lambda tools: [{"id": name, "parameters": parameters} for name, parameters in tools.items()]),
    },
)


@SOME
@given(ARGUMENTS, st.just({}) | FORMATS)
def test_any_input_is_sent_alike(sides: AgentSides, arguments: dict[str, Any], formats: dict[str, Any]) -> None:
    case = Case("submit_agent", {"agent_id": ID, **arguments, **formats}, 200, ACCEPTED)
    assert unexplained(sides, case, AGENT_DIFFERENCES) == {}


FIGURES = st.none() | st.just(0) | VALUES | VALUES.map(str)
OUTPUTS = st.fixed_dictionaries(
    {},
    optional={
        "output": PLAIN,
        "input": PLAIN,
        "session_id": WORDS,
        "critiques": WORDS,
        "error": WORDS,
        "executionStats": st.fixed_dictionaries({}, optional={"credits": FIGURES, "runtime": FIGURES}),
        "steps": st.lists(st.fixed_dictionaries({"id": WORDS}, optional={"used_credits": FIGURES}), max_size=3),
        "artifacts": st.lists(st.fixed_dictionaries({"url": WORDS}, optional={"name": WORDS}), max_size=2),
    },
)
RESULTS = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["SUCCESS", "IN_PROGRESS", "FAILED", "COMPLETED", "ABORTED", "ERROR", "odd"]),
        "completed": st.booleans(),
        "data": OUTPUTS | WORDS | PLAIN,
        "sessionId": WORDS,
        "requestId": WORDS,
        "usedCredits": FIGURES,
        "runTime": FIGURES,
        "errorMessage": WORDS,
        "error": WORDS,
    },
)


@SOME
@given(RESULTS)
def test_any_result_is_read_alike(sides: AgentSides, body: dict[str, Any]) -> None:
    case = Case("poll_agent", {"poll_url": "SERVER/sdk/agents/r/result"}, 200, body)
    assert unexplained(sides, case, AGENT_DIFFERENCES) == {}
