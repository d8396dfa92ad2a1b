"""Which days are counted again, and how many are kept."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from airflow_provider_aixplain import compat
from airflow_provider_aixplain.ui.days import CountedDays, PeriodTooLargeError, midnight
from airflow_provider_aixplain.ui.usage import add
from tests.support.usage import NOON, Database, make_usage

DAY = timedelta(days=1)
WEEK = midnight(NOON.date()) - 3 * DAY, midnight(NOON.date()) + 4 * DAY


def spent(days: CountedDays, session: Session, period: Any = WEEK) -> tuple[Decimal, int]:
    counted, left = days.count(session, *period)
    return add(group.credits for day in counted.values() for group in day.groups), left


def change_record(database: Database, credits: str) -> None:
    with database.engine.begin() as connection:
        connection.execute(update(compat.table("xcom")).values(value=make_usage(credits)))


@pytest.fixture
def days() -> CountedDays:
    return CountedDays(max_age=0)


def test_a_settled_day_is_counted_once(days: CountedDays, database: Database, session: Session) -> None:
    database.add("dag", make_usage("1"))
    assert spent(days, session) == (1, 0)
    change_record(database, "2")
    assert spent(days, session) == (1, 0)


def test_a_day_is_counted_again_after_a_change(days: CountedDays, database: Database, session: Session) -> None:
    database.add("dag", make_usage("1"))
    assert spent(days, session) == (1, 0)
    change_record(database, "2")
    with database.engine.begin() as connection:
        connection.execute(update(compat.table("dag_run")).values(updated_at=NOON + DAY))
    assert spent(days, session) == (2, 0)
    with database.engine.begin() as connection:
        connection.execute(delete(compat.table("dag_run")))
    assert spent(days, session) == (0, 0)


def test_a_recent_change_keeps_a_day_unsettled(days: CountedDays, database: Database, session: Session) -> None:
    database.add_task(database.add_run(updated_at=datetime.now(timezone.utc)), make_usage("1"))
    assert spent(days, session)[0] == 1
    change_record(database, "2")
    assert spent(days, session)[0] == 2


def test_a_changing_day_is_not_counted_too_often(database: Database, session: Session) -> None:
    days = CountedDays(max_age=3600)
    database.add_task(database.add_run(updated_at=datetime.now(timezone.utc)), make_usage("1"))
    assert spent(days, session) == (1, 0)
    change_record(database, "2")
    assert spent(days, session) == (1, 0)


def test_a_request_counts_the_newest_days_within_its_budget(database: Database, session: Session) -> None:
    days = CountedDays(budget=0)
    for number in range(3):
        database.add("dag", make_usage(str(number + 1)), NOON - number * DAY)
    assert [spent(days, session) for _ in range(4)] == [(1, 2), (3, 1), (6, 0), (6, 0)]


def test_parts_of_days_are_counted_apart(days: CountedDays, database: Database, session: Session) -> None:
    database.add("dag", make_usage("1"), NOON - timedelta(hours=1))
    database.add("dag", make_usage("2"), NOON)
    assert spent(days, session)[0] == 3
    assert spent(days, session, (WEEK[0], NOON))[0] == 1
    assert spent(days, session, (NOON, WEEK[1]))[0] == 2
    assert list(days.count(session, NOON, WEEK[1])[0]) == [date(2026, 11, 20)]


def test_days_that_were_not_asked_for_are_removed(database: Database, session: Session) -> None:
    for number in range(3):
        database.add("dag", make_usage("1"), NOON - number * DAY)
    size = CountedDays().count(session, *WEEK)[0][NOON.date()].size
    days = CountedDays(max_bytes=int(2.5 * size))
    with pytest.raises(PeriodTooLargeError, match="shorter period"):
        days.count(session, *WEEK)
    for start in (NOON - 2 * DAY, NOON - DAY, NOON, NOON - 2 * DAY):
        day = midnight(start.date())
        assert spent(days, session, (day, day + DAY)) == (1, 0)
        assert sum(counted.size for counted in days._days.values()) <= 2.5 * size
