"""The log lines about what an agent does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_aixplain.protocol.response import read_response
from airflow_provider_aixplain.protocol.steps import MAX_LINES, MAX_STEPS, MAX_TEXT, Steps
from tests.support.fuzzing import examples

STEP_KEYS = ["id", "step_id", "agent", "agent_name", "unit", "action", "task", "thought", "output", "error", "runTime"]
OTHER_KEYS = ["name", "type", "message", "used_credits", "start_time", "end_time"]
PROGRESS_KEYS = ["stage", "tool", "runtime", "success", "reason", "currentStep", "totalSteps"]
KEYS = st.sampled_from([*STEP_KEYS, *OTHER_KEYS, *PROGRESS_KEYS])
TIMES = ["2026-01-01T00:00:00", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"]
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.sampled_from(TIMES)
ODD = ["NaN", "1e999", "a\n\x1b[31mb", [], [[]], {"name": "\u202e"}, {"message": [1]}, {"id": 7}]
VALUES = LEAVES | st.sampled_from(ODD)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=8)


def step(step_id: Any = None, **fields: Any) -> dict[str, Any]:
    return {"id": step_id, "agent": {"name": "Analyst"}, "output": "yes", **fields}


def lines_of(steps: Steps, *found: Any, completed: bool = False) -> list[str]:
    return steps.new_lines(read_response({"completed": completed, "data": {"steps": list(found)}}))


def line_of(**fields: Any) -> str:
    (line,) = lines_of(Steps(), {"output": "yes", **fields})
    return line


def progress_lines(*values: Any) -> list[list[str]]:
    steps = Steps()
    return [steps.new_lines(read_response({"completed": False, "progress": value})) for value in values]


def test_a_line_names_agent_tool_purpose_time_and_cost() -> None:
    unit = {"name": "web search", "type": "tool"}
    line = line_of(agent={"name": "Analyst"}, unit=unit, task="find reviews", run_time=2.345, used_credits="0.0012")
    assert line == "Step 1: Analyst, tool web search: find reviews (2.3 s, 0.0012 credits)"


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, "Step 1: unnamed"),
        ({"agent_name": "Ann", "action": "plan", "thought": "hm"}, "Step 1: Ann, plan: hm"),
        ({"agent": {"id": "a1"}, "unit": "gpt"}, "Step 1: a1, gpt"),
        ({"agent": "Ann", "start_time": "2026-01-01T00:00", "end_time": "2026-01-01T00:00:05Z"}, "Step 1: Ann (5.0 s)"),
        ({"agent": "Ann", "error": "no\nkey"}, "Step 1: Ann; failed: no key"),
        ({"agent": "Ann", "error": {"message": "no key"}}, "Step 1: Ann; failed: no key"),
        ({"agent": "Ann", "error_message": [1]}, "Step 1: Ann; failed"),
        ({"agent": ["Ann"], "unit": {"name": 7}, "task": {}, "used_credits": "NaN", "run_time": -1}, "Step 1: unnamed"),
    ],
)  # fmt: skip
def test_a_line_names_what_is_known(fields: dict[str, Any], line: str) -> None:
    assert line_of(**fields) == line


def test_a_step_is_logged_once_when_it_has_finished() -> None:
    steps = Steps()
    running = step("b", output=None, task="two")
    assert lines_of(steps, step("a", task="one"), running) == ["Step 1: Analyst: one"]
    assert lines_of(steps, step("a", task="one, again"), running) == []
    assert lines_of(steps, step("a"), {**running, "output": "yes"}) == ["Step 2: Analyst: two"]
    assert lines_of(steps, step("a"), running, completed=True) == []


def test_the_steps_count_as_finished_when_the_run_has_finished() -> None:
    steps = Steps()
    assert lines_of(steps, step("a", output="")) == []
    assert lines_of(steps, step("a", output=""), completed=True) == ["Step 1: Analyst"]


@pytest.mark.parametrize("ids", [[None, None], ["a", "a"], [{}, []], [0, 0], ["", None]])
def test_steps_without_an_id_of_their_own_are_each_logged(ids: list[Any]) -> None:
    steps = Steps()
    first, second = (step(step_id, task=str(number)) for number, step_id in enumerate(ids))
    assert len(lines_of(steps, first)) == 1
    assert lines_of(steps, first, None, "x", second) == ["Step 4: Analyst: 1"]
    assert lines_of(steps, first, second) == []


def test_steps_in_another_order_are_not_logged_again() -> None:
    steps = Steps()
    assert len(lines_of(steps, step("a"), step("b"))) == 2
    assert lines_of(steps, step("b"), step("c"), step("a")) == ["Step 2: Analyst"]


def test_more_steps_than_fit_are_counted() -> None:
    steps = Steps()
    found = [step(index) for index in range(1, 38)]
    lines = lines_of(steps, *found)
    assert lines[:2] == ["Step 1: Analyst", "Step 2: Analyst"]
    assert lines[MAX_LINES:] == ["27 more steps have finished"]
    assert lines_of(steps, *found) == []


def test_a_wait_remembers_a_limited_number_of_steps() -> None:
    steps = Steps()
    assert lines_of(steps, *map(step, range(2 * MAX_STEPS)))[-1] == f"{MAX_STEPS - MAX_LINES} more steps have finished"
    assert lines_of(steps, step("another")) == []


def test_the_progress_is_logged_once_per_change() -> None:
    tool = {"stage": "acting", "tool": "search", "reason": "to\nfind", "currentStep": 2, "totalSteps": 5}
    assert progress_lines(
        {"stage": "planning", "message": "first"},
        {"stage": "planning", "message": "first"},
        {**tool, "runtime": 1, "success": None},
        {**tool, "runtime": 2, "success": None},
        {**tool, "agent": "Ann", "runtime": 2, "success": True},
        {**tool, "runtime": "2", "success": False},
    ) == [
        ["Step: planning: first"],
        [],
        ["Step 2 of 5: tool search: to find"],
        [],
        ["Step 2 of 5: Ann, tool search: to find (2.0 s)"],
        ["Step 2 of 5: tool search: to find (2.0 s); failed"],
    ]


@pytest.mark.parametrize(
    "data", ["text", None, {}, {"steps": None}, {"steps": []}, {"steps": {"a": 1}}, [{"steps": 1}]]
)
def test_the_answer_of_a_model_gives_no_lines(data: Any) -> None:
    assert Steps().new_lines(read_response({"completed": True, "data": data, "progress": 50})) == []


def test_a_line_is_printable_and_short() -> None:
    line = line_of(agent="\x1b[31m" + "a" * 10**6, task="b\n" * 10**6, error="\u202e" * 10**6)
    assert line.isprintable()
    assert len(line) < 4 * MAX_TEXT


@settings(max_examples=examples(), deadline=None)
@given(st.lists(OBJECTS | VALUES, max_size=4) | VALUES, OBJECTS | VALUES, st.booleans())
def test_any_answer_is_read(found: Any, progress: Any, completed: bool) -> None:
    steps = Steps()
    response = read_response({"completed": completed, "data": {"steps": found}, "progress": progress})
    lines = steps.new_lines(response)
    assert all(line.isprintable() and len(line) < 1000 for line in lines)
    assert not steps.new_lines(response), "each line is logged once"
