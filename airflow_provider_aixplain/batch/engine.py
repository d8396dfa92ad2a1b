"""Runs the rows of a batch: submits a limited number at a time, polls them, and commits each step before the next."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_aixplain.batch.admission import GroupCommitter, RateLimiter
from airflow_provider_aixplain.batch.batch import Batch, BatchDeleted
from airflow_provider_aixplain.batch.commit_log import Fenced, Record
from airflow_provider_aixplain.batch.ledger import AttemptEvent, RowState, make_result
from airflow_provider_aixplain.batch.retrying import retry_with_budget
from airflow_provider_aixplain.exceptions import AixplainInputError, error_from_failure
from airflow_provider_aixplain.inputs.rows import Row
from airflow_provider_aixplain.observability.failure_summary import Trouble
from airflow_provider_aixplain.protocol.adaptive import RunTimes
from airflow_provider_aixplain.protocol.failure import ErrorCategory, Failure
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus, failure_reason
from airflow_provider_aixplain.protocol.statuses import NO_REASON
from airflow_provider_aixplain.protocol.wait import RETRY_BUDGET, Wait
from airflow_provider_aixplain.submission import IN_FLIGHT_MARGIN

if TYPE_CHECKING:
    from airflow_provider_aixplain.client.account import Platform
    from airflow_provider_aixplain.hooks.aixplain import AixplainHook

T = TypeVar("T")

READ_AT_A_TIME = 200
"""How many rows are read at once."""

INTENT_LIFETIME = 5.0
"""Seconds after an intent was written in which its request may be sent. A process that was frozen for longer gives the
intent up, since its successor no longer waits for the answer."""

WATCH_INTERVAL = 5.0
"""Seconds between two checks whether this process still owns the batch, and whether the batch is still there."""

HEARTBEAT_INTERVAL = 30.0
"""Seconds without a commit after which an empty one shows that the owner is alive."""

FATAL = (ErrorCategory.AUTHENTICATION, ErrorCategory.BILLING)
"""Refusals that every other row would get too."""

_INVALID = Failure(ErrorCategory.VALIDATION, sent=False)


@dataclass(frozen=True)
class Limits:
    """How a batch is run.

    :param max_in_flight: how many runs at a time.
    :param max_per_second: how many submissions, at most; None: no limit.
    :param max_credits: credits after which no more rows are submitted; None: no limit.
    :param wait_time: seconds before a run's second poll, where nothing is known of the model.
    :param timeout: seconds after which the batch no longer waits for a row.
    """

    max_in_flight: int = 100
    max_per_second: float | None = None
    max_credits: float | None = None
    wait_time: float = 0.5
    timeout: float = 86400.0


class Engine:
    """Runs the rows of a batch that have no result.

    :param hook: makes the calls.
    :param model_id: of the model.
    :param batch: the batch.
    :param batch_id: its id.
    :param limits: how it is run.
    """

    def __init__(self, hook: AixplainHook, model_id: str, batch: Batch, batch_id: str, limits: Limits) -> None:
        self._hook = hook
        self.model_id = model_id
        self._batch = batch
        self._batch_id = batch_id
        self._limits = limits
        self._run_times = RunTimes()
        self._rate_limiter = RateLimiter(limits.max_per_second)
        self._committer = GroupCommitter(self._append, batch.store.pace)
        self._is_stopped = False
        self._interruptible_tasks: set[asyncio.Task[Any]] = set()
        self._problem: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.ledger = batch.ledger
        self.trouble = Trouble()
        self.in_flight = 0

    def stop(self) -> None:
        """Submit no more rows, and return from :meth:`run` once the answer to each submission is committed."""
        self._is_stopped = True
        for task in self._interruptible_tasks:
            task.cancel()

    def stop_threadsafe(self) -> None:
        """As :meth:`stop`, from another thread, and also before :meth:`run` is called."""
        self._is_stopped = True
        if self._loop is not None:
            with suppress(RuntimeError):  # its loop is closed: it has finished
                self._loop.call_soon_threadsafe(self.stop)

    async def run(self) -> None:
        """Run rows until each has a result, or nothing more may be submitted.

        :raises Fenced: if another process has claimed this batch, or it was deleted.
        :raises AixplainError: if the platform refuses what every row needs.
        """
        self._loop = asyncio.get_running_loop()
        if self._is_stopped:
            return
        slots = asyncio.Semaphore(self._limits.max_in_flight)
        tasks: set[asyncio.Task[None]] = set()

        def finish(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            slots.release()
            self.in_flight -= 1
            if not task.cancelled() and (error := task.exception()):
                self._fail(error)

        watch: asyncio.Task[None] | None = None
        try:
            with self._interruptible():
                await self._call_storage(self._claim)
            watch = asyncio.ensure_future(self._watch())
            async for index, row in self._pending_rows():
                with self._interruptible():
                    await slots.acquire()
                task = asyncio.ensure_future(self._process_row(index, row))
                tasks.add(task)
                self.in_flight += 1
                task.add_done_callback(finish)
        except asyncio.CancelledError:
            pass
        except Exception as error:  # runs in flight are paid for: their answers are committed first
            self._fail(error)
        while tasks:
            await asyncio.wait(list(tasks))
        if watch:
            watch.cancel()
        await asyncio.to_thread(self._batch.close)
        if self._problem is not None:
            raise self._problem

    @property
    def place(self) -> str:
        """Where the batch is recorded."""
        return str(self._batch)

    @property
    def open_runs(self) -> int:
        """How many runs were accepted, and are not known to have finished: they are billed after this process stops."""
        return len(self.ledger.rows(AttemptEvent.ACCEPTED))

    @property
    def is_spent(self) -> bool:
        """Whether ``max_credits`` are spent."""
        limit = self._limits.max_credits
        return limit is not None and self.ledger.totals.credits >= limit

    def _fail(self, error: BaseException) -> None:
        self._problem = self._problem or error
        self.stop()

    def _claim(self) -> None:
        self._batch.claim(self._batch_id, f"engine {uuid.uuid4().hex}")
        self._batch.publish_growing_results()

    async def _watch(self) -> None:
        """Stop if another process has claimed the batch, or it was deleted."""
        try:
            while True:
                await asyncio.sleep(WATCH_INTERVAL)
                await self._call_storage(self._check_ownership)
        except Exception as error:
            self._fail(error)

    def _check_ownership(self) -> None:
        log = self._batch.log
        log.catch_up()
        if not log.is_intact():
            raise BatchDeleted(f"The batch at {self._batch} was deleted")
        if log.is_fenced or time.monotonic() - self._committer.last_commit > HEARTBEAT_INTERVAL:
            log.append([], fenced=True)
            self._committer.last_commit = time.monotonic()

    async def _commit(self, index: int, attempt: float, event: AttemptEvent, **fields: Any) -> None:
        record = {"is": event.value, "batch": self._batch_id, "row": index, "attempt": attempt, **fields}
        await self._committer.commit(record, fenced=event is AttemptEvent.INTENT)

    async def _append(self, records: list[Record], fenced: bool, commit_id: str) -> None:
        await self._call_storage(partial(self._batch.log.append, records, fenced=fenced, commit_id=commit_id))

    async def _pending_rows(self) -> AsyncIterator[tuple[int, Row]]:
        """Yield the rows without a result: first those that are accepted, since they are billed already, and at the end
        those of which nobody knows whether they are."""
        accepted = set(self.ledger.rows(AttemptEvent.ACCEPTED))
        unknown = set(self.ledger.rows(AttemptEvent.INTENT)) - accepted
        new: Callable[[int], bool] = lambda index: index not in accepted and index not in unknown  # noqa: E731
        for is_included in [accepted.__contains__] * bool(accepted) + [new] + [unknown.__contains__] * bool(unknown):
            async for index, row in self._rows():
                if self._state(index).is_done or not is_included(index):
                    continue
                if self.is_spent and index not in accepted:
                    return
                yield index, row

    async def _rows(self) -> AsyncIterator[tuple[int, Row]]:
        """Read the rows in a thread. After an error of the storage they are read again from the same place."""
        read = 0
        rows: Iterator[Row] | None = None

        def read_chunk() -> list[Row]:
            nonlocal rows
            if rows is None:
                rows = islice(self._batch.rows(), read, None)
            try:
                return list(islice(rows, READ_AT_A_TIME))
            except Exception:
                rows = None  # a generator that has raised an error is finished
                raise

        while True:
            with self._interruptible():
                chunk = await self._call_storage(read_chunk)
            if not chunk:
                return
            for row in chunk:
                yield read, row
                read += 1

    async def _process_row(self, index: int, row: Row) -> None:
        """Get the result of one row: from its runs that were accepted, or else by submitting it."""
        await self._await_in_doubt(index, row)
        while not (state := self._state(index)).is_done:
            if state.accepted:
                await self._await_run(index, row, *state.accepted)
            elif not await self._submit(index, row):
                return

    async def _await_run(self, index: int, row: Row, attempt: float, url: str) -> None:
        """Poll a run until it ends, or its time is up."""
        wait = Wait(self._limits.wait_time, self._limits.timeout, RETRY_BUDGET, self._run_times)
        age = max(0.0, time.time() - attempt)
        with self._interruptible():
            on_trouble = partial(self.trouble.add, "failed polls")
            outcome = await self._hook.await_run(url, wait, age, name=f"Row {row.key}", on_trouble=on_trouble)
        is_known = outcome.status in ("success", "failed")
        problem = "" if outcome.status == "success" else outcome.message or outcome.status
        await self._commit_result(index, row, attempt, outcome.response, problem, is_known=is_known)

    def _is_to_be_submitted(self, index: int) -> bool:
        state = self._state(index)
        return not state.is_done and not state.accepted

    def _state(self, index: int) -> RowState:
        if state := self.ledger.state(self._batch_id, index):
            return state
        raise BatchDeleted(f"Another batch has begun at {self._batch}")

    async def _await_in_doubt(self, index: int, row: Row) -> None:
        """Wait until no answer to a submission of an earlier process can come; then its outcome is in doubt."""
        awaited: set[float] = set()
        while self._is_to_be_submitted(index) and (left := set(self._state(index).intents) - awaited):
            awaited |= left
            longest = INTENT_LIFETIME + (await self._account()).timeout + IN_FLIGHT_MARGIN
            with self._interruptible():
                await asyncio.sleep(max(0.0, min(longest, max(left) + longest - time.time())))
                await self._call_storage(self._batch.log.catch_up)  # an answer may have come late
        if self._is_to_be_submitted(index):
            for attempt in self._state(index).intents:
                await self._commit(index, attempt, AttemptEvent.IN_DOUBT, key=row.key)

    async def _account(self) -> Platform:
        """Return the account; a Connection that cannot be read is read again, as a secrets backend may be down."""
        on_failure = partial(self.trouble.add, "failed reads of the Connection")
        with self._interruptible():
            return await retry_with_budget(self._hook.aplatform, on_failure)

    async def _submit(self, index: int, row: Row) -> bool:
        """Submit a row, and commit what the platform answers.

        :return: whether there is more to do for the row.
        """
        deadline = time.monotonic() + self._limits.timeout
        refused_key = ""
        while True:
            platform = await self._account()
            with self._interruptible():
                acquired_at = await self._rate_limiter.acquire()
            if self.is_spent or not self._is_to_be_submitted(index):
                return not self._is_to_be_submitted(index)
            attempt, started = time.time(), time.monotonic()
            commit = partial(self._commit, index, attempt)
            await commit(AttemptEvent.INTENT)
            if self._is_stopped or not self._is_to_be_submitted(index):
                await commit(AttemptEvent.REJECTED)
                return not self._is_stopped
            if max(time.time() - attempt, time.monotonic() - started) > INTENT_LIFETIME:
                self.trouble.add("submissions given up", f"Row {row.key}: its intent took too long to be committed")
                await commit(AttemptEvent.REJECTED)
                continue
            try:
                response = await self._hook.arun_async(self.model_id, row.payload, name=f"Row {row.key}")
            except Exception as error:  # raised before anything is sent: other failures are in the response
                if not isinstance(error, AixplainInputError):
                    await commit(AttemptEvent.REJECTED)
                    raise
                response = ModelResponse(ResponseStatus.FAILED, error_message=str(error), failure=_INVALID)
            problem = failure_reason(response) if response.status is ResponseStatus.FAILED else ""
            failure, reported = response.failure, f"Row {row.key}: {response.error_message}"
            if failure is None:
                self._rate_limiter.reset()
                if response.status is ResponseStatus.IN_PROGRESS:
                    await commit(AttemptEvent.ACCEPTED, url=response.url or "")
                    return True
            elif failure.may_be_accepted:
                self.trouble.add("submissions without an answer", reported)
                self._rate_limiter.back_off(failure.retry_after, acquired_at)
                await commit(AttemptEvent.IN_DOUBT, key=row.key)
            else:
                await commit(AttemptEvent.REJECTED)
                is_key_refused = failure.category is ErrorCategory.AUTHENTICATION and platform.api_key != refused_key
                if not is_key_refused and failure.category in FATAL:
                    raise error_from_failure(failure, f"Model {self.model_id}: {response.error_message}")
                is_temporary = failure.category is ErrorCategory.RATE_LIMIT or not failure.sent
                if is_key_refused:
                    refused_key = platform.api_key
                    await self._hook.areload_credentials()  # it may have been rotated
                elif is_temporary and failure is not _INVALID and time.monotonic() <= deadline:
                    self._rate_limiter.back_off(failure.retry_after, acquired_at)
                else:
                    await self._commit_result(index, row, attempt, response, problem)
                    return True
                self.trouble.add("refused submissions", reported)
                continue
            await self._commit_result(index, row, attempt, response, problem)
            return True

    async def _commit_result(
        self,
        index: int,
        row: Row,
        attempt: float,
        response: ModelResponse | None,
        problem: str,
        *,
        is_known: bool = True,
    ) -> None:
        """Commit how an attempt ended.

        What only this process knows is a fact. That a run was not polled to its end, or that no answer came, is a
        decision of the owner: another process that has claimed the batch still waits for that run, or submits the row.
        """
        if not problem and response is not None and response.status is ResponseStatus.FAILED:
            problem = NO_REASON
        failure = response.failure if response else None
        may_succeed = not failure or failure.retryable is not False
        result = make_result(index, row, attempt, response, problem, may_succeed=may_succeed, is_known=is_known)
        record = {"is": "result", "batch": self._batch_id, **result}
        await self._committer.commit(record, fenced=not is_known or failure is not None)

    async def _call_storage(self, call: Callable[[], T]) -> T:
        """Return the result of a call in a thread. While the storage fails it is repeated, and nothing is submitted.

        :raises Fenced: if another process has claimed the batch, or it was deleted.
        :raises Exception: whatever the storage raises.
        """

        def on_failure(error: Exception) -> None:
            self.trouble.add("storage errors", error, f"{self._batch}: ")
            self._rate_limiter.back_off(None)

        try:
            return await retry_with_budget(
                partial(asyncio.to_thread, call), on_failure, final=(Fenced, FileNotFoundError)
            )
        except FileNotFoundError:
            raise BatchDeleted(f"The batch at {self._batch} was deleted") from None

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Let :meth:`stop` cancel what the current task awaits here: nothing is lost by that."""
        task: Any = asyncio.current_task()
        if self._is_stopped:
            raise asyncio.CancelledError
        self._interruptible_tasks.add(task)
        try:
            yield
        finally:
            self._interruptible_tasks.discard(task)
