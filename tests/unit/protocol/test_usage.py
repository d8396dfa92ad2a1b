from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_aixplain.protocol.assets import Asset
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus
from airflow_provider_aixplain.protocol.resumption import Submission
from airflow_provider_aixplain.protocol.usage import (
    RunUsage,
    add_usage,
    count_tokens,
    earlier_usage,
    has_counted,
    latest,
    run_usage,
    spent,
)

MODEL = Asset("model", "sentiment")
URL = "https://example.com/api/v1/data/1"


def test_a_record_holds_what_a_page_shows() -> None:
    response = {"used_credits": "0.25", "run_time": 3.5, "usage": {"total_tokens": 7}, "url": URL, "data": "secret"}
    record = add_usage(None, run_usage("success", response, wait_time=4.00049), MODEL, "https://example.com/page")
    assert record == {
        "model_id": "sentiment",
        "page": "https://example.com/page",
        "runs": {"success": 1},
        "credits": "0.25",
        "tokens": 7,
        "run_time": 3.5,
        "wait_time": 4.0,
        "last_id": URL,
        "earlier": {},
        "revision": 1,
    }


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10**12), st.integers(0, 3))))
def test_each_run_counts_once_and_exactly(answers: list[tuple[int, int, int]]) -> None:
    """A task waits for one run at a time, but may learn its cost several times: the last answer counts."""
    record: dict[str, Any] | None = None
    runs: list[tuple[int, Decimal]] = []
    for run, millionths, tokens in answers:
        cost = Decimal(millionths).scaleb(-6)
        usage = RunUsage(str(run) if run else "", {"success": 1}, cost, tokens)
        record = json.loads(json.dumps(add_usage(record, usage, MODEL)))
        if runs and run and runs[-1][0] == run:
            runs.pop()
        runs.append((run, cost))
    assert sum((record or {"runs": {}})["runs"].values()) == len(runs)
    assert spent(record) == sum((cost for _, cost in runs), Decimal(0))


def test_a_timeout_is_replaced_by_the_end_of_its_run() -> None:
    late = add_usage(None, run_usage("timeout", None, URL), MODEL)
    assert not has_counted(late, URL), "its cost may be known later"
    record = add_usage(late, run_usage("success", {"used_credits": 1}, URL), MODEL)
    assert (record["runs"], record["credits"]) == ({"success": 1}, "1")
    assert has_counted(record, URL)
    assert not has_counted(record, "another")


@pytest.mark.parametrize("credits", [None, "NaN", -1, True, [], float("inf")])
def test_a_cost_that_is_no_number_counts_as_unknown(credits: Any) -> None:
    record = add_usage(None, run_usage("failed", {"used_credits": credits, "run_time": None}), Asset("agent", "a"))
    assert (record["credits"], record["run_time"], record["agent_id"]) == ("0", None, "a")


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"total_tokens": "12"}, 12),
        ({"prompt_tokens": 3, "completion_tokens": 4}, 7),
        ({"total_tokens": "NaN", "prompt_tokens": None}, 0),
        ({"total_tokens": -5}, 0),
        (None, 0),
        ("many", 0),
    ],
)
def test_tokens_are_counted_in_any_form(usage: Any, tokens: int) -> None:
    assert count_tokens(usage) == tokens


@pytest.mark.parametrize(
    ("url", "response", "runs", "credits"),
    [
        (URL, ModelResponse(ResponseStatus.SUCCESS, completed=True, used_credits=1), {"success": 1}, "1"),
        (URL, ModelResponse(ResponseStatus.FAILED, completed=True, used_credits=2), {"failed": 1}, "2"),
        (URL, ModelResponse(ResponseStatus.IN_PROGRESS), {"error": 1}, "0"),
        (URL, ModelResponse(ResponseStatus.FAILED, error_message="no connection"), {"error": 1}, "0"),
        (URL, None, {"error": 1}, "0"),
        (None, None, {"orphaned": 1}, "0"),
    ],
)
def test_the_run_of_a_stopped_try_is_counted(
    url: str | None, response: ModelResponse | None, runs: dict[str, int], credits: str
) -> None:
    submission = Submission("fingerprint", "2026-11-26T00:00:00Z", url)
    record = add_usage(None, earlier_usage(submission, response), MODEL)
    assert has_counted(record, submission.run_id) is ("error" not in runs)
    assert (record["runs"], record["credits"]) == (runs, credits)


def test_the_latest_replica_has_the_higher_revision() -> None:
    one = add_usage(None, run_usage("failed", None), MODEL)
    two = add_usage(one, run_usage("success", None), MODEL)
    assert latest(one, two) == latest(two, one) == latest(two, None) == latest(None, two) == two
    progress = add_usage(one, RunUsage("batch", {"success": 1}), MODEL)
    assert latest(two, progress) == progress, "a trigger writes the progress of a batch only to the XCom"
    assert latest(None, None) is None
    assert spent(None) == 0
