"""Runs the rows of a batch: submits a limited number at a time, polls them, and commits each step before the next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from airflow_provider_aixplain.batch.admission import GroupCommitter, RateLimiter
from airflow_provider_aixplain.batch.batch import Batch, BatchDeleted
from airflow_provider_aixplain.batch.commit_log import Fenced, Record
from airflow_provider_aixplain.batch.ledger import AttemptEvent, RowState
from airflow_provider_aixplain.batch.results import make_result
from airflow_provider_aixplain.batch.retrying import retry_with_budget
from airflow_provider_aixplain.client.account import Platform
from airflow_provider_aixplain.exceptions import error_from_failure
from airflow_provider_aixplain.hooks.aixplain import AixplainHook
from airflow_provider_aixplain.inputs.rows import Row, take
from airflow_provider_aixplain.observability.failure_summary import FailureSummary
from airflow_provider_aixplain.observability.metrics import RunMetrics
from airflow_provider_aixplain.protocol.adaptive import RunTimes
from airflow_provider_aixplain.protocol.assets import Asset, PreparedInput
from airflow_provider_aixplain.protocol.failure import ErrorCategory, Failure
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus
from airflow_provider_aixplain.protocol.wait import MAX_DURATION, RETRY_BUDGET, Wait
from airflow_provider_aixplain.submission import IN_FLIGHT_MARGIN

T = TypeVar("T")

NO_RESPONSE = ModelResponse(ResponseStatus.FAILED)
"""Stands for a response that is missing, in the result of a row."""

ROWS_PER_READ = 200
"""The maximum number of rows that are read at once."""

MAX_READ_SIZE = 1_000_000
"""Characters of rows after which a read ends before it has as many rows."""

INTENT_LIFETIME = 5.0
"""Seconds after an intent was written in which its request may be sent. A process that was frozen for longer must not
send it, because its successor no longer waits for the answer."""

WATCH_INTERVAL = 5.0
"""Seconds between two checks that this process still owns the batch, and that the batch still exists."""

HEARTBEAT_INTERVAL = 30.0
"""Seconds without a commit after which an empty commit shows that the owner is alive."""


@dataclass(frozen=True)
class Limits:
    """The settings with which a batch is run.

    :param max_in_flight: the maximum number of concurrent runs.
    :param max_per_second: the maximum number of submissions per second; None: no limit.
    :param max_credits: credits after which no more rows are submitted; None: no limit.
    :param wait_time: seconds before a run's second poll, while the run times of the model or agent are unknown.
    :param timeout: seconds after which the batch no longer waits for a row.
    """

    max_in_flight: int = 100
    max_per_second: float | None = None
    max_credits: float | None = None
    wait_time: float = 0.5
    timeout: float = 86400.0


@dataclass
class _Work:
    """A row that is being processed.

    :param attempt: its current attempt.
    :param deadline: the time, by the monotonic clock, after which a temporary refusal is final.
    :param refused_key: the API key that the platform has refused.
    """

    index: int
    row: Row
    attempt: float = 0.0
    deadline: float = 0.0
    refused_key: str = ""

    def __str__(self) -> str:
        return f"Row {self.row.key}"


class Engine:
    """Runs the rows of a batch that have no result.

    :param hook: makes the calls.
    :param asset: the model or agent to run.
    :param batch: the batch.
    :param batch_id: the id of the batch.
    :param limits: the settings.
    """

    def __init__(self, hook: AixplainHook, asset: Asset, batch: Batch, batch_id: str, limits: Limits) -> None:
        self._hook = hook
        self.asset = asset
        self.batch = batch
        self._batch_id = batch_id
        self._limits = limits
        self._run_times = RunTimes()
        self._rate_limiter = RateLimiter(limits.max_per_second)
        self._committer = GroupCommitter(self._append, batch.store.pace)
        self._is_stopped = False
        self._interruptible_tasks: set[asyncio.Task[Any]] = set()
        self._row_tasks: set[asyncio.Task[None]] = set()
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.ledger = batch.ledger
        self.failures = FailureSummary()
        self.metrics = RunMetrics()

    def stop(self) -> None:
        """Submit no more rows, and return from :meth:`run` once the answer to each submission is committed.

        May be called from any thread, also before :meth:`run`.
        """
        self._is_stopped = True
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: the run has finished
                self._loop.call_soon_threadsafe(self._cancel_interruptible_tasks)

    def _cancel_interruptible_tasks(self) -> None:
        for task in self._interruptible_tasks:
            task.cancel()

    async def run(self) -> None:
        """Run rows until each has a result, or nothing more may be submitted.

        :raises Fenced: if another process has claimed this batch, or it was deleted.
        :raises AixplainError: if the platform refuses a request that every row needs.
        """
        self._loop = asyncio.get_running_loop()
        slots = asyncio.Semaphore(self._limits.max_in_flight)

        def release_slot(task: asyncio.Task[None]) -> None:
            self._row_tasks.discard(task)
            slots.release()
            self._stop_after_error(task)

        watch: asyncio.Task[None] | None = None
        try:
            with self._interruptible():
                await self._call_storage(self._claim)
            watch = asyncio.ensure_future(self._watch())
            watch.add_done_callback(self._stop_after_error)
            async for index, row in self._pending_rows():
                with self._interruptible():
                    await slots.acquire()
                task = asyncio.ensure_future(self._process_row(index, row))
                self._row_tasks.add(task)
                task.add_done_callback(release_slot)
        except asyncio.CancelledError:
            pass
        except Exception as error:  # runs in flight are paid for: their answers are committed first
            self._fail(error)
        while self._row_tasks:
            await asyncio.wait(list(self._row_tasks))
        if watch:
            watch.cancel()
        await asyncio.to_thread(self.batch.close)
        if self._error is not None:
            raise self._error

    @property
    def in_flight(self) -> int:
        """The number of rows that are being processed."""
        return len(self._row_tasks)

    @property
    def open_runs(self) -> int:
        """The number of accepted runs that are not known to have finished. They are billed after this process stops."""
        return len(self.ledger.rows(AttemptEvent.ACCEPTED))

    @property
    def is_spent(self) -> bool:
        """Whether ``max_credits`` are spent."""
        limit = self._limits.max_credits
        return limit is not None and self.ledger.totals.credits >= limit

    def _fail(self, error: BaseException) -> None:
        self._error = self._error or error
        self.stop()

    def _stop_after_error(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self._fail(error)

    def _claim(self) -> None:
        self.batch.claim(self._batch_id, "engine")
        self.batch.publish_growing_results()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_INTERVAL)
            await self._call_storage(self._check_ownership)

    def _check_ownership(self) -> None:
        log = self.batch.log
        log.catch_up()
        if not log.is_intact():
            raise BatchDeleted(f"The batch at {self.batch} was deleted")
        if log.is_fenced or time.monotonic() - self._committer.last_commit > HEARTBEAT_INTERVAL:
            log.append([], fenced=True)  # raises Fenced, or shows that this owner is alive
            self._committer.last_commit = time.monotonic()

    async def _commit(self, work: _Work, event: AttemptEvent, **fields: Any) -> None:
        record = {"event": event.value, "batch": self._batch_id, "row": work.index, "attempt": work.attempt, **fields}
        await self._committer.commit(record, fenced=event is AttemptEvent.INTENT)

    async def _append(self, records: list[Record], fenced: bool, commit_id: str) -> None:
        await self._call_storage(partial(self.batch.log.append, records, fenced=fenced, commit_id=commit_id))

    async def _pending_rows(self) -> AsyncIterator[tuple[int, Row]]:
        """Yield the rows without a result: first the accepted ones, which are billed already; last the ones with an
        intent, since an answer may still arrive."""
        intents = dict.fromkeys(self.ledger.rows(AttemptEvent.INTENT), 2)
        priorities = {**intents, **dict.fromkeys(self.ledger.rows(AttemptEvent.ACCEPTED), 0)}
        for priority in sorted({1, *priorities.values()}):
            async for index, row in self._rows():
                if priorities.get(index, 1) != priority or self._state(index).is_done:
                    continue
                if self.is_spent and priority:
                    return
                yield index, row

    async def _rows(self) -> AsyncIterator[tuple[int, Row]]:
        """Read the rows in a thread. After an error of the storage, open them again and skip those that were read."""
        index = 0
        rows: Iterator[Row] | None = None

        def read_chunk() -> list[Row]:
            nonlocal rows
            rows = rows or islice(self.batch.rows(), index, None)
            try:
                return take(rows, ROWS_PER_READ, MAX_READ_SIZE)
            except Exception:
                rows = None  # a generator that has raised an error is finished
                raise

        while True:
            with self._interruptible():
                chunk = await self._call_storage(read_chunk)
            if not chunk:
                return
            for row in chunk:
                yield index, row
                index += 1

    async def _process_row(self, index: int, row: Row) -> None:
        """Get the result of a row: from its accepted runs, or else by submitting it."""
        work = _Work(index, row)
        await self._await_in_doubt(work)
        work.deadline = time.monotonic() + self._limits.timeout
        while not (state := self._state(index)).is_done:
            if state.accepted:
                work.attempt, url = state.accepted
                await self._await_run(work, url)
            elif self.is_spent:
                return
            else:
                await self._submit(work)

    async def _await_run(self, work: _Work, url: str) -> None:
        """Poll a run until it finishes, or its timeout has passed."""
        age, timeout = max(0.0, time.time() - work.attempt), self._limits.timeout
        if age >= timeout:  # it has expired in an earlier try: this one waits for it as long
            timeout = min(timeout + age, MAX_DURATION)
        wait = Wait(self._limits.wait_time, timeout, RETRY_BUDGET, self._run_times)
        with self._interruptible():
            on_failed_poll = partial(self.failures.add, "failed polls")
            outcome = await self._hook.await_run(url, wait, age, name=str(work), on_failed_poll=on_failed_poll)
        error = None if outcome.status == "success" else outcome.message or outcome.status
        await self._commit_result(work, outcome.response or NO_RESPONSE, outcome.status, error)
        self.metrics.add_wait(self.asset, outcome, wait.polls, max(0.0, time.time() - work.attempt))

    def _needs_submission(self, work: _Work) -> bool:
        state = self._state(work.index)
        return not state.is_done and not state.accepted

    def _state(self, index: int) -> RowState:
        if state := self.ledger.state(self._batch_id, index):
            return state
        raise BatchDeleted(f"Another batch has begun at {self.batch}")

    async def _await_in_doubt(self, work: _Work) -> None:
        """Wait until no answer to a submission of an earlier process can arrive; then its outcome is in doubt."""
        awaited: set[float] = set()
        while self._needs_submission(work) and (left := set(self._state(work.index).intents) - awaited):
            awaited |= left
            longest = INTENT_LIFETIME + (await self._account()).timeout + IN_FLIGHT_MARGIN
            with self._interruptible():
                await asyncio.sleep(max(0.0, min(longest, max(left) + longest - time.time())))
                await self._call_storage(self.batch.log.catch_up)  # an answer may have arrived late
        if self._needs_submission(work):
            for attempt in self._state(work.index).intents:
                work.attempt = attempt
                await self._commit(work, AttemptEvent.IN_DOUBT, key=work.row.key)
                self.metrics.add_end(self.asset, "orphaned", None)

    async def _account(self) -> Platform:
        """Return the account. Retry a Connection that cannot be read, because a secrets backend may be down."""
        on_failure = partial(self.failures.add, "failed reads of the Connection")
        with self._interruptible():
            return await retry_with_budget(self._hook.aplatform, on_failure)

    async def _submit(self, work: _Work) -> None:
        """Submit a row once, and commit the answer."""
        platform = await self._account()
        with self._interruptible():
            acquired_at = await self._rate_limiter.acquire()
        if self.is_spent or not self._needs_submission(work):
            return
        work.attempt, started = time.time(), time.monotonic()
        await self._commit(work, AttemptEvent.INTENT)
        is_late = max(time.time() - work.attempt, time.monotonic() - started) > INTENT_LIFETIME
        if is_late:
            self.failures.add("submissions given up", f"{work}: its intent took too long to be committed")
        if is_late or self._is_stopped or not self._needs_submission(work):
            await self._commit(work, AttemptEvent.REJECTED)
            return
        try:
            response = await self._hook.asubmit(PreparedInput(self.asset, work.row.payload), str(work))
        except Exception:  # raised before the request is sent: later failures are in the response
            await self._commit(work, AttemptEvent.REJECTED)
            raise
        if response.failure:
            await self._handle_failure(work, response, response.failure, platform.api_key, acquired_at)
            return
        self._rate_limiter.reset()
        if response.status is ResponseStatus.IN_PROGRESS:
            await self._commit(work, AttemptEvent.ACCEPTED, url=response.url or "")
        else:
            outcome = "success" if response.status is ResponseStatus.SUCCESS else "failed"
            await self._commit_result(work, response, outcome)

    async def _handle_failure(
        self, work: _Work, response: ModelResponse, failure: Failure, key: str, acquired_at: float
    ) -> None:
        """Commit the failure of a submission as the result of the row, unless the row is to be submitted again.

        :param key: the API key that was sent.
        :param acquired_at: the time when the submission was admitted.
        """
        problem = f"{work}: {response.error_message}"
        if failure.may_be_accepted:
            self.failures.add("submissions without an answer", problem)
            self._rate_limiter.back_off(failure.retry_after, acquired_at)
            await self._commit(work, AttemptEvent.IN_DOUBT, key=work.row.key)
        else:
            await self._commit(work, AttemptEvent.REJECTED)
            is_temporary = not failure.is_sent or failure.category is ErrorCategory.RATE_LIMIT
            if failure.category is ErrorCategory.AUTHENTICATION and key != work.refused_key:
                work.refused_key = key
                await self._hook.areload_credentials()  # the key may have been rotated
                self.failures.add("refused submissions", problem)
                return
            if failure.category in (ErrorCategory.AUTHENTICATION, ErrorCategory.BILLING):  # every row would fail
                self.metrics.add_end(self.asset, "refused", None)
                raise error_from_failure(failure, f"{self.asset.title}: {response.error_message}")
            if is_temporary and time.monotonic() <= work.deadline:
                self._rate_limiter.back_off(failure.retry_after, acquired_at)
                self.failures.add("refused submissions", problem)
                return
        await self._commit_result(work, response, "orphaned" if failure.may_be_accepted else "refused")

    async def _commit_result(
        self, work: _Work, response: ModelResponse, outcome: str, error: str | None = None
    ) -> None:
        """Commit the result of an attempt.

        A result of the platform is a fact. A timeout or a failed request is a decision of the owner: after a takeover,
        the new owner still waits for the run, or submits the row.

        :param outcome: as in metrics.
        """
        is_known = outcome not in ("timeout", "error")
        result = make_result(work.index, work.row, work.attempt, response, error, self.asset, is_known=is_known)
        is_fact = is_known and not response.failure
        await self._committer.commit({"event": "result", "batch": self._batch_id, **result}, fenced=not is_fact)
        self.metrics.add_end(self.asset, outcome, response)

    async def _call_storage(self, call: Callable[[], T]) -> T:
        """Return the result of a call in a thread. While the storage fails, retry the call and submit nothing.

        :raises Fenced: if another process has claimed the batch, or it was deleted.
        :raises Exception: any error of the storage.
        """

        def on_failure(error: Exception) -> None:
            self.failures.add("storage errors", error, f"{self.batch}: ")
            self._rate_limiter.back_off(None)

        try:
            return await retry_with_budget(
                partial(asyncio.to_thread, call), on_failure, final=(Fenced, FileNotFoundError)
            )
        except FileNotFoundError:
            raise BatchDeleted(f"The batch at {self.batch} was deleted") from None

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Let :meth:`stop` cancel the current task here, where nothing is lost by it."""
        task: Any = asyncio.current_task()
        if self._is_stopped:
            raise asyncio.CancelledError
        self._interruptible_tasks.add(task)
        try:
            yield
        finally:
            self._interruptible_tasks.discard(task)
