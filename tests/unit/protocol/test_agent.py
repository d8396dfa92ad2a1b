"""The request that starts the run of an agent."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from airflow_provider_aixplain.protocol.agent import BUDGET, OUTPUT_FORMATS, AgentInput, input_type
from airflow_provider_aixplain.protocol.assets import Asset
from airflow_provider_aixplain.protocol.failure import InvalidInput
from airflow_provider_aixplain.protocol.payload import ModelInput
from airflow_provider_aixplain.protocol.upload import UploadLink
from airflow_provider_aixplain.protocol.values import NOT_JSON
from tests.support.fuzzing import examples
from tests.unit.protocol.strategies import OBJECTS

ENDPOINTS = SimpleNamespace(backend_url="https://h", models_run_url="https://h/api/v1/execute")
PARAMS = {"executionParams": {}, "runResponseGeneration": False, "metaData": {"userAgent": "airflow-provider-aixplain"}}


class Answer(BaseModel):
    rating: int


class NoSchema(BaseModel):
    function: Callable[[], None]


class OddDefault(BaseModel):
    share: float = float("nan")


class Lazy(Sequence[Any]):
    """What Airflow passes of a mapped task."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)


class File:
    """What DAG code marks to be uploaded."""

    name = "first.wav"


def upload(value: Any) -> Any:
    return "s3://b/k" if isinstance(value, File) else NOT_JSON


class Tone(Enum):
    KIND = "kind"


def cyclic() -> list[Any]:
    endless: list[Any] = []
    endless.append(endless)
    return endless


def body(**arguments: Any) -> dict[str, Any]:
    """Return the JSON body of a run's request."""
    request = AgentInput(**{"agent_id": "a", "query": "Hello", **arguments}).request(ENDPOINTS, upload)
    assert isinstance(request.body, bytes)
    value = json.loads(request.body, parse_constant=pytest.fail)
    assert isinstance(value, dict)
    return value


def params(**arguments: Any) -> dict[str, Any]:
    """Return the execution parameters of a run."""
    value = body(**arguments)["executionParams"]
    assert isinstance(value, dict)
    return value


def test_what_is_not_given_is_not_sent() -> None:
    sent = {"id": "a", "query": {"input": "Hello"}, **PARAMS}
    assert body() == sent
    assert body(variables={}, attachments=[], tools=(), budget={}) == sent
    assert body(budget=dict.fromkeys(BUDGET), tools=[{"id": "t"}, {"id": "u", "parameters": {}}]) == sent


def test_the_request_names_the_agent_in_its_url() -> None:
    run = AgentInput("team/an agent", "Hello")
    request = run.request(ENDPOINTS)
    assert (request.method, request.url) == ("POST", "https://h/v2/agents/team%2Fan%20agent/run")
    assert json.loads(request.body)["id"] == "team/an agent"  # type: ignore[arg-type]
    assert (run.asset, run.id_name) == (Asset("agent", "team/an agent"), "agent_id")


@pytest.mark.parametrize(
    ("query", "variables", "sent"),
    [
        ("Hello", {"tone": "kind"}, {"input": "Hello", "tone": "kind"}),
        ('{"a": 1}', None, {"input": '{"a": 1}'}),
        ({"question": "Why?", "tone": "dry"}, {"tone": Tone.KIND}, {"question": "Why?", "tone": "kind"}),
        ({"input": "Hello"}, {"input": "replaced"}, {"input": "replaced"}),
        (
            {"input": File(), "more": [File()]},
            {"f": File()},
            {"input": "s3://b/k", "more": ["s3://b/k"], "f": "s3://b/k"},
        ),
        (File(), None, {"input": "s3://b/k"}),
        (Tone.KIND, None, {"input": "kind"}),
    ],
)
def test_query_and_variables_are_merged(query: Any, variables: Any, sent: dict[str, Any]) -> None:
    assert body(query=query, variables=variables) == {"id": "a", "query": sent, **PARAMS}


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ({"output_format": "markdown"}, {"outputFormat": "markdown"}),
        ({"expected_output": "a list"}, {"expectedOutput": "a list"}),
        ({"expected_output": "a list", "output_format": "text"}, {"outputFormat": "text", "expectedOutput": "a list"}),
        ({"expected_output": {"é": Tone.KIND}}, {"expectedOutput": json.dumps({"é": "kind"})}),
        (
            {"expected_output": '{"a": 1}', "output_format": "json"},
            {"outputFormat": "json", "expectedOutput": '{"a": 1}'},
        ),
        ({"expected_output": Answer}, {"outputFormat": "json", "expectedOutput": Answer.model_json_schema()}),
        ({"max_tokens": 10.0, "max_time": 1.5}, {"maxTokens": 10, "maxTime": 1.5}),
        (
            {"budget": {"max_cost": 0.5, "max_duration_seconds": 60, "max_iterations": 3}},
            {"budget": {"maxCost": 0.5, "maxDurationSeconds": 60, "maxIterations": 3}},
        ),
        ({"budget": {"max_cost": 2, "max_iterations": None}}, {"budget": {"maxCost": 2}}),
    ],
)
def test_settings_become_execution_parameters(arguments: dict[str, Any], sent: dict[str, Any]) -> None:
    assert json.dumps(params(**arguments), sort_keys=True) == json.dumps(sent, sort_keys=True), "1 is not 1.0"
    AgentInput("a", "Hello", **arguments).check_settings()


