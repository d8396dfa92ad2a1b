"""Reads usage records by the time of DAG runs and by primary keys, as the table of XComs has no index on its time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from datetime import date, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Text, and_, cast, func, select, tuple_
from sqlalchemy.orm import Session

from airflow_provider_aixplain import compat
from airflow_provider_aixplain.protocol.usage import USAGE_KEY, latest
from airflow_provider_aixplain.submission import KEY as SUBMISSION_KEY
from airflow_provider_aixplain.ui.usage import DagRun, Record, Usage, parse_state, parse_xcom

log = logging.getLogger(__name__)

SOURCES: tuple[tuple[str, str, Callable[[str], Usage | None]], ...] = (
    ("xcom", USAGE_KEY, parse_xcom),
    ("task_state_store", SUBMISSION_KEY, parse_state),
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


def read_period(session: Session, start: datetime, end: datetime) -> list[Record]:
    """Return the records of the DAG runs of a period."""
    run = compat.table("dag_run").c
    condition = and_(run.run_after >= start, run.run_after < end)
    return _read(session, condition, lambda source: source.dag_run_id.in_(select(run.id).where(condition)))


def read_tasks(session: Session, keys: Collection[tuple[int, str, int]]) -> dict[tuple[int, str, int], Record]:
    """Return the records of task instances, by DAG run, task and map index."""
    ids = {key[0] for key in keys}
    # The ids are named twice, as SQLite uses no index for tuples.
    found = _read(
        session,
        compat.table("dag_run").c.id.in_(ids),
        lambda source: and_(
            source.dag_run_id.in_(ids), tuple_(source.dag_run_id, source.task_id, source.map_index).in_(keys)
        ),
    )
    return {record.key: record for record in found}


def read_in_progress(session: Session, start: datetime, end: datetime, dag_ids: Collection[str]) -> list[Record]:
    """Return the records of task instances that run or are deferred, the newest DAG runs first."""
    run, task, xcom = (compat.table(name).c for name in ("dag_run", "task_instance", "xcom"))
    has_record = and_(
        *(xcom.dag_run_id == run.id, xcom.task_id == task.task_id),
        *(xcom.map_index == task.map_index, xcom.key == USAGE_KEY),
    )
    found = session.execute(
        select(run.id, task.task_id, task.map_index, run.dag_id)
        .join(compat.table("task_instance"), and_(task.dag_id == run.dag_id, task.run_id == run.run_id))
        .join(compat.table("xcom"), has_record)
        .where(task.state.in_(IN_PROGRESS), run.run_after >= start, run.run_after < end)
        .order_by(run.run_after.desc(), run.id, task.task_id, task.map_index)
    )
    keys = [tuple(key) for *key, dag_id in found if dag_id in dag_ids][:MAX_IN_PROGRESS]
    records = read_tasks(session, keys)
    return [records[key] for key in keys if key in records]


def _read(session: Session, in_runs: Any, condition: Callable[[Any], Any]) -> list[Record]:
    """Return records.

    :param in_runs: a condition on DAG runs.
    :param condition: returns a condition on the columns of a table with records.
    """
    run = compat.table("dag_run").c
    dag_runs = session.execute(select(run.id, run.dag_id, run.run_id, run.run_after).where(in_runs))
    known = {dag_run[0]: DagRun(*dag_run) for dag_run in dag_runs}
    # SQLite would read all records by the index on the key. It cannot use that index for an expression.
    is_sqlite = session.get_bind().dialect.name == "sqlite"
    found: dict[tuple[int, str, int], list[Usage | None]] = {}
    for index, (name, key, parse) in enumerate(SOURCES[: 2 if compat.is_at_least(3, 3) else 1]):
        source = compat.table(name).c
        rows = session.execute(
            select(source.dag_run_id, source.task_id, source.map_index, cast(source.value, Text)).where(
                (source.key.concat("") if is_sqlite else source.key) == key, condition(source)
            )
        )
        for dag_run_id, task_id, map_index, text in rows:
            try:
                usage = parse(text)
            except ValueError:
                _log_malformed(name, key)
                continue
            found.setdefault((dag_run_id, task_id, map_index), [None, None])[index] = usage
    return [
        Record(known[dag_run_id], task_id, map_index, usage)
        for (dag_run_id, task_id, map_index), records in found.items()
        if (usage := latest(records[1], records[0])) and dag_run_id in known
    ]


@lru_cache
def _log_malformed(table: str, key: str) -> None:
    log.warning(
        "Skipped usage records that cannot be read, in the table %s, key %s; they are missing on the page aiXplain."
        " They may be of another version of airflow-provider-aixplain",
        table,
        key,
    )
