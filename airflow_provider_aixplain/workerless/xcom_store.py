"""The idempotency record of a trigger's submission, in XComs: a trigger cannot access the task state store.

Airflow deletes a task's XComs only when a worker starts the task, so the record survives retries and clears.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from airflow_provider_aixplain import compat
from airflow_provider_aixplain.compat import RETURN_KEY, XCom
from airflow_provider_aixplain.loop_local import LoopLocal
from airflow_provider_aixplain.protocol.resumption import Submission
from airflow_provider_aixplain.protocol.usage import USAGE_KEY
from airflow_provider_aixplain.submission import KEY

RUN_KEY = "aixplain_run"

MAX_PENDING_PUSHES = 1000
"""The number of XComs that Airflow 3.3.2's triggerer stores in half a minute: each turn handles one message of its
triggers and queries its database for triggers to start and to stop. A much lower bound left more to the workers, and
was slower: 188 s instead of 139 s for 200 runs at once on two cores."""


class TooManyPushes(Exception):
    """A worker finishes the task sooner, because many XComs are being pushed."""


class XComBackpressure:
    """Bounds the XComs that the triggers of one event loop push at the same time.

    :param limit: the most XComs.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.pending = 0

    @contextmanager
    def slots(self, count: int) -> Iterator[None]:
        """Hold slots for a number of XComs.

        :raises TooManyPushes: if too few are free.
        """
        if self.pending + count > self.limit:
            raise TooManyPushes(f"{self.pending} XComs of other tasks are being pushed")
        self.pending += count
        try:
            yield
        finally:
            self.pending -= count


BACKPRESSURE = LoopLocal(lambda: XComBackpressure(MAX_PENDING_PUSHES))


@dataclass(frozen=True)
class IdempotencyRecord(Submission):
    """A submission of a trigger.

    :param try_id: the id of the task instance that waits for the run; each try has another.
    :param tried_at: when that try started, in ISO 8601. Its deadline counts from then, wherever its trigger runs.
    """

    try_id: str = ""
    tried_at: str = ""

    @property
    def is_open(self) -> bool:
        """Whether the outcome is not recorded: the submission may be in flight."""
        return not self.is_answered and not self.is_delivered


class XComIdempotencyStore:
    """Stores a task's submission in two XComs of the task: the intent, written before the request, and the outcome.

    The keys differ so that a triggerer that resumes after a freeze and writes its stale intent does not overwrite the
    outcome that its successor has recorded.

    Every method raises what Airflow raises: a run that no later start would find must not be billed.

    :param task_instance: the task instance of the trigger.
    """

    def __init__(self, task_instance: Any) -> None:
        self.try_id = str(task_instance.id)
        self._task = compat.xcom_address(task_instance)
        self._is_first_try = compat.try_number(task_instance) == 1
        self._has_no_usage = False

    async def read(self) -> IdempotencyRecord | None:
        """Return the submission of this try or, if it has none, of an earlier try."""
        stored = await self._get(KEY)
        self._has_no_usage = self._is_first_try and stored is None  # no run was submitted before
        if not stored:
            return None
        intent = IdempotencyRecord.from_stored(stored)
        if not (stored := await self._get(RUN_KEY)):
            return intent
        outcome = IdempotencyRecord.from_stored(stored)
        belongs_to_intent = outcome.try_id == intent.try_id or outcome.submitted_at == intent.submitted_at
        return outcome if belongs_to_intent else intent

    async def write(self, submission: IdempotencyRecord) -> None:
        """Store an intent, or an outcome."""
        await XCom.aset(RUN_KEY if submission.is_answered else KEY, asdict(submission), **self._task)

    async def clear(self) -> None:
        """Delete the intent: there is no run that a later start could use."""
        await XCom.aset(KEY, {}, **self._task)  # not None, which :meth:`read` takes for a task without submissions

    async def is_delivered(self, submission: IdempotencyRecord) -> bool:
        """Return whether the task has received the result of an earlier try's submission."""
        return submission.is_delivered or await self._get(RETURN_KEY) is not None

    async def start_over(self, submission: IdempotencyRecord, keys: Iterable[str]) -> IdempotencyRecord:
        """Delete the XComs of a delivered result, as a worker does when it starts a task.

        :param keys: the keys of its fields.
        :return: the new record of the submission, which is stored.
        """
        delivered = replace(submission, is_delivered=True)
        await self.write(delivered)
        for key in (RETURN_KEY, *keys):
            # Airflow 3.3.2 has no coroutine for it; in a thread it does not need Airflow's greenback portal either.
            await asyncio.to_thread(XCom.delete, key, **self._task)
        return delivered

    async def usage(self) -> Mapping[str, Any] | None:
        """Return the usage record of the task instance; None if there is none."""
        record: Mapping[str, Any] | None = None if self._has_no_usage else await self._get(USAGE_KEY)
        return record

    async def write_usage(self, record: Mapping[str, Any]) -> None:
        """Store the usage record."""
        self._has_no_usage = False
        await XCom.aset(USAGE_KEY, dict(record), **self._task)

    async def push(self, response: Mapping[str, Any] | None, fields: Mapping[str, Any]) -> None:
        """Push the task's result, the whole response last.

        :param response: the result; None if the task pushes none.
        :param fields: the other XComs, by key.
        :raises TooManyPushes: if a worker would finish the task sooner.
        """
        with BACKPRESSURE.get().slots(len(fields) + 1):
            await asyncio.gather(*(XCom.aset(name, value, **self._task) for name, value in fields.items()))
            if response is not None:
                await XCom.aset(RETURN_KEY, dict(response), **self._task)

    async def pull(self, task_id: str, key: str) -> Any:
        """Return another task's XCom; None if there is none.

        :param task_id: of a task that is not mapped, in the same DAG.
        """
        return await XCom.aget_one(key=key, **{**self._task, "task_id": task_id, "map_index": -1})

    async def _get(self, key: str) -> Any:
        return await XCom.aget_one(key=key, **self._task)
