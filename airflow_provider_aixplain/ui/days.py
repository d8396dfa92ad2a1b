"""Counted days, which the API server's process keeps, so that it does not read a year of records for each request."""

from __future__ import annotations

import pickle
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from typing import NamedTuple

from sqlalchemy.orm import Session

from airflow_provider_aixplain.ui.query import Fingerprint, read_fingerprints, read_period
from airflow_provider_aixplain.ui.usage import Group, Rows, count_day

DAY = timedelta(days=1)
Period = tuple[datetime, datetime]


class PeriodTooLargeError(ValueError):
    """A period has more records than are kept in memory."""


class Counted(NamedTuple):
    """A day, or a part of it, as counted at a time."""

    fingerprint: Fingerprint
    counted_at: float
    is_settled: bool
    pickled_groups: bytes
    rows: Rows

    @property
    def groups(self) -> list[Group]:
        """The sums. Pickled they take a fifth of the memory."""
        groups: list[Group] = pickle.loads(self.pickled_groups)  # noqa: S301 -- made by this process
        return groups

    @property
    def size(self) -> int:
        """Memory, in bytes."""
        return len(self.pickled_groups) + sum(column.itemsize * len(column) for column in self.rows)


class CountedDays:
    """The days that have been counted. They cover all DAGs: each request filters by the rights of its user.

    A day is counted again when its DAG runs have changed (see :class:`Fingerprint`).

    :param budget: seconds that a request counts days for, at least one day; it answers without the others.
    :param max_age: seconds for which a day that changes is not counted again.
    :param settled_after: seconds without a change after which a count is final until the next change: a task that is
        stopped with its DAG run may write its record a little later.
    :param max_bytes: memory of all days. The least recently used ones are evicted.
    """

    def __init__(
        self, budget: float = 0.5, max_age: float = 5, settled_after: float = 300, max_bytes: int = 64 * 2**20
    ) -> None:
        self._budget = budget
        self._max_age = max_age
        self._settled_after = timedelta(seconds=settled_after)
        self._max_bytes = max_bytes
        self._days: OrderedDict[Period, Counted] = OrderedDict()
        self._lock = threading.Lock()

    def count(self, session: Session, start: datetime, end: datetime) -> tuple[dict[date, Counted], int]:
        """Return the counted days of a period in order, and how many days are missing or outdated.

        :raises PeriodTooLargeError: if they exceed the memory.
        """
        deadline = time.monotonic() + self._budget
        periods = {
            (max(start, midnight(day)), min(end, midnight(day) + DAY)): fingerprint
            for day, fingerprint in read_fingerprints(session, start, end).items()
        }
        todo = sorted(self._outdated(periods), key=self._priority)
        if todo and self._lock.acquire(timeout=self._budget):
            try:
                for period in todo:
                    if period in self._outdated({period: periods[period]}):  # else another thread has counted it
                        self._days[period] = self._read(session, period, periods[period])
                    if time.monotonic() > deadline:
                        break
                self._limit_memory(periods)
            finally:
                self._lock.release()
        found = {period: self._days.get(period) for period in periods}
        left = len(list(self._outdated(periods)))
        return {period[0].date(): counted for period, counted in found.items() if counted}, left

    def _outdated(self, periods: dict[Period, Fingerprint]) -> Iterator[Period]:
        for period, fingerprint in periods.items():
            counted = self._days.get(period)
            if counted is None or (
                not (counted.is_settled and counted.fingerprint == fingerprint)
                and time.monotonic() - counted.counted_at >= self._max_age
            ):
                yield period

    def _priority(self, period: Period) -> tuple[bool, float]:
        """Missing days first, the newest first; then the day that was counted first."""
        counted = self._days.get(period)
        return (False, -period[0].timestamp()) if counted is None else (True, counted.counted_at)

    def _read(self, session: Session, period: Period, fingerprint: Fingerprint) -> Counted:
        groups, rows = count_day(read_period(session, *period))
        is_settled = datetime.now(timezone.utc) - fingerprint.updated_at > self._settled_after
        return Counted(fingerprint, time.monotonic(), is_settled, pickle.dumps(groups), rows)

    def _limit_memory(self, periods: dict[Period, Fingerprint]) -> None:
        for period in periods:
            if period in self._days:
                self._days.move_to_end(period)
        size = sum(counted.size for counted in self._days.values())
        while size > self._max_bytes:
            period, counted = self._days.popitem(last=False)
            size -= counted.size
            if period in periods:
                raise PeriodTooLargeError("has more runs than can be counted; choose a shorter period")


def midnight(day: date) -> datetime:
    """Return the beginning of a UTC day."""
    return datetime(day.year, day.month, day.day, tzinfo=timezone.utc)
