"""Records are checked, and sums are exact."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_aixplain.ui import usage as module
from airflow_provider_aixplain.ui.usage import (
    DagRun,
    Filters,
    Record,
    Summary,
    count_day,
    parse_xcom,
    select_rows,
)
from tests.support.usage import NOON, make_usage

ALL = Filters()


def record(dag_id: str = "dag", task_id: str = "run", number: int = 1, **fields: Any) -> Record:
    run = DagRun(number, dag_id, f"run_{number}", NOON)
    return Record(run, task_id, -1, parse_xcom(json.dumps(make_usage(**fields))))


def summarize(
    *records: Record, readable: Any = ("dag", "other"), filters: Filters = ALL, stack: str = "asset"
) -> dict[str, Any]:
    summary = Summary(readable, filters, stack)
    summary.add_day("2026-11-20", count_day(records).groups)
    return summary.answer()


class TestRecords:
    @pytest.mark.parametrize(
        "fields",
        [
            {"credits": "many"},
            {"credits": "NaN"},
            {"credits": "Infinity"},
            {"credits": "1e999999"},
            {"credits": f"0.{'0' * 30}1"},
            {"credits": "-1"},
            {"credits": 1.5},
            {"runs": {"success": -1}},
            {"runs": None},
            {"tokens": "x"},
            {"run_time": -1},
            {"model_id": None},
            {"batch": {"rows": 1}},
        ],
    )
    def test_a_malformed_record_is_an_error(self, fields: dict[str, Any]) -> None:
        parse_xcom(json.dumps(make_usage()))
        with pytest.raises(ValueError, match="validation error"):
            parse_xcom(json.dumps({**make_usage(), **fields}))

    def test_a_record_without_an_asset_is_an_error(self) -> None:
        nameless = make_usage()
        del nameless["model_id"]
        with pytest.raises(ValueError, match="neither model_id nor agent_id"):
            parse_xcom(json.dumps(nameless))

    def test_internal_fields_are_ignored(self) -> None:
        assert "last_id" not in record(last_id="https://h/1").usage


class TestSums:
    @given(st.lists(st.decimals("0", "1e15", places=28), max_size=20))
    def test_credits_are_exact_to_the_last_digit(self, values: list[Decimal]) -> None:
        answer = summarize(*(record(number=number, credits=f"{value:f}") for number, value in enumerate(values)))
        scaled = sum(int(module.EXACT.scaleb(value, 28)) for value in values)
        assert module.EXACT.scaleb(Decimal(answer["totals"]["credits"]), 28) == scaled

    @pytest.mark.parametrize(
        ("value", "shown"), [("0", "0"), ("0E-9", "0"), ("1.50", "1.5"), ("100", "100"), ("0.00000001", "0.00000001")]
    )
    def test_numbers_are_shown_without_exponent(self, value: str, shown: str) -> None:
        assert module.show(Decimal(value)) == shown

    def test_totals_count_runs_and_tasks(self) -> None:
        answer = summarize(record(runs={"success": 2, "failed": 1, "timeout": 0}), record(number=2, agent_id="a"))
        assert answer["totals"] == {
            "credits": "1",
            "runs": 4,
            "tasks": 2,
            "tokens": 20,
            "outcomes": {"success": 3, "failed": 1},
        }
        assert answer["total_runs_rows"] == 2
        assert answer["outcomes_by_day"] == [{"day": "2026-11-20", "outcomes": {"success": 3, "failed": 1}}]

    @pytest.mark.parametrize(
        ("stack", "expected"),
        [
            ("asset", {"model:sentiment": "1", "agent:a": "2"}),
            ("dag", {"dag:dag": "1", "dag:other": "2"}),
            ("kind", {"kind:model": "1", "kind:agent": "2"}),
        ],
    )
    def test_days_are_stacked(self, stack: str, expected: dict[str, str]) -> None:
        answer = summarize(record(credits="1"), record("other", credits="2", agent_id="a"), stack=stack)
        assert answer["days"] == [{"day": "2026-11-20", "credits": expected}]

    def test_small_stacks_are_merged(self) -> None:
        answer = summarize(*(record(model_id=f"m{n:02}", credits=str(n)) for n in range(1, 13)))
        (day,) = answer["days"]
        assert day["credits"] == {**{f"model:m{n:02}": str(n) for n in range(4, 13)}, "other": "6"}

    def test_the_most_expensive_tasks_come_first(self) -> None:
        answer = summarize(*(record(task_id=f"t{n:02}", credits=str(n)) for n in range(12)))
        assert [task["task_id"] for task in answer["tasks"]] == [f"t{n:02}" for n in range(11, 1, -1)]
        assert answer["tasks"][0] == {
            "dag_id": "dag",
            "task_id": "t11",
            "credits": "11",
            "runs": 1,
            "model_id": "sentiment",
        }


class TestAccess:
    def test_a_hidden_dag_is_in_no_field(self) -> None:
        hidden = record("hidden", "secret_task", agent_id="secret_agent", runs={"secret_outcome": 5})
        assert summarize(record(), hidden) == summarize(record())
        assert "hidden" not in str(summarize(record(), hidden, filters=Filters(dag_ids=["hidden"])))

    def test_options_do_not_depend_on_filters(self) -> None:
        records = record(), record("other", agent_id="a", runs={"failed": 1})
        answer = summarize(*records, filters=Filters(["other"], ["agent:a"], ["failed"]))
        assert answer["totals"]["tasks"] == 1
        assert answer["filters"] == {
            "dag_ids": ["dag", "other"],
            "model_ids": ["sentiment"],
            "agent_ids": ["a"],
            "outcomes": ["failed", "success"],
        }

    @pytest.mark.parametrize(
        "filters", [Filters(dag_ids=["x"]), Filters(assets=["agent:sentiment"]), Filters(outcomes=["failed"])]
    )
    def test_a_filter_leaves_out_what_differs(self, filters: Filters) -> None:
        answer = summarize(record(), filters=filters)
        assert (answer["totals"]["tasks"], answer["days"], answer["tasks"]) == (0, [], [])


class TestDurations:
    @given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=50), st.sampled_from([0.5, 0.95]))
    def test_quantiles_are_within_five_percent(self, values: list[float], share: float) -> None:
        exact = sorted(values)[-int(-share * len(values) // 1) - 1]
        found = module.quantile(Counter(module.bucket(value) for value in values), share)
        assert found == pytest.approx(exact, rel=0.05)

    def test_no_duration_is_null(self) -> None:
        assert summarize(record())["durations"]["run_time"] == {"median": None, "p95": None, "count": 0}

    def test_zero_and_endless_durations_count(self) -> None:
        answer = summarize(record(run_time=0, wait_time=1e300))
        assert answer["durations"]["run_time"] == {"median": 0.0, "p95": 0.0, "count": 1}
        assert answer["durations"]["wait_time"]["median"] > 3e7


class TestRows:
    DAYS = tuple(
        (count_day(record(number=3 * day + n, credits=str(n)) for n in range(3)).rows, bytearray([True]))
        for day in range(2)
    )

    @pytest.mark.parametrize(
        ("sort", "expected"),
        [
            ("run_after", [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]),
            ("-run_after", [(1, 2), (1, 1), (1, 0), (0, 2), (0, 1), (0, 0)]),
            ("credits", [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]),
            ("-credits", [(1, 2), (0, 2), (1, 1), (0, 1), (1, 0), (0, 0)]),
        ],
    )
    def test_pages_follow_each_other(self, sort: str, expected: list[tuple[int, int]]) -> None:
        pages = [select_rows(self.DAYS, sort, 4, offset) for offset in (0, 4, 8)]
        assert pages == [expected[:4], expected[4:], []]

    def test_rows_of_other_groups_are_left_out(self) -> None:
        day = count_day([record(number=1), record("other", number=2), record(number=3)])
        assert select_rows([(day.rows, bytearray([True, False]))], "run_after", 9, 0) == [(0, 0), (0, 2)]
