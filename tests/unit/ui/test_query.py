"""Usage records are read from XComs and from the task state store."""

from __future__ import annotations

import json
import logging
from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session

from airflow_provider_aixplain.ui import query
from tests.support.usage import NOON, Database, make_usage

DAY = timedelta(days=1)


def credits(session: Session, start: Any = NOON - DAY, end: Any = NOON + DAY) -> list[str]:
    return sorted(record.usage["credits"] for record in query.read_period(session, start, end))


@pytest.mark.parametrize(
    ("xcom", "stored", "expected"),
    [
        (make_usage("1"), None, ["1"]),
        (None, make_usage("2"), ["2"]),
        (make_usage("1"), make_usage("2"), ["1"]),
        (make_usage("1"), make_usage("2", revision=2), ["2"]),
        (make_usage("1", revision=2), make_usage("2"), ["1"]),
        (json.dumps(make_usage("1")), None, ["1"]),  # as the XCom of a user's own backend
        (None, '{"poll_url": "https://h/1"}', []),
        (make_usage("1"), '{"usage": null}', ["1"]),
        ({"version": 9}, None, []),
        (["no", "record"], None, []),
        ('"', None, []),
        (None, "no JSON", []),
        (None, "[]", []),
        (None, '{"usage": 7}', []),
        ({"version": 9}, make_usage("2"), ["2"]),
    ],
)
def test_the_record_with_the_higher_revision_is_read(
    xcom: Any, stored: Any, expected: list[str], database: Database, session: Session
) -> None:
    database.add("dag", xcom, stored=stored)
    assert credits(session) == expected


def test_malformed_records_are_logged_once(
    database: Database, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    query._log_malformed.cache_clear()
    for _ in range(3):
        database.add("dag", {"credits": "many"})
    with caplog.at_level(logging.WARNING):
        assert credits(session) == credits(session) == []
    assert len(caplog.records) == 1


def test_a_period_ends_before_its_end(database: Database, session: Session) -> None:
    for number, moment in enumerate((NOON - DAY, NOON, NOON + DAY)):
        database.add("dag", make_usage(str(number)), moment)
    assert credits(session, NOON - DAY, NOON + DAY) == ["0", "1"]


def test_each_task_instance_has_its_own_record(database: Database, session: Session) -> None:
    run = database.add_run()
    for number in range(3):
        database.add_task(run, make_usage(str(number)), map_index=number)
    database.add_task(run, make_usage("3"), task_id="other")
    database.add_task(run)
    assert credits(session) == ["0", "1", "2", "3"]
    keys = [(1, "run", 2), (1, "other", -1), (1, "run", 9)]
    assert {key: record.usage["credits"] for key, record in query.read_tasks(session, keys).items()} == {
        (1, "run", 2): "2",
        (1, "other", -1): "3",
    }
    assert query.read_tasks(session, []) == {}


def test_a_changed_dag_run_changes_its_days_fingerprint(database: Database, session: Session) -> None:
    database.add_run(run_after=NOON)
    database.add_run(run_after=NOON - DAY, updated_at=NOON)
    first = query.read_fingerprints(session, NOON - DAY, NOON + DAY)
    assert list(first) == [date(2026, 11, 19), date(2026, 11, 20)]
    assert first[date(2026, 11, 19)] == query.Fingerprint(1, NOON)
    database.add_run(run_after=NOON)
    second = query.read_fingerprints(session, NOON - DAY, NOON + DAY)
    assert [day for day in first if first[day] != second[day]] == [date(2026, 11, 20)]


def test_tasks_in_progress_are_running_or_deferred(database: Database, session: Session) -> None:
    for number, state in enumerate(("running", "deferred", "success", "up_for_retry")):
        database.add("dag", make_usage(str(number)), state=state)
    database.add("hidden", make_usage("9"), state="running")
    found = query.read_in_progress(session, NOON - DAY, NOON + DAY, {"dag"})
    assert [record.usage["credits"] for record in found] == ["0", "1"]
