"""The answer of a model."""

from __future__ import annotations

import json
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus, format_cost, read_response
from airflow_provider_aixplain.protocol.values import to_storable, to_text
from tests.support.public_api import RESPONSE_FIELDS
from tests.unit.protocol.strategies import JSON

_FIELD_OF = {
    "errorMessage": "error_message",
    "usedCredits": "used_credits",
    "runTime": "run_time",
}
SPELLINGS = sorted({*_FIELD_OF, *RESPONSE_FIELDS, "error", "supplierError"} - {"additional_fields"})
WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


def read(**body: Any) -> ModelResponse:
    return read_response({"completed": True, **body})


class TestItems:
    def test_fields_are_items_in_both_spellings(self) -> None:
        response = read(data="hi", usedCredits=0.5, runTime=2, requestId="r")
        assert response["data"] == "hi"
        assert response["requestId"] == "r"
        assert response["usedCredits"] == response["used_credits"] == 0.5
        assert response["runTime"] == response["run_time"] == 2
        assert response["additional_fields"] == {"requestId": "r"}

    def test_a_missing_item_raises_a_key_error(self) -> None:
        response = read(data="hi")
        with pytest.raises(KeyError, match="the response has no 'nothing'"):
            response["nothing"]
        with pytest.raises(KeyError):
            response["nothing"] = 1
        assert response.get("nothing") is None
        assert response.get("nothing", 7) == 7
        assert response.get("data", 7) == "hi"
        assert "nothing" not in response
        assert "failure" not in response
        assert "runTime" in response
        for key in ([], None, 5):
            assert key not in response
            assert response.get(key, 7) == 7  # type: ignore[arg-type]
            with pytest.raises(KeyError):
                response[key]  # type: ignore[index]

    def test_items_can_be_set(self) -> None:
        response = read(requestId="r")
        for key in ("data", "requestId", "usedCredits", "runTime"):
            response[key] = key
        assert (response.data, response.used_credits, response.run_time) == ("data", "usedCredits", "runTime")
        assert response.additional_fields == {"requestId": "requestId"}


_MESSAGES = ("error_message", "errorMessage")


class TestToDict:
    @given(st.dictionaries(st.sampled_from(SPELLINGS) | WORDS, JSON))
    def test_every_value_is_kept_as_plain_json(self, body: dict[str, Any]) -> None:
        fields_sent = json.loads(json.dumps(read_response(body).to_dict(), allow_nan=False))
        assert fields_sent.keys() == RESPONSE_FIELDS
        for key, value in body.items():
            (stored,) = to_storable({key: None})
            kept = fields_sent["additional_fields"].get(stored, fields_sent.get(_FIELD_OF.get(key, key)))
            # If the message is empty, the first other reason replaces it; an object is replaced by its message.
            is_replaced = key in _MESSAGES and (value == "" or isinstance(value, dict) or "supplierError" in body)
            # The words of a state are kept; what they mean is in two fields.
            is_state = key == "completed" and isinstance(value, bool)
            assert value is None or is_replaced or is_state or kept in (to_storable(value), to_text(value))

    def test_values_set_by_callers_become_plain(self) -> None:
        class Colour(Enum):
            RED = "red"

        response = ModelResponse(ResponseStatus.SUCCESS, data={Colour.RED: (Colour.RED, {1})})
        assert response.to_dict()["data"] == {"Colour.RED": ["red", [1]]}

    def test_the_status_is_a_plain_string(self) -> None:
        assert type(read().to_dict()["status"]) is str


def test_repr_shows_fields_that_are_not_empty_and_cuts_them() -> None:
    assert repr(ModelResponse(ResponseStatus.FAILED)) == "ModelResponse(status=FAILED)"
    assert repr(read(data="hi", completed=True, more=[1])) == (
        "ModelResponse(status=SUCCESS, data='hi', completed=True, more=[1])"
    )
    assert len(repr(read(data="x" * 100_000))) < 300


