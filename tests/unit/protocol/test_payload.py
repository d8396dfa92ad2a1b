"""The body of a run."""

from __future__ import annotations

import copy
import json
from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_aixplain.protocol.failure import InvalidInput
from airflow_provider_aixplain.protocol.payload import ModelInput, build_payload
from tests.unit.protocol.strategies import OBJECTS


class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("data", "parameters", "payload"),
    [
        ("Hello", None, {"data": "Hello"}),
        ("", None, {"data": ""}),
        ("5", None, {"data": "5"}),
        ("1.50", None, {"data": "1.5"}),
        ("true", None, {"data": "True"}),
        ("null", None, {"data": None}),
        ("[1, 2]", None, {"data": [1, 2]}),
        ('"quoted"', None, {"data": "quoted"}),
        ('{"text": "Hello"}', None, {"text": "Hello"}),
        ('{"text": "Hello"}', {"text": "wins"}, {"text": "wins"}),
        ({"text": "Hello"}, {"language": "en"}, {"text": "Hello", "language": "en"}),
        ({}, {"language": "en"}, {"language": "en"}),
        ({"c": Colour.RED, "l": [Colour.RED]}, {"p": Colour.RED}, {"c": "red", "l": ["red"], "p": "red"}),
        (["a", ("b",)], None, {"data": ["a", ["b"]]}),
        (7, None, {"data": 7}),
        ("Hello", {"data": "loses"}, {"data": "Hello"}),
        ("{not json", None, {"data": "{not json"}),
        ("NaN", None, {"data": "NaN"}),
        ('{"a": NaN}', None, {"data": '{"a": NaN}'}),
        ("1e999", None, {"data": "1e999"}),
    ],
)
def test_data_and_parameters_become_a_payload(data: Any, parameters: Any, payload: dict[str, Any]) -> None:
    assert json.loads(build_payload(data, parameters)) == payload


@given(OBJECTS, OBJECTS)
def test_an_object_is_the_payload_and_parameters_take_precedence(data: Any, parameters: Any) -> None:
    before = copy.deepcopy((data, parameters))
    assert json.loads(build_payload(data, parameters)) == {**data, **parameters}
    assert json.loads(build_payload(json.dumps(data), parameters)) == {**data, **parameters}
    assert (data, parameters) == before


@given(st.text(), OBJECTS)
def test_a_string_is_never_lost(data: str, parameters: Any) -> None:
    payload = json.loads(build_payload(f"text: {data}", parameters))
    assert payload == {**parameters, "data": f"text: {data}"}


def test_stream_is_added_to_the_options() -> None:
    parameters = {"options": {"a": 1}}
    assert json.loads(build_payload("x", parameters, stream=True))["options"] == {"a": 1, "stream": True}
    assert parameters == {"options": {"a": 1}}


@pytest.mark.parametrize(
    ("data", "parameters", "message"),
    [
        ({"a": [1, {2}]}, None, r"data\['a'\]\[1\] is a set"),
        (b"bytes", None, "data is a bytes"),
        ({"a": float("nan")}, None, r"data\['a'\] is nan"),
        ({("a", 1): 1}, None, r"data has the key \('a', 1\), a tuple"),
        ("x", {"when": object()}, r"parameters\['when'\] is a object"),
        ("x", ["not", "a", "dict"], "parameters is a list"),
        ("x", "", "parameters is a str"),
        ([10**5000], None, "contain a value that JSON cannot hold"),
    ],
)
def test_values_that_json_cannot_hold_are_named(data: Any, parameters: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        build_payload(data, parameters)


def test_a_cyclic_value_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InvalidInput, match="refer to themselves"):
        build_payload(endless)


def test_missing_data_is_refused() -> None:
    with pytest.raises(InvalidInput, match="data is None: give the model's input"):
        build_payload(None)


def test_streaming_requires_options_to_be_a_dict() -> None:
    with pytest.raises(InvalidInput, match=r"parameters\['options'\] is a str"):
        build_payload("x", {"options": "fast"}, stream=True)


def test_the_requests_of_a_run_have_its_payload() -> None:
    run, endpoints = (
        ModelInput("team/a", "Hello", {"a": {1}}),
        SimpleNamespace(models_run_url="https://h/api/v1/execute"),
    )
    body = {"data": "Hello", "a": [1]}
    request = run.request(endpoints, list)
    assert (request.method, request.url) == ("POST", "https://h/api/v1/execute/team/a")
    assert json.loads(request.body) == body  # type: ignore[arg-type]
    for stream, more in ((None, {}), (True, {"options": {"stream": True}})):
        request = run.direct_request(endpoints, list, stream=stream)
        assert request.url == "https://h/api/v2/execute/team/a"
        assert json.loads(request.body) == {**body, **more}  # type: ignore[arg-type]
    assert (str(run.asset), run.id_name) == ("model team/a", "model_id")
