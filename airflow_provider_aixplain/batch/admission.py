"""Limits how often a batch submits rows and commits records."""

from __future__ import annotations

import asyncio
import math
import random
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from airflow_provider_aixplain.batch.commit_log import Fenced, Record
from airflow_provider_aixplain.protocol.schedule import retry_after_delay

FIRST_BACKOFF = 1.0
LONGEST_BACKOFF = 60.0

LONGEST_PACE = 1.0
"""The maximum time between two commits, in seconds, which a batch reaches after an hour."""

MAX_COMMIT_SIZE = 1_000_000
"""The approximate maximum size of a commit, in characters."""

LARGE_COMMIT = 100
"""Records for which a commit does not wait longer than the first pace."""


class RateLimiter:
    """Admits the submissions of a batch one by one.

    :param per_second: the maximum number of submissions per second; None: no limit.
    """

    def __init__(self, per_second: float | None) -> None:
        self._interval = 1 / per_second if per_second else 0.0
        self._next = 0.0
        self._backoff = 0.0
        self._backed_off_at = -math.inf

    async def acquire(self) -> float:
        """Wait until the next submission may be sent.

        :return: the time, by the monotonic clock.
        """
        while (delay := self._next - time.monotonic()) > 0:  # noqa: ASYNC110 # the delay may grow while waiting
            await asyncio.sleep(delay)
        now = time.monotonic()
        self._next = now + self._interval
        return now

    def back_off(self, requested: float | None, acquired_at: float = math.inf) -> None:
        """Delay all submissions, by the longer of two delays: the one that the platform requests, at most five minutes;
        and the backoff, which doubles with each failure from 1 s to 60 s.

        :param requested: the delay that the platform requests, in seconds.
        :param acquired_at: the time when the failed submission was admitted. A burst of failures counts once.
        """
        if acquired_at > self._backed_off_at:
            self._backed_off_at = time.monotonic()
            self._backoff = min(max(FIRST_BACKOFF, self._backoff * 2), LONGEST_BACKOFF)
        delay = max(retry_after_delay(requested or 0.0, random.random()), self._backoff * random.uniform(0.8, 1.2))
        self._next = max(self._next, time.monotonic() + delay)

    def reset(self) -> None:
        """Reset the backoff, because a submission was accepted."""
        self._backoff = 0.0


class _Entry(NamedTuple):
    record: Record
    fenced: bool
    size: int
    committed: asyncio.Future[None]


class GroupCommitter:
    """Commits records in groups: records that are queued while a commit is in flight go into the next commit.

    :param append: appends records to a log: ``append(records, fenced, commit_id)``.
    :param pace: the minimum time between the starts of two commits, in seconds. For commits of less than 100 records it
        grows to 1 s after an hour, which bounds the number of objects; larger ones would delay short runs.
    :ivar last_commit: the start of the last commit, by the monotonic clock.
    """

    def __init__(self, append: Callable[[list[Record], bool, str], Awaitable[Any]], pace: float) -> None:
        self._append = append
        self._pace = pace
        self._started_at = time.monotonic()
        self.last_commit = -math.inf
        self._queue: deque[_Entry] = deque()
        self._task: asyncio.Task[None] | None = None

    async def commit(self, record: Record, *, fenced: bool) -> None:
        """Commit a record, and return once it is committed.

        :param fenced: whether the record is a command, which only the owner of the batch may commit.
        :raises Fenced: if it is a command, and another process has claimed the batch.
        :raises Exception: any error of the storage.
        """
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(_Entry(record, fenced, len(str(record)), committed))
        if self._task is None:
            self._task = asyncio.ensure_future(self._commit_all())
        await committed

    async def _commit_all(self) -> None:
        while self._queue:
            if sum(entry.size for entry in self._queue) < MAX_COMMIT_SIZE:
                now = time.monotonic()
                await asyncio.sleep(max(0.0, self.last_commit + self._pace - now))
                pace = min(LONGEST_PACE, (now - self._started_at) / 3600)
                while len(self._queue) < LARGE_COMMIT and time.monotonic() < self.last_commit + pace:  # noqa: ASYNC110
                    await asyncio.sleep(self._pace)
            entries = [self._queue.popleft()]
            size = entries[0].size
            while self._queue and (size := size + self._queue[0].size) <= MAX_COMMIT_SIZE:
                entries.append(self._queue.popleft())
            self.last_commit = time.monotonic()
            await self._commit(entries)
        self._task = None

    async def _commit(self, entries: list[_Entry]) -> None:
        error: Exception | None = None
        fenced = any(entry.fenced for entry in entries)
        try:
            await self._append([entry.record for entry in entries], fenced, uuid.uuid4().hex)
        except Exception as problem:
            error = problem
            facts = [entry for entry in entries if not entry.fenced]
            if fenced and facts and isinstance(error, Fenced):
                await self._commit(facts)
        for committed in (entry.committed for entry in entries if not entry.committed.done()):
            if error:
                committed.set_exception(error)
            else:
                committed.set_result(None)
