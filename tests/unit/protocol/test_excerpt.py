"""What is read of an answer that is too large to be parsed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_aixplain.protocol.excerpt import MAX_SCALAR, Excerpt
from airflow_provider_aixplain.protocol.statuses import decide_status
from airflow_provider_aixplain.protocol.values import read_json
from tests.support.fuzzing import examples
from tests.unit.protocol.strategies import JSON

FUZZ = settings(max_examples=examples(), deadline=None)
KEYS = st.sampled_from(["status", "completed", "data", "error", 'a "b" \\']) | st.text(max_size=3)
TEXTS = ["SUCCESS", "FAILED", "IN_PROGRESS", "x, y", '\\"{[' * 40, "é" * MAX_SCALAR]
STATES = st.sampled_from(TEXTS) | st.booleans() | st.none()
OBJECTS = st.dictionaries(KEYS, STATES | JSON, max_size=5)
STEPS = [{"id": f"s{index}", "agent": {"name": "Analyst"}, "output": '{"a": ["\\"]}'} for index in range(50)]
UNFINISHED = {"status": "IN_PROGRESS", "completed": False}


def excerpt_of(body: bytes, head: int = 200, piece: int = 64, limit: int = 10**9) -> Excerpt:
    excerpt = Excerpt(body[:head], limit)
    for start in range(head, len(body), piece):
        excerpt.add(body[start : start + piece])
    return excerpt


def read(answer: dict[str, Any], **sizes: int) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(excerpt_of(json.dumps(answer).encode(), **sizes).text)
    return value


@FUZZ
@given(OBJECTS, st.booleans(), st.booleans(), st.integers(1, 300), st.integers(1, 50))
def test_an_excerpt_states_what_the_answer_states(
    answer: dict[str, Any], is_ascii: bool, is_indented: bool, head: int, piece: int
) -> None:
    body = json.dumps(answer, ensure_ascii=is_ascii, indent=2 if is_indented else None).encode(errors="replace")
    excerpt = excerpt_of(body, head, piece)
    stated, whole = read_json(excerpt.text), read_json(body)
    assert stated.keys() <= whole.keys()
    assert excerpt.is_done or stated.keys() == whole.keys()
    for key, value in stated.items():
        if isinstance(value, (dict, list)):
            assert type(value) is type(whole[key])
        elif value != whole[key]:
            assert value.startswith("…")
            assert len(json.dumps(whole[key])) >= MAX_SCALAR
    assert decide_status(stated)[1] == decide_status(whole)[1]


@FUZZ
@given(st.binary() | st.text(st.sampled_from('{}[]",:\\ a1')).map(str.encode), st.integers(1, 30), st.integers(1, 9))
def test_any_bytes_are_read(body: bytes, head: int, piece: int) -> None:
    assert len(excerpt_of(b'{"a":' + body, head, piece).text) <= 2 * (head + len(body)) + 9


@pytest.mark.parametrize("answer", [{"data": {"steps": STEPS}, **UNFINISHED}, {**UNFINISHED, "data": {"steps": STEPS}}])
def test_the_steps_that_fit_are_read(answer: dict[str, Any]) -> None:
    excerpt = read(answer, head=1000)
    *steps, _ = excerpt.pop("data")["steps"]
    assert (excerpt, steps) == (UNFINISHED, STEPS[: len(steps)])
    assert 8 < len(steps) < 20


@pytest.mark.parametrize("state", [UNFINISHED, {"completed": True}])
@pytest.mark.parametrize("data", ["x, y" * 1000, {"steps": STEPS}, [STEPS]])
def test_nothing_is_read_after_a_beginning_that_states_the_end(state: dict[str, Any], data: Any) -> None:
    body = json.dumps({**state, "data": data}).encode()
    assert Excerpt(body[:200], len(body)).is_done
    body = json.dumps({"data": data, **state}).encode()
    assert not Excerpt(body[:200], len(body)).is_done


@pytest.mark.parametrize(
    "body",
    [
        b"<html>" * 100,
        json.dumps([UNFINISHED] * 50).encode(),
        json.dumps({f"key {index}": "x" * 90 for index in range(999)}).encode(),
        json.dumps({"data": STEPS, "completed": False}).encode()[:-1],
    ],
    ids=["a page", "a list", "a large top level", "cut"],
)
def test_an_answer_without_a_state_gives_no_excerpt(body: bytes) -> None:
    with pytest.raises(ValueError, match="Expecting"):
        json.loads(excerpt_of(body).text)


def test_an_answer_beyond_the_limit_gives_no_excerpt() -> None:
    body = json.dumps({"data": STEPS, **UNFINISHED}).encode()
    for limit in (0, 200, len(body) - 1):
        excerpt = excerpt_of(body, limit=limit)
        assert (excerpt.is_done, excerpt.text) == (True, b"")
    assert excerpt_of(body, limit=len(body)).text