def test_a_session_is_sent() -> None:
    assert body(session_id="s 1")["sessionId"] == "s 1"


def test_parameters_of_tools_become_names_and_values() -> None:
    tools = Lazy({"id": "search", "parameters": {"limit": 5, "site": None, "tone": Tone.KIND}}, {"id": "none"})
    sent = [{"name": "limit", "value": 5}, {"name": "site", "value": None}, {"name": "tone", "value": "kind"}]
    assert body(tools=tools)["tools"] == [{"id": "search", "parameters": sent}]


def test_an_uploaded_attachment_has_the_url_to_read_it_from() -> None:
    def link(value: Any) -> Any:
        return UploadLink("s3://b/k", "https://b/k?signature=1") if isinstance(value, File) else NOT_JSON

    sent = json.loads(AgentInput("a", {"input": File()}, attachments=[File()]).body(link))
    assert (sent["query"]["input"], sent["attachments"][0]["url"]) == ("s3://b/k", "https://b/k?signature=1")


@pytest.mark.parametrize(
    ("attachment", "sent"),
    [
        ("https://h/d/a.wav?signature=/x", {"name": "a.wav", "type": "audio", "mimeType": "audio/wav"}),
        ("http://h/a.WAV#t=1", {"name": "a.WAV", "type": "audio", "mimeType": "audio/wav"}),
        ("s3://b/a.png", {"name": "a.png", "type": "image", "mimeType": "image/png"}),
        ("s3://b/a.mp4", {"name": "a.mp4", "type": "video", "mimeType": "video/mp4"}),
        ("s3://b/a.csv", {"name": "a.csv", "type": "text", "mimeType": "text/csv"}),
        ("s3://b/a.pdf", {"name": "a.pdf", "type": "document", "mimeType": "application/pdf"}),
        ("s3://b/a.py", {"name": "a.py", "type": "code", "mimeType": "text/x-python"}),
        ("s3://b/a.json", {"name": "a.json", "type": "unknown", "mimeType": "application/json"}),
        ("s3://b/a.nobody-knows", {"name": "a.nobody-knows"}),
        ("https://[", {"name": "["}),
        ("https://h/", {"name": ""}),
        (File(), {"url": "s3://b/k", "name": "first.wav", "type": "audio", "mimeType": "audio/wav"}),
        ({"url": File(), "name": "b"}, {"url": "s3://b/k", "name": "b"}),
        ({"url": "s3://b/a", "name": "a.wav"}, {"name": "a.wav", "type": "audio", "mimeType": "audio/wav"}),
        ({"url": "s3://b/a", "type": "audio"}, {"name": "a", "type": "audio"}),
        (
            {"url": "s3://b/a", "mimeType": "video/x", "name": None},
            {"name": "a", "type": "video", "mimeType": "video/x"},
        ),
        (
            {"url": "s3://b/a.wav", "type": "text", "mimeType": "a/b"},
            {"name": "a.wav", "type": "text", "mimeType": "a/b"},
        ),
    ],
)
def test_attachments_get_name_and_type(attachment: Any, sent: dict[str, Any]) -> None:
    url = attachment["url"] if isinstance(attachment, dict) else attachment
    expected = {"url": url, **sent}
    assert body(attachments=[attachment])["attachments"] == [expected]
    assert body(attachments=Lazy(attachment, attachment))["attachments"] == [expected] * 2


