"""When the rows of a batch are submitted, and when their records are committed."""

from __future__ import annotations

import asyncio
import math
import random
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from airflow_provider_aixplain.batch.commit_log import Fenced, Record
from airflow_provider_aixplain.protocol.schedule import asked_delay

FIRST_BACKOFF = 1.0
LONGEST_BACKOFF = 60.0

LONGEST_PACE = 1.0
"""Seconds between two commits, at most, once a batch has run for an hour."""

MAX_COMMIT_SIZE = 1_000_000
"""Characters of results in one commit, about."""


class RateLimiter:
    """Admits the submissions of a batch one by one.

    :param per_second: how many, at most; None: as many as there are.
    """

    def __init__(self, per_second: float | None) -> None:
        self._interval = 1 / per_second if per_second else 0.0
        self._next = 0.0
        self._backoff = 0.0
        self._backed_off_at = -math.inf

    async def acquire(self) -> float:
        """Return once a submission may be made.

        :return: the time, by the monotonic clock.
        """
        while (delay := self._next - time.monotonic()) > 0:  # noqa: ASYNC110 # it may grow meanwhile
            await asyncio.sleep(delay)
        now = time.monotonic()
        self._next = now + self._interval
        return now

    def back_off(self, requested: float | None, acquired_at: float = math.inf) -> None:
        """Delay all submissions: as long as the platform requests, up to five minutes; or longer after each failure.

        :param requested: by the platform, in seconds.
        :param acquired_at: when the submission that failed was admitted. Of many in flight, one counts.
        """
        if acquired_at > self._backed_off_at:
            self._backed_off_at = time.monotonic()
            self._backoff = min(max(FIRST_BACKOFF, self._backoff * 2), LONGEST_BACKOFF)
        delay = max(asked_delay(requested or 0.0, random.random()), self._backoff * random.uniform(0.8, 1.2))
        self._next = max(self._next, time.monotonic() + delay)

    def reset(self) -> None:
        """Begin with the shortest delay after the next failure: a submission was accepted."""
        self._backoff = 0.0


class _Entry(NamedTuple):
    record: Record
    fenced: bool
    committed: asyncio.Future[None]


class GroupCommitter:
    """Commits the records of many tasks together: all that are queued while a commit is in flight go into the next one.

    :param append: appends records to a log: ``append(records, fenced, commit_id)``.
    :param pace: the shortest time between the starts of two commits, in seconds. It grows to 1 s after an hour, which
        bounds the number of objects.
    :ivar last_commit: when the last commit started, by the monotonic clock.
    """

    def __init__(self, append: Callable[[list[Record], bool, str], Awaitable[Any]], pace: float) -> None:
        self._append = append
        self._pace = pace
        self._started_at = time.monotonic()
        self.last_commit = -math.inf
        self._queue: list[_Entry] = []
        self._committing: asyncio.Task[None] | None = None

    async def commit(self, record: Record, *, fenced: bool) -> None:
        """Return once a record is committed.

        :param fenced: whether it is a command, which only the owner of the batch may commit.
        :raises Fenced: if it is one, and another process has claimed the batch.
        :raises Exception: whatever the storage raises.
        """
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(_Entry(record, fenced, committed))
        if self._committing is None:
            self._committing = asyncio.ensure_future(self._commit_all())
        await committed

    async def _commit_all(self) -> None:
        while self._queue:
            now = time.monotonic()
            pace = max(self._pace, min(LONGEST_PACE, (now - self._started_at) / 3600))
            await asyncio.sleep(max(0.0, self.last_commit + pace - now))
            while self._queue:
                entries = self._take()
                self.last_commit = time.monotonic()
                await self._commit(entries)
                if sum(map(_size, self._queue)) < MAX_COMMIT_SIZE:
                    break
        self._committing = None

    def _take(self) -> list[_Entry]:
        size = count = 0
        for entry in self._queue:
            size += _size(entry)
            if count and size > MAX_COMMIT_SIZE:
                break
            count += 1
        entries, self._queue = self._queue[:count], self._queue[count:]
        return entries

    async def _commit(self, entries: list[_Entry]) -> None:
        fenced = any(entry.fenced for entry in entries)
        problem: Exception | None = None
        try:
            await self._append([entry.record for entry in entries], fenced, uuid.uuid4().hex)
        except Fenced as error:
            problem = error
            if facts := [entry for entry in entries if not entry.fenced]:
                await self._commit(facts)
        except Exception as error:
            problem = error
        for entry in entries:
            if not entry.committed.done():
                if problem:
                    entry.committed.set_exception(problem)
                else:
                    entry.committed.set_result(None)


def _size(entry: _Entry) -> int:
    return 200 + len(str(entry.record.get("data", "")))
