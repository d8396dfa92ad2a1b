"""Reads usage records by the time of DAG runs and by primary keys, as the table of XComs has no index on its time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import date, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Text, and_, cast, func, select, tuple_
from sqlalchemy.orm import Session

from airflow_provider_aixplain import compat
from airflow_provider_aixplain.ui.usage import Record, Task, Usage, choose, parse_state, parse_xcom

log = logging.getLogger(__name__)

SOURCES: tuple[tuple[str, str, Callable[[str], Usage | None]], ...] = (
    ("xcom", "aixplain_usage", parse_xcom),
    ("task_state_store", "aixplain_submission", parse_state),
)
"""Tables with records, their keys there, and what reads them."""

IN_PROGRESS = ("running", "deferred")
MAX_IN_PROGRESS = 1000
"""Task instances whose records are read for the batches in progress."""


class Fingerprint(NamedTuple):
    """What changes when the records of a day do: DAG runs are added, deleted, or scheduled and finished."""

    dag_runs: int
    updated_at: datetime


def read_fingerprints(session: Session, start: datetime, end: datetime) -> dict[date, Fingerprint]:
    """Return the fingerprint of each UTC day with DAG runs, in order."""
    run = compat.table("dag_run").c
    in_utc = func.timezone("UTC", run.run_after) if session.get_bind().dialect.name == "postgresql" else run.run_after
    day = func.date(in_utc)
    found = session.execute(
        select(day, func.count(), func.coalesce(func.max(run.updated_at), func.max(run.run_after)))
        .where(run.run_after >= start, run.run_after < end)
        .group_by(day)
        .order_by(day)
    )
    return {date.fromisoformat(str(day)): Fingerprint(count, updated_at) for day, count, updated_at in found}


def read_period(session: Session, start: datetime, end: datetime) -> Iterator[Record]:
    """Return the records of the DAG runs of a period."""
    run = compat.table("dag_run").c
    return _read(session, lambda source: and_(run.run_after >= start, run.run_after < end))


def read_tasks(session: Session, keys: Collection[tuple[int, str, int]]) -> dict[tuple[int, str, int], Record]:
    """Return the records of task instances, by DAG run, task and map index."""
    found = _read(session, lambda source: tuple_(source.dag_run_id, source.task_id, source.map_index).in_(keys))
    return {(task.dag_run_id, task.task_id, task.map_index): (task, usage) for task, usage in found} if keys else {}


def read_in_progress(session: Session, start: datetime, end: datetime, dag_ids: Collection[str]) -> Iterable[Record]:
    """Return the records of task instances that run or are deferred, the newest DAG runs first."""
    run, task = compat.table("dag_run").c, compat.table("task_instance").c
    found = session.execute(
        select(run.id, task.task_id, task.map_index, run.dag_id)
        .join(compat.table("task_instance"), and_(task.dag_id == run.dag_id, task.run_id == run.run_id))
        .where(task.state.in_(IN_PROGRESS), run.run_after >= start, run.run_after < end)
        .order_by(run.run_after.desc(), run.id, task.task_id, task.map_index)
    )
    keys = [tuple(key) for *key, dag_id in found if dag_id in dag_ids][:MAX_IN_PROGRESS]
    records = read_tasks(session, keys)
    return [records[key] for key in keys if key in records]


def _read(session: Session, condition: Any) -> Iterator[Record]:
    """Return records by a condition on DAG runs and on the table that has the records."""
    run = compat.table("dag_run").c
    found: dict[Task, list[Usage | None]] = {}
    for index, (name, key, parse) in enumerate(SOURCES[: 2 if compat.is_at_least(3, 3) else 1]):
        table = compat.table(name)
        rows = session.execute(
            select(
                run.id,
                run.dag_id,
                run.run_id,
                run.run_after,
                table.c.task_id,
                table.c.map_index,
                cast(table.c.value, Text),
            )
            .join(table, table.c.dag_run_id == run.id)
            .where(table.c.key == key, condition(table.c))
        )
        for *identity, text in rows:
            task = Task(*identity)
            try:
                usage = parse(text)
            except ValueError:
                _log_malformed(name, key)
                continue
            found.setdefault(task, [None, None])[index] = usage
    for task, records in found.items():
        if chosen := choose(*records):
            yield task, chosen


@lru_cache
def _log_malformed(table: str, key: str) -> None:
    log.warning(
        "Skipped usage records that cannot be read, in the table %s, key %s; they are missing on the page aiXplain."
        " They may be of another version of airflow-provider-aixplain",
        table,
        key,
    )