BAD_SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"output_format": "xml"}, "output_format is 'xml': use text, markdown, json"),
    ({"output_format": []}, r"output_format is \[\]: use"),
    ({"expected_output": ""}, "expected_output is '': give a text, a dict or a pydantic class"),
    ({"expected_output": {}}, r"expected_output is {}: give a text, a dict or a pydantic class"),
    ({"expected_output": 5}, "expected_output is 5: give a text, a dict or a pydantic class"),
    (
        {"expected_output": Answer(rating=1)},
        r"expected_output is Answer\(rating=1\): give a text, a dict or a pydantic class",
    ),
    ({"expected_output": dict}, "expected_output is <class 'dict'>: give a text, a dict or a pydantic class"),
    ({"expected_output": NoSchema}, "expected_output is NoSchema, which has no JSON schema: "),
    ({"expected_output": OddDefault}, r"expected_output\['properties'\]\['share'\]\['default'\] is nan"),
    ({"expected_output": {"a": {1}}}, r"expected_output\['a'\] is a set"),
    ({"expected_output": {"a": cyclic()}}, "expected_output refers to itself or nests too deeply"),
    ({"expected_output": Answer, "output_format": "text"}, "expected_output is <class .*: give a text$"),
    ({"expected_output": {"a": 1}, "output_format": "markdown"}, r"expected_output is {'a': 1}: give a text$"),
    (
        {"expected_output": "a list", "output_format": "json"},
        "expected_output is not JSON, while output_format is json",
    ),
    *(
        ({name: value}, f"{name} is .*: give {needed} above 0")
        for name, needed in (("max_tokens", "an integer"), ("max_time", "a number"))
        for value in (0, -1, "5", True, float("nan"), float("inf"), 10**13, [1], {})
    ),
    ({"max_tokens": 1.5}, "max_tokens is 1.5: give an integer above 0"),
    ({"budget": 5}, "budget is a int: give a dict"),
    (
        {"budget": {"maxCost": 5}},
        "budget has the unknown key 'maxCost': the keys are max_cost, max_duration_seconds, max",
    ),
    ({"budget": {"max_cost": "5"}}, r"budget\['max_cost'\] is '5': give a number above 0"),
    ({"budget": {"max_cost": -0.5}}, r"budget\['max_cost'\] is -0.5: give a number above 0"),
    ({"budget": {"max_duration_seconds": 0}}, r"budget\['max_duration_seconds'\] is 0: give a number above 0"),
    ({"budget": {"max_iterations": 2.5}}, r"budget\['max_iterations'\] is 2.5: give an integer above 0"),
    ({"tools": {"id": "a"}}, "tools is a dict: give a list"),
    ({"tools": ["a"]}, r"tools\[0\] is 'a': give a dict of id and parameters"),
    ({"tools": [{"id": "a"}, {"id": " "}]}, r"tools\[1\] is {'id': ' '}: give a dict of id and parameters"),
    ({"tools": [{"id": "a", "action": 1}]}, r"tools\[0\] is .*: give a dict of id and parameters"),
    ({"tools": [{"id": "a", "parameters": [1]}]}, r"tools\[0\]\['parameters'\] is a list: give a dict"),
    ({"tools": [{"id": "a", "parameters": {"b": {1}}}]}, r"tools\[0\]\['parameters'\]\['b'\] is a set"),
    ({"tools": [{"id": "a", "parameters": {"b": cyclic()}}]}, r"tools\[0\]\['parameters'\] refers to itself"),
]

BAD_INPUT: list[tuple[dict[str, Any], str]] = [
    *(({"agent_id": value}, "agent_id is .*: copy it from its page") for value in ("", " ", "a\n", None, 5, object())),
    ({"agent_id": "a/../b"}, "agent_id is 'a/../b'"),
    *(
        ({"query": value}, "query is .*: give a text, or a dict that is not empty")
        for value in ("", "\n", {}, None, 5, [])
    ),
    ({"query": {"a": [{1}]}}, r"query\['a'\]\[0\] is a set"),
    ({"query": {"a": cyclic()}}, "query refers to itself or nests too deeply"),
    ({"query": {"a": 10**5000}}, "the query or a setting contains a value that JSON cannot hold"),
    ({"query": SimpleNamespace(read_bytes=None)}, "query is a SimpleNamespace, .* wrap it in Upload"),
    ({"variables": "a=1"}, "variables is a str: give a dict"),
    ({"variables": {"a": float("nan")}}, r"variables\['a'\] is nan"),
    ({"variables": {"a": cyclic()}}, "variables refers to itself or nests too deeply"),
    ({"variables": {"input": "other"}}, "variables has the key 'input', which is the query: rename it, or use a dict"),
    *(
        ({"session_id": value}, "session_id is .*: give the session_id of an earlier run")
        for value in ("", " ", "s\n", 5, {})
    ),
    ({"attachments": "https://h/a"}, "attachments is a str: give a list"),
    ({"attachments": b"a"}, "attachments is a bytes: give a list"),
    ({"attachments": {"url": "https://h/a"}}, "attachments is a dict: give a list"),
    *(
        ({"attachments": ["https://h/a", value]}, r"attachments\[1\] is .*: give a link")
        for value in ("/etc/passwd", "file:///a", "", None, 5, {}, {"url": ""}, {"url": None, "name": "a"}, [])
    ),
    ({"attachments": [{"path": "a"}]}, r"attachments\[0\] has the unknown key 'path': .* an Upload of it as url"),
    ({"attachments": [{"url": "s3://b/a", "name": 5}]}, r"attachments\[0\]\['name'\] is a int: give a string, or None"),
    ({"attachments": [{"url": "s3://b/a", "type": ["a"]}]}, r"attachments\[0\]\['type'\] is a list: give a string"),
    (
        {"attachments": [{"url": "s3://b/a", "mimeType": {}}]},
        r"attachments\[0\]\['mimeType'\] is a dict: give a string",
    ),
    (
        {"attachments": [SimpleNamespace(read_bytes=None)]},
        r"attachments\[0\] is a SimpleNamespace, .* wrap it in Upload",
    ),
    ({"attachments": [cyclic()]}, r"attachments\[0\] refers to itself"),
]


