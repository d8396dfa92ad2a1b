"""Models in the catalogue."""

from __future__ import annotations

import copy
import json
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given

from airflow_provider_aixplain.protocol.failure import InvalidInput, RequestFailed
from airflow_provider_aixplain.protocol.model_record import (
    AssetStatus,
    FunctionType,
    ModelParameters,
    Parameter,
    read_model,
    to_member,
)
from airflow_provider_aixplain.protocol.wire import Answer, NoResponse
from tests.unit.protocol.strategies import JSON, OBJECTS

RECORD = {
    "id": "6414bd3c",
    "name": "Sentiment",
    "supplier": {"id": 1, "name": "aixplain"},
    "function": {"id": "sentiment-analysis"},
    "functionType": "utility",
    "pricing": {"price": 0.1},
    "version": {"id": "1.2"},
    "status": "onboarded",
    "createdAt": "2026-01-02T03:04:05.678Z",
    "params": [{"name": "text", "required": True, "dataType": "text"}, {"no": "name"}, "odd"],
    "supportsStreaming": True,
    "subscription": {},
    "api_key": "never taken from a record",
    "host": "own",
}


def declared(**parameters: dict[str, Any]) -> ModelParameters:
    return ModelParameters(parameters)


class TestMembers:
    def test_unknown_strings_are_kept_and_other_values_are_none(self) -> None:
        assert to_member(AssetStatus, "onboarded") is AssetStatus.ONBOARDED
        assert to_member(AssetStatus, AssetStatus.DRAFT) is AssetStatus.DRAFT
        assert to_member(AssetStatus, "paused") == "paused"
        assert to_member(AssetStatus, "") is None
        assert to_member(AssetStatus, None) is None
        assert to_member(AssetStatus, ["odd"]) is None
        assert to_member(FunctionType, "connector") is FunctionType.INTEGRATION


class TestModelParameters:
    def test_attributes_are_values(self) -> None:
        parameters = declared(text={"required": True}, temperature={"value": 0.5})
        assert parameters.text is None
        parameters.text = "Hello"
        assert parameters.text == "Hello"
        assert parameters.to_list() == [{"name": "text", "value": "Hello"}, {"name": "temperature", "value": 0.5}]
        assert parameters.get_parameter("text") == Parameter("text", required=True, value="Hello")
        assert parameters.get_parameter("other") is None

    def test_an_undeclared_parameter_is_named(self) -> None:
        parameters = declared(text={}, language={})
        with pytest.raises(AttributeError, match="declares no parameter 'txt'; it declares text, language"):
            parameters.txt = "Hello"
        with pytest.raises(AttributeError, match="'txt'"):
            _ = parameters.txt
        with pytest.raises(AttributeError, match="it declares none"):
            _ = declared().txt

    def test_to_dict_has_the_platforms_keys(self) -> None:
        declaration = {
            "required": True,
            "isFixed": True,
            "values": [1],
            "defaultValues": [2],
            "availableOptions": [3],
            "dataType": "text",
            "dataSubType": "json",
            "multipleValues": True,
        }
        assert declared(a=declaration).to_dict() == {"a": {"name": "a", "value": None, **declaration}}
        assert ModelParameters(declared(a=declaration).to_dict()).to_dict() == declared(a=declaration).to_dict()

    @given(OBJECTS)
    def test_malformed_declarations_are_ignored(self, declaration: dict[str, Any]) -> None:
        parameters = ModelParameters(
            {"a": dict.fromkeys(("required", "dataType"), declaration), "b": declaration.get("b")}
        )
        assert parameters.get_parameter("a") == Parameter("a")
        str(parameters)

    def test_parameter_names_become_strings(self) -> None:
        assert ModelParameters({1: {}, "b": {}}).to_dict().keys() == {"1", "b"}  # type: ignore[dict-item]

    def test_only_a_dict_is_accepted(self) -> None:
        with pytest.raises(InvalidInput, match="model_params is a list"):
            ModelParameters(["text"])  # type: ignore[arg-type]

    def test_the_text_has_a_line_for_each_parameter(self) -> None:
        parameters = declared(
            text={"required": True, "value": "Hello"},
            mood={"isFixed": True, "dataType": "text", "availableOptions": [{"value": "up"}, "down"]},
        )
        assert str(parameters) == (
            "Parameters:\n  - text: Hello (required)\n  - mood: not set (optional, fixed, text, one of ['up', 'down'])"
        )
        assert str(declared()) == "No parameters declared"

    def test_a_copy_keeps_its_values(self) -> None:
        parameters = declared(text={})
        copied = copy.deepcopy(parameters)
        copied.text = "Hello"
        assert parameters.text is None


