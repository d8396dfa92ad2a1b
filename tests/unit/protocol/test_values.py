"""JSON values."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_aixplain.protocol import values
from airflow_provider_aixplain.protocol.failure import InvalidInput
from tests.unit.protocol.strategies import JSON


class Colour(Enum):
    RED = "red"


class TestPrintable:
    @given(st.text())
    def test_untrusted_text_is_one_bounded_line(self, text: str) -> None:
        shown = values.to_printable(text * 50)
        assert shown.isprintable()
        assert len(shown) <= values.MAX_ERROR_LENGTH + 1

    def test_ordinary_text_is_unchanged(self) -> None:
        assert values.to_printable("Grüße, 世界!") == "Grüße, 世界!"


class TestStorable:
    @given(JSON)
    def test_storable_values_are_unchanged(self, value: Any) -> None:
        stored = values.to_storable(value)
        again = json.loads(json.dumps(stored, allow_nan=False))
        assert again == stored == values.to_storable(stored)

    @pytest.mark.parametrize(
        ("value", "stored"),
        [
            (Colour.RED, "red"),
            ((1, {2}), [1, [2]]),
            ({1: None, Colour.RED: True}, {"1": None, "Colour.RED": True}),
            (2**63, str(2**63)),
            (-(2**63), -(2**63)),
            (-(2**63) - 1, str(-(2**63) - 1)),
            (math.nan, "nan"),
            (-math.inf, "-inf"),
            (b"bytes", "b'bytes'"),
            ("a\0\ud800b", "a\ufffd\ufffdb"),
            (1.5, 1.5),
        ],
    )
    def test_other_values_become_plain(self, value: Any, stored: Any) -> None:
        assert values.to_storable(value) == stored

    def test_deep_values_become_text(self) -> None:
        deep: Any = [Colour.RED]
        for _ in range(values.MAX_DEPTH - 1):
            deep = [deep]
        stored = values.to_storable([deep])
        for _ in range(values.MAX_DEPTH):
            (stored,) = stored
        assert stored == '["Colour.RED"]'

    def test_cyclic_values_become_text(self) -> None:
        endless: list[Any] = []
        endless.append(endless)
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        for value in (endless, deep):
            assert "…" in str(values.to_storable(value))


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1),
        (1.5, 1.5),
        ("2.5", 2.5),
        ("7", 7.0),
        ("NaN", None),
        ("inf", None),
        (math.inf, None),
        (True, None),
        (None, None),
        ("many", None),
        ([1], None),
    ],
)
def test_numbers_and_numeric_strings_are_parsed(value: Any, number: float | None) -> None:
    assert values.parse_number(value) == number


@pytest.mark.parametrize(
    ("value", "text"), [("a", "a"), (None, ""), ({"a": [1]}, '{"a": [1]}'), (5, "5"), (False, "false")]
)
def test_json_values_become_text(value: Any, text: str) -> None:
    assert values.to_text(value) == text


@given(st.recursive(st.just([]), lambda inner: inner.map(lambda value: [value]), max_leaves=3))
def test_all_json_is_read(value: Any) -> None:
    assert values.read_json(json.dumps(value).encode()) == value


def test_raw_control_characters_are_accepted() -> None:
    assert values.read_json(b'{"data": "col1\tcol2\n"}') == {"data": "col1\tcol2\n"}


@pytest.mark.parametrize("value", [b"a", bytearray(b"a"), memoryview(b"a"), {1, 2}, object()])
def test_values_that_json_cannot_hold_are_refused_or_converted(value: Any) -> None:
    with pytest.raises(InvalidInput, match=r"data\[0\] is a \w+, which JSON cannot hold"):
        values.to_sendable([value], "data")
    with pytest.raises(InvalidInput):
        values.to_sendable([value], "data", lambda _: values.NOT_JSON)
    assert values.to_sendable({"a": (value,)}, "data", lambda _: "link") == {"a": ["link"]}


def test_the_error_for_a_path_names_upload() -> None:
    with pytest.raises(InvalidInput, match=r"data is a PosixPath, which is not uploaded.* wrap it in Upload"):
        values.to_sendable(Path("a.wav"), "data")


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)),
        ("2026-01-02", datetime(2026, 1, 2, tzinfo=timezone.utc)),
        ("soon", None),
        (None, None),
        (5, None),
    ],
)
def test_times_are_parsed(text: Any, time: datetime | None) -> None:
    assert values.parse_time(text) == time


def test_endless_nesting_is_not_json() -> None:
    assert values.read_json(b"[" * 100_000) is values.NOT_JSON
    assert values.parse_json("[" * 100_000) is values.NOT_JSON


@pytest.mark.parametrize("key", sorted(values.RESERVED_KEYS))
@pytest.mark.parametrize(
    "spelt", [str, lambda key: key.replace("_", "\\u005F"), lambda key: f"__\\u00{ord(key[2]):02x}{key[3:]}"]
)
def test_keys_that_airflow_reserves_get_an_underscore(key: str, spelt: Callable[[str], str]) -> None:
    body = f'{{"a": [{{"{spelt(key)}": "builtins.dict", "__var": 1}}]}}'
    assert values.read_json(body.encode()) == {"a": [{f"_{key}": "builtins.dict", "__var": 1}]}
    assert values.to_storable({key: key}) == {f"_{key}": key}


def test_an_error_of_the_converter_has_the_path() -> None:
    def convert(value: object) -> object:
        raise InvalidInput("there is no such file")

    with pytest.raises(InvalidInput, match=r"^data\['a'\]\[0\]: there is no such file$"):
        values.to_sendable({"a": [object()]}, "data", convert)


def test_a_secret_is_redacted_anywhere_in_a_value() -> None:
    def redact(text: str) -> str:
        return text.replace("1234567890", "***")

    body = rb'{"\u0031234567890": ["a 123456789\u0030", 1234567890, -1234567890.5, 12345, "' + b'\\/"], "deep": '
    deep = b"[" * 150 + b'"1234567890"' + b"]" * 150
    value = values.read_json(body + deep + b"}", redact)
    assert value["***"] == ["a ***", "***", "-***.5", 12345, "/"]
    assert "***" in str(value["deep"])
    assert "1234567890" not in json.dumps(value)
    assert values.read_json(b'{"a": "1234567890"}', redact) == {"a": "***"}
    assert values.read_json(b'{"a": "12345"}', redact) == {"a": "12345"}


def test_deep_keys_of_other_types_lose_no_value() -> None:
    deep: Any = {Colour.RED: 1}
    for _ in range(values.MAX_DEPTH):
        deep = [deep]
    assert "…" in str(values.to_storable(deep))


@pytest.mark.parametrize(
    ("names", "joined"),
    [([], ""), (["a", "b"], "a, b"), (list("abcd"), "a, b and 2 more"), (["x" * 200], "x" * 100), (["a\n"], "a ")],
)
def test_names_are_joined_and_bounded(names: list[str], joined: str) -> None:
    assert values.join_names(names, 2) == joined


def test_empty_fields_are_left_out() -> None:
    fields = {
        "none": None,
        "text": "",
        "list": [],
        "object": {},
        "zero": 0,
        "false": False,
        "space": " ",
        "nested": [[]],
    }
    assert set(values.fields_with_values(fields)) == {"zero", "false", "space", "nested"}