@pytest.mark.parametrize(("arguments", "named"), BAD_SETTINGS + BAD_INPUT)
def test_bad_input_is_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{named}"):
        body(**arguments)


@pytest.mark.parametrize(("arguments", "named"), BAD_SETTINGS)
def test_settings_are_checked_without_the_rest(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{named}"):
        AgentInput("{{ agent }}", "{{ query }}", **arguments).check_settings()


@pytest.mark.parametrize(("arguments", "_"), BAD_INPUT)
def test_other_input_is_not_checked_with_the_settings(arguments: dict[str, Any], _: str) -> None:
    AgentInput(**{"agent_id": "a", "query": "Hello", **arguments}).check_settings()


def test_the_arguments_name_the_kind_of_run() -> None:
    assert input_type({"query": "a", "agent_id": "b"}) is AgentInput
    assert input_type({"data": "a", "model_id": "b"}) is ModelInput


WORDS = st.sampled_from(
    ["", "a", "https://h/a.wav", "s3://b/k", "https://[", "text", "json", '{"a": 1}', "max_cost", "\ud800"]
)
LEAVES = WORDS | st.none() | st.booleans() | st.integers() | st.floats() | st.builds(File) | st.sampled_from(list(Tone))
KEYS = st.sampled_from(["url", "name", "type", "mimeType", "id", "parameters", "input", *BUDGET]) | st.integers(0, 1)
ANYTHING = st.recursive(
    LEAVES | st.sampled_from([Answer, NoSchema, {1}, b"a", object()]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
FIELDS = [
    *("agent_id", "query", "variables", "session_id", "attachments", "tools"),
    *("output_format", "expected_output", "max_tokens", "max_time", "budget"),
]


@settings(max_examples=examples(200), deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=4))
def test_any_input_is_sent_as_json_or_refused(arguments: dict[str, Any]) -> None:
    before, problem = repr(arguments), None
    try:
        body(**arguments)
    except InvalidInput as error:
        problem = str(error)
    assert problem is None or problem.startswith(tuple(arguments)), "it names the field"
    assert repr(arguments) == before


NAMES = st.text(min_size=1).filter(lambda name: name != "input")
LINKS = st.sampled_from(["https://h/a.wav", "s3://b/k", {"url": "https://h/a", "name": "b"}])
NUMBERS = st.integers(1, 10**12)
LEAF = st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@given(
    st.text().filter(str.strip) | OBJECTS.filter(bool),
    st.dictionaries(NAMES, LEAF, max_size=3),
    st.lists(LINKS, max_size=2),
    st.none() | st.sampled_from(OUTPUT_FORMATS),
    st.dictionaries(st.sampled_from(list(BUDGET)), NUMBERS),
    st.dictionaries(st.text(), LEAF, max_size=2),
)
def test_no_valid_input_is_lost(
    query: Any, variables: Any, attachments: Any, output_format: Any, budget: Any, parameters: Any
) -> None:
    arguments = {
        "query": query,
        "variables": variables,
        "attachments": attachments,
        "output_format": output_format,
        "budget": budget,
        "tools": [{"id": "t", "parameters": parameters}],
    }
    before = copy.deepcopy(arguments)
    sent = body(**arguments)
    assert arguments == before
    assert sent["query"] == {**(query if isinstance(query, dict) else {"input": query}), **variables}
    links = [link["url"] if isinstance(link, dict) else link for link in attachments]
    assert [link["url"] for link in sent.get("attachments", [])] == links
    assert sent["executionParams"].get("outputFormat") == output_format
    assert sent["runResponseGeneration"] == (output_format == "json")
    assert sent["executionParams"].get("budget", {}) == {BUDGET[name]: cap for name, cap in budget.items()}
    (tool,) = sent.get("tools", [{"parameters": []}])
    assert {one["name"]: one["value"] for one in tool["parameters"]} == parameters