class TestCheck:
    @pytest.mark.parametrize(
        ("declaration", "value", "is_accepted"),
        [
            ({"dataType": "text"}, "a", True),
            ({"dataType": "text"}, 5, False),
            ({"dataType": "text", "dataSubType": "number"}, 5, True),
            ({"dataType": "text", "dataSubType": "number"}, [5], False),
            ({"dataType": "text", "dataSubType": "json"}, {"a": 1}, True),
            ({"dataType": "text", "dataSubType": "other"}, {"a": 1}, False),
            ({"dataType": "number"}, 1.5, True),
            ({"dataType": "number"}, "1.5", True),
            ({"dataType": "number"}, "soon", False),
            ({"dataType": "number"}, True, False),
            ({"dataType": "boolean"}, True, True),
            ({"dataType": "boolean"}, "True", True),
            ({"dataType": "boolean"}, "yes", False),
            ({"dataType": "boolean"}, 1, False),
            ({"dataType": "json"}, [1], True),
            ({"dataType": "json"}, 1, False),
            ({"dataType": "array"}, [1], True),
            ({"dataType": "array"}, "a", False),
            ({"dataType": "hologram"}, {"any": 1}, True),
            ({}, {"any": 1}, True),
            ({"dataType": "text"}, None, True),
            ({"dataType": "text", "multipleValues": True}, ["a", "b"], True),
            ({"dataType": "text", "multipleValues": True}, "a", True),
            ({"dataType": "text", "multipleValues": True}, ["a", 5], False),
            ({"dataType": "array", "multipleValues": True}, ["a", "b"], True),
        ],
    )
    def test_values_are_checked_against_their_types(
        self, declaration: dict[str, Any], value: Any, is_accepted: bool
    ) -> None:
        if is_accepted:
            declared(a=declaration).check({"a": value})
        else:
            with pytest.raises(InvalidInput, match=r"a is .*, but the model accepts"):
                declared(a=declaration).check({"a": value})

    def test_all_wrong_parameters_are_named(self) -> None:
        parameters = declared(a={"dataType": "number"}, b={"dataType": "text"}, c={"required": True})
        with pytest.raises(InvalidInput) as raised:
            parameters.check({"a": "x", "b": 5})
        assert str(raised.value) == (
            "a is 'x', but the model accepts number; b is 5, but the model accepts text;"
            " the model requires c: give them in parameters, or give data as an object"
        )

    @pytest.mark.parametrize(
        "payload",
        [{"text": "Hello"}, {"data": "Hello"}, {"data": {"any": 1}}, {"data": [1]}, {"data": "x", "text": "y"}],
    )
    def test_data_counts_as_the_input(self, payload: dict[str, Any]) -> None:
        declared(text={"required": True}, language={}).check(payload)

    @pytest.mark.parametrize("payload", [{}, {"data": None}, {"language": "en"}, {"text": None}])
    def test_a_missing_parameter_is_named(self, payload: dict[str, Any]) -> None:
        with pytest.raises(InvalidInput, match="the model requires text:"):
            declared(text={"required": True}, language={}).check(payload)

    def test_data_counts_as_one_parameter_and_an_object_as_all(self) -> None:
        parameters = declared(text={"required": True}, targetlanguage={"required": True})
        with pytest.raises(InvalidInput, match=r"requires text, targetlanguage \(data can be one of them\)"):
            parameters.check({"data": "Hello"})
        parameters.check({"data": {"text": "Hello"}})
        parameters.check({"data": "Hello", "targetlanguage": "fr"})

    def test_data_is_checked_if_the_model_declares_it(self) -> None:
        with pytest.raises(InvalidInput, match="requires text"):
            declared(text={"required": True}, data={}).check({"data": "Hello"})

    @pytest.mark.parametrize("preset", [{"isFixed": True}, {"values": [1]}, {"defaultValues": "en"}])
    def test_a_preset_parameter_is_not_missing(self, preset: dict[str, Any]) -> None:
        declared(text={"required": True, **preset}).check({})


class TestRecord:
    def read(self, record: Any) -> dict[str, Any]:
        return read_model(Answer(200, json.dumps(record).encode()))

    def test_every_field_of_a_record_is_read(self) -> None:
        assert self.read(RECORD) == {
            "id": "6414bd3c",
            "name": "Sentiment",
            "description": "",
            "supplier": {"id": 1, "name": "aixplain"},
            "version": "1.2",
            "function": {"id": "sentiment-analysis"},
            "is_subscribed": True,
            "cost": {"price": 0.1},
            "created_at": datetime(2026, 1, 2, 3, 4, 5, 678000, timezone.utc),
            "input_params": {"text": {"name": "text", "required": True, "dataType": "text"}},
            "model_params": {"text": {"name": "text", "required": True, "dataType": "text"}},
            "supports_streaming": True,
            "status": "onboarded",
            "function_type": "utility",
            "subscription": {},
            "host": "own",
        }

    def test_a_minimal_record_has_defaults(self) -> None:
        read = self.read({"id": "a", "version": "2", "createdAt": "soon"})
        assert read == {
            "id": "a",
            "name": "",
            "description": "",
            "version": "2",
            "is_subscribed": False,
            "input_params": {},
            "model_params": {},
            "supports_streaming": False,
            "status": AssetStatus.DRAFT,
            "function_type": FunctionType.AI,
            "createdAt": "soon",
        }

    @given(JSON)
    def test_malformed_fields_leave_defaults(self, value: Any) -> None:
        read = self.read({**dict.fromkeys(RECORD, value), "id": "a"})
        assert read["id"] == "a"
        assert "api_key" not in read

    @pytest.mark.parametrize(
        ("outcome", "message", "retryable"),
        [
            (Answer(404, b'{"error": "no"}'), r"model: HTTP 404 \(resource\): no", False),
            (Answer(200, b"<html>"), "an answer that is not a JSON object: <html>", True),
            (Answer(200, b"{}"), "an answer that has no id", True),
            (NoResponse("reset", is_sent=True), "model: no response: reset", True),
        ],
    )
    def test_an_answer_without_a_record_is_an_error(
        self, outcome: Answer | NoResponse, message: str, retryable: bool
    ) -> None:
        with pytest.raises(RequestFailed, match=message) as raised:
            read_model(outcome)
        assert raised.value.failure.retryable is retryable