class TestSpellings:
    def test_the_preferred_spelling_counts_and_the_other_is_kept(self) -> None:
        response = read(usedCredits=1, used_credits=2, runTime=3, run_time=4, error_message="a", errorMessage="b")
        assert (response.used_credits, response.run_time, response.error_message) == (1, 3, "a")
        assert response.additional_fields == {"used_credits": 2, "run_time": 4, "errorMessage": "b"}

    def test_a_null_spelling_is_ignored(self) -> None:
        response = read(usedCredits=None, used_credits=2, runTime=None, run_time=None)
        assert (response.used_credits, response["usedCredits"], response.run_time) == (2, 2, None)

    @pytest.mark.parametrize(
        ("data", "credits", "seconds"),
        [
            ({"executionStats": {"credits": 0.5, "runtime": 2}}, 0.5, 2),
            ({"execution_stats": {"totalCredits": "0.5", "duration": "2.5"}}, 0.5, 2.5),
            ({"executionStats": {"usedCredits": None, "used_credits": 3, "runTime": "NaN", "run_time": 4}}, 3, 4),
            ({"executionStats": "none", "steps": "none"}, 0, 0),
            ({"steps": []}, 0, 0),
            ({"steps": [{"usedCredits": 0.1}, {"used_credits": 0.2}, {"credits": "0.3"}, {}, "odd"]}, 0.6, 0),
            ({"steps": [{"runTime": 1}, {"run_time": 2.5}]}, 0, 3.5),
            (
                {
                    "steps": [
                        {"start_time": "2026-01-01T00:00:00Z", "end_time": "2026-01-01T00:00:02Z", "runTime": 99},
                        {"startTime": "2026-01-01T00:00:01", "endTime": "2026-01-01T00:00:05.5+00:00"},
                    ]
                },
                0,
                5.5,
            ),
            ({"steps": [{"start_time": "2026-01-02", "end_time": "2026-01-01", "runTime": 7}]}, 0, 7),
            ({"steps": [{"start_time": "yesterday", "end_time": 5}]}, 0, 0),
            ({"steps": [{"credits": 1e308}, {"credits": 1e308}]}, 0, 0),
            ([1], 0, 0),
        ],
    )
    def test_figures_of_several_steps_are_combined(self, data: Any, credits: float, seconds: float) -> None:
        response = read(data=data)
        assert (response.used_credits, response.run_time) == (credits, seconds)
        assert response.data == data

    @pytest.mark.parametrize("nothing", [0, 0.0, "0", None, "NaN", -1])
    def test_the_first_figure_above_zero_counts(self, nothing: Any) -> None:
        stats = {"executionStats": {"credits": 0.3, "runtime": 6}, "usedCredits": 7, "runTime": 8}
        within = {"usedCredits": 0.3, "runTime": 6, "steps": [{"usedCredits": 7, "runTime": 8}]}
        steps = {"executionStats": {"credits": 0}, "steps": [{"credits": 0.1}, {"credits": 0.2}, {"runTime": 6}]}
        for data in (stats, within, steps):
            response = read(data=data, usedCredits=nothing, runTime=nothing)
            assert (response.used_credits, response.run_time) == (0.3, 6)
            assert (response["usedCredits"], response["runTime"]) == (0.3, 6)
        response = read(usedCredits=nothing, used_credits=0.3, runTime=nothing, run_time=6)
        assert (response["usedCredits"], response["runTime"]) == (0.3, 6)
        response = read(data=stats, usedCredits=1, runTime=2)
        assert (response.used_credits, response.run_time) == (1, 2)


class TestOddTypes:
    """Fields hold what was sent; three have a fixed type."""

    @given(JSON, JSON, JSON)
    def test_three_fields_have_a_fixed_type(self, status: Any, completed: Any, error_message: Any) -> None:
        response = read(status=status, completed=completed, error_message=error_message)
        assert isinstance(response.status, ResponseStatus)
        assert isinstance(response.completed, bool)
        assert isinstance(response.error_message, str)
        if status is not None and status != response.status.value:
            assert response.additional_fields["status"] == status
        if completed is not None and not isinstance(completed, bool):
            assert response.additional_fields["completed"] == completed

    @given(JSON)
    def test_other_fields_are_unchanged(self, value: Any) -> None:
        response = read(data=value, details=value, usage=value, asset=value, url=value, error_code=value)
        assert response.data == response.details == response.usage == response.asset == response.url == value
        assert response.error_code == value

    def test_an_error_object_becomes_text(self) -> None:
        assert read(error_message={"a": 1}).error_message == '{"a": 1}'
        assert read(error={"a": 1}, supplierError=None).error_message == '{"a": 1}'
        assert read(error=False, supplierError={"b": 2}).error_message == ' - {"b": 2}'


@pytest.mark.parametrize(
    ("fields", "fields_sent"),
    [
        ({"run_time": 1.5, "used_credits": 0.25}, "1.5 s, for 0.25 credits"),
        ({"run_time": 2, "used_credits": 0, "usage": {"total_tokens": "7"}}, "2.0 s, for 0 credits and 7 tokens"),
        ({"usage": {"total_tokens": "NaN"}}, "0.0 s, for 0 credits"),
        ({"run_time": None, "used_credits": "a\nb", "usage": [1]}, "0.0 s, for a b credits"),
    ],
)
def test_duration_and_cost_are_formatted(fields: dict[str, Any], fields_sent: str) -> None:
    response = ModelResponse(ResponseStatus.SUCCESS, **fields)
    assert format_cost(response) == format_cost(response.to_dict()) == fields_sent
