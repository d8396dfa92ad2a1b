"""What is run: its names, and what its result has in addition to the response."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_aixplain.protocol.assets import Asset, make_asset, require_mapping
from airflow_provider_aixplain.protocol.failure import InvalidInput
from airflow_provider_aixplain.protocol.response import read_response
from tests.support.fuzzing import examples
from tests.support.public_api import AGENT_FIELDS, RESPONSE_FIELDS

AGENT = Asset("agent", "a")


def outputs(url: str | None = None, **answer: Any) -> dict[str, Any]:
    """Return what the result of an agent's run has in addition to its response."""
    response = read_response({"completed": True, **answer}).to_dict()
    result = AGENT.result({**response, "url": url or response["url"]})
    assert result.keys() == AGENT_FIELDS
    return {name: result[name] for name in AGENT_FIELDS - RESPONSE_FIELDS}


@pytest.mark.parametrize(
    ("asset", "shown", "title", "id_name", "page"),
    [
        (Asset("model", "a/b c"), "model a/b c", "Model a/b c", "model_id", "discover/model/a%2Fb%20c"),
        (AGENT, "agent a", "Agent a", "agent_id", "discover/agent/a"),
        (Asset(), "the run", "The run", "model_id", "discover/model/"),
    ],
)
def test_an_asset_names_itself_in_each_form(asset: Asset, shown: str, title: str, id_name: str, page: str) -> None:
    assert (str(asset), asset.title, asset.id_name, asset.page_path) == (shown, title, id_name, page)


def test_an_id_names_the_kind() -> None:
    assert make_asset("m") == Asset("model", "m")
    assert make_asset("m", "a") == make_asset(agent_id="a") == AGENT
    assert make_asset() == Asset()


def test_a_model_returns_its_response() -> None:
    response = read_response({"completed": True, "data": {"output": "a"}, "requestId": "r"}).to_dict()
    assert Asset("model", "m").result(response) == response


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({}, {}),
        ({"data": "a text"}, {"output": "a text"}),
        ({"data": 0}, {"output": 0}),
        ({"data": None}, {}),
        ({"data": {"output": {"a": [1]}, "steps": []}}, {"output": {"a": [1]}}),
        ({"data": {"session_id": "s", "request_id": "r"}}, {"session_id": "s", "request_id": "r"}),
        ({"data": {"sessionId": "s", "requestId": "r"}}, {"session_id": "s", "request_id": "r"}),
        (
            {"sessionId": "s", "requestId": "r", "data": {"session_id": "t", "request_id": "u"}},
            {"session_id": "s", "request_id": "r"},
        ),
        ({"sessionId": {}, "requestId": 5, "data": {"session_id": ["s"], "request_id": True}}, {}),
        ({"sessionId": "", "data": {"session_id": "s"}}, {"session_id": "s"}),
        ({"url": "https://h/sdk/agents/r-1/result"}, {"request_id": "r-1"}),
        ({"url": "https://h/sdk/agents/r-1/result", "requestId": "r"}, {"request_id": "r"}),
        ({"url": "https://h/api/v1/data/r"}, {}),
        ({"url": 5}, {}),
        ({"data": {"artifacts": [{"url": "https://h/a"}, 5]}}, {"artifacts": [{"url": "https://h/a"}, 5]}),
        ({"data": {"artifacts": {"url": "https://h/a"}}}, {}),
    ],
)
def test_an_agent_returns_further_fields(answer: dict[str, Any], expected: dict[str, Any]) -> None:
    nothing = {"output": None, "session_id": None, "request_id": None, "artifacts": []}
    assert outputs(**answer) == {**nothing, **expected}


IDS = ("sessionId", "requestId", "session_id", "request_id", "output", "artifacts")
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.integers())
ANSWERS = st.dictionaries(st.sampled_from(IDS), VALUES)


@settings(max_examples=examples(200), deadline=None)
@given(ANSWERS, VALUES | ANSWERS, VALUES)
def test_any_answer_of_an_agent_is_read(answer: dict[str, Any], data: Any, url: Any) -> None:
    found = outputs(**{"url": url, "data": data, **answer})
    json.dumps(found, allow_nan=False)
    assert isinstance(found["artifacts"], list)
    assert all(found[name] is None or found[name] for name in ("session_id", "request_id"))
    assert isinstance(found["session_id"], (str, type(None)))
    assert isinstance(found["request_id"], (str, type(None)))


def test_an_argument_that_is_no_dict_is_named() -> None:
    assert require_mapping("variables", None) == {}
    assert require_mapping("variables", {"a": 1}) == {"a": 1}
    for value in ("", [], 0):
        with pytest.raises(InvalidInput, match=r"variables is a (str|list|int): give a dict from names to values"):
            require_mapping("variables", value)


def test_the_names_of_outputs_are_known_without_a_response() -> None:
    assert Asset("agent", "a").output_names == ("output", "session_id", "request_id", "artifacts")
    assert Asset("model", "a").output_names == ()


@pytest.mark.parametrize(
    ("asset_id", "record", "expected"),
    [
        ("known", {"assetId": "other"}, "known"),
        ("", {"assetId": "reported", "id": "other"}, "reported"),
        ("", {"id": "x" * 1000}, "x" * 200),
        ("", {"id": {"odd": 1}}, ""),
        ("", None, ""),
    ],
)
def test_an_unknown_id_is_the_reported_one(asset_id: str, record: Any, expected: str) -> None:
    assert Asset("model", asset_id).or_reported({"asset": record}).id == expected
    assert Asset("agent", asset_id).or_reported(None).id == asset_id
