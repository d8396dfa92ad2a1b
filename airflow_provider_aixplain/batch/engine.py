"""Runs the rows of a batch: submits so many at a time, polls them all, and writes down each step before the next."""

from __future__ import annotations

import asyncio
import math
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_aixplain.batch.journal import CLAIM, Journal
from airflow_provider_aixplain.batch.patience import patiently
from airflow_provider_aixplain.batch.rows import Row
from airflow_provider_aixplain.batch.state import Cost, Deleted, Progress, State, Superseded, result_of
from airflow_provider_aixplain.batch.trouble import Trouble
from airflow_provider_aixplain.exceptions import AixplainInputError, error_for
from airflow_provider_aixplain.protocol.adaptive import RunTimes
from airflow_provider_aixplain.protocol.failure import ErrorCategory, Failure
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus, failure_reason
from airflow_provider_aixplain.protocol.schedule import asked_delay
from airflow_provider_aixplain.protocol.statuses import NO_REASON
from airflow_provider_aixplain.protocol.wait import PATIENCE, Wait
from airflow_provider_aixplain.submission import LAG

if TYPE_CHECKING:
    from airflow_provider_aixplain.hooks.aixplain import AixplainHook
    from airflow_provider_aixplain.platform import Platform

T = TypeVar("T")

READ_AT_A_TIME = 200
"""How many rows are read at once."""

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0

ENDING = (ErrorCategory.AUTHENTICATION, ErrorCategory.BILLING)
"""Refusals that every other row would get too."""


@dataclass(frozen=True)
class Limits:
    """How a batch is run.

    :param max_in_flight: how many runs at a time.
    :param max_per_second: how many submissions, at most; None: as many as there are.
    :param max_credits: credits after which no more is submitted.
    :param wait_time: seconds before a run's second poll, where nothing is known of the model.
    :param timeout: seconds after which a row is given up.
    """

    max_in_flight: int = 100
    max_per_second: float | None = None
    max_credits: float | None = None
    wait_time: float = 0.5
    timeout: float = 86400.0


class Engine:
    """Runs what is left of a batch.

    :param hook: carries the calls.
    :param model_id: of the model.
    :param state: the batch's.
    :param batch: its id.
    :param limits: how it is run.
    """

    def __init__(self, hook: AixplainHook, model_id: str, state: State, batch: str, limits: Limits) -> None:
        self._hook = hook
        self.model_id = model_id
        self._state = state
        self._limits = limits
        self._batch = batch
        self._run_times = RunTimes()
        self._gate = Gate(limits.max_per_second)
        self._is_over = False
        self._waiting: set[asyncio.Task[Any]] = set()
        self._problem: BaseException | None = None
        self._hearing: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._submissions = Writer(state.submissions, self._heed, self._stored)
        self._results = Writer(state.results, self._heed_results, self._stored)
        self._polled_runs: set[tuple[int, float]] = set()
        self.progress = Progress(0)
        self.trouble = Trouble()
        self.in_flight = 0

    def stop(self) -> None:
        """Submit no more, and end as soon as every answer to a submission has come and is written down."""
        self._is_over = True
        for task in self._waiting:
            task.cancel()

    def stop_from_elsewhere(self) -> None:
        """As :meth:`stop`, from another thread, and also before it has begun."""
        self._is_over = True
        if self._loop is not None:
            with suppress(RuntimeError):  # its loop is closed: it has ended
                self._loop.call_soon_threadsafe(self.stop)

    async def run(self) -> None:
        """Run the rows that are left, until each has a result, or nothing more may be submitted.

        :raises Superseded: if somebody else has begun to run this batch, or has deleted it.
        :raises AixplainError: if the platform refuses what every row needs.
        """
        self._loop = asyncio.get_running_loop()
        if self._is_over:
            return
        slots = asyncio.Semaphore(self._limits.max_in_flight)
        tasks: set[asyncio.Task[None]] = set()

        def ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            slots.release()
            self.in_flight -= 1
            if not task.cancelled() and (error := task.exception()):
                self._fail(error)

        try:
            with self._interruptible():
                await self._stored(partial(asyncio.to_thread, self._claim), self._state)
            self._heed([])
            async for index, row in self._left():
                with self._interruptible():
                    await slots.acquire()
                task = asyncio.ensure_future(self._one(index, row))
                tasks.add(task)
                self.in_flight += 1
                task.add_done_callback(ended)
        except asyncio.CancelledError:
            pass
        except Exception as error:  # what is under way is paid for, and is written down first
            self._fail(error)
        while tasks:
            await asyncio.wait(list(tasks))
        if self._problem is not None:
            raise self._problem

    @property
    def place(self) -> str:
        """Where the batch is recorded."""
        return str(self._state)

    @property
    def open_runs(self) -> int:
        """How many accepted runs are not known to have finished. They are billed even if this process stops."""
        return len(self._polled_runs) + sum(map(len, self.progress.accepted.values()))

    @property
    def is_spent(self) -> bool:
        """Whether the credits that may be spent are."""
        most = self._limits.max_credits
        return most is not None and self.progress.totals.credits >= most

    def _fail(self, error: BaseException) -> None:
        self._problem = self._problem or error
        self.stop()

    def _claim(self) -> None:
        header = self._state.claim(self._batch, f"engine {uuid.uuid4().hex}")
        self.progress = self._state.progress(header)

    def _heed(self, records: Iterable[dict[str, Any]]) -> None:
        """Take note of what somebody else has written of submissions."""
        if self._state.submissions.is_superseded:
            self._fail(Superseded("somebody else runs this batch now"))
        for record in records:
            if record.get("batch") == self._batch and CLAIM not in record:
                self.progress.heed(record)

    def _heed_results(self, records: Iterable[dict[str, Any]]) -> None:
        """Take note of successes that somebody else has written, who was at it before."""
        for result in records:
            if result.get("batch") == self._batch:
                self.progress.heed_success(result)

    async def _hear(self) -> None:
        """Take note of what others have written until now, or, in an object storage, until a second ago.

        All tasks share a look, but none one that was under way before: that may have missed what is meant.
        """
        if self._hearing is not None:
            await asyncio.wait([self._hearing])
        if self._hearing is None:
            self._hearing = asyncio.ensure_future(self._look())
        await self._hearing

    async def _look(self) -> None:
        try:
            self._heed(await self._stored(self._state.submissions.anews, self._state.submissions))
            self._heed_results(await self._stored(self._state.results.anews, self._state.results))
        finally:
            self._hearing = None

    async def _note(self, index: int, attempt: float, what: str, **told: Any) -> None:
        """Write down what becomes of an attempt."""
        record = {"batch": self._batch, "row": index, "attempt": attempt, "is": what, **told}
        await self._submissions.write(record)
        if what in ("orphaned", "over"):
            self.progress.heed(record)

    async def _left(self) -> AsyncIterator[tuple[int, Row]]:
        """Tell the rows without a result: first those that are accepted, as they cost already, and in the end those of
        which nobody knows whether they are."""
        known = self.progress
        accepted, begun = set(known.accepted), set(known.begun) - set(known.accepted)
        groups: list[Callable[[int], bool]] = [
            accepted.__contains__,
            lambda index: index not in accepted and index not in begun,
            begun.__contains__,
        ]
        for is_of_it in groups:
            async for index, row in self._rows():
                if known.done[index] or not is_of_it(index):
                    continue
                if self.is_spent and index not in accepted:
                    return
                yield index, row

    async def _rows(self) -> AsyncIterator[tuple[int, Row]]:
        """Read the rows in a thread; a storage that has trouble is waited for."""
        read = 0
        rows: Iterator[Row] | None = None

        def some() -> list[Row]:
            nonlocal rows
            if rows is None:
                rows = islice(self._state.rows(self._batch), read, None)
            try:
                return list(islice(rows, READ_AT_A_TIME))
            except Exception:
                rows = None  # it can be read from no more
                raise

        while True:
            with self._interruptible():
                chunk = await self._stored(partial(asyncio.to_thread, some), self._state)
            if not chunk:
                return
            for row in chunk:
                yield read, row
                read += 1

    async def _one(self, index: int, row: Row) -> None:
        """Bring one row to its end: by runs of it that were accepted; and if there is none, by one that it submits."""
        await self._settle(index, row)
        while not self.progress.done[index]:
            run = self.progress.take(index)
            if run is None:
                submitted = await self._submit(index, row)
                if submitted is None:
                    if self._is_to_be_submitted(index):  # and is not, as all is over
                        return
                    continue
                attempt, response = submitted
                if response.status is not ResponseStatus.IN_PROGRESS:
                    problem = failure_reason(response) if response.status is ResponseStatus.FAILED else ""
                    await self._conclude(self._result(index, row, attempt, response, problem))
                    return
                run = attempt, response.url or ""
            attempt, url = run
            wait = Wait(self._limits.wait_time, self._limits.timeout, PATIENCE, self._run_times)
            age = max(0.0, time.time() - attempt)
            self._polled_runs.add((index, attempt))
            with self._interruptible():
                on_trouble = partial(self.trouble.add, "failed polls")
                outcome = await self._hook.await_run(url, wait, age, name=f"Row {row.key}", on_trouble=on_trouble)
            self._polled_runs.discard((index, attempt))
            is_known = outcome.status in ("success", "failed")
            problem = "" if outcome.status == "success" else outcome.message or outcome.status
            result = self._result(index, row, attempt, outcome.response, problem, is_known=is_known)
            self.progress.close(index, attempt)  # it may have been told once more
            if not problem or index not in self.progress.accepted:
                await self._conclude(result, is_polled=True)
                return
            if is_known:
                await self._note(index, attempt, "over", cost=Cost.of(result))

    def _is_to_be_submitted(self, index: int) -> bool:
        return not self.progress.done[index] and index not in self.progress.accepted

    async def _settle(self, index: int, row: Row) -> None:
        """Wait until no answer to a submission of an earlier process can come any more; then those are orphaned."""
        waited_for: set[float] = set()
        while self._is_to_be_submitted(index) and (left := self.progress.begun.get(index, set()) - waited_for):
            waited_for |= left
            longest = (await self._account()).timeout + LAG
            with self._interruptible():
                await asyncio.sleep(max(0.0, min(longest, max(left) + longest - time.time())))
            # What has been written meanwhile tells of an answer that came late, or of another attempt that was begun.
            await self._hear()
            if self._is_over:
                raise asyncio.CancelledError
        if self._is_to_be_submitted(index):
            for attempt in sorted(self.progress.begun.get(index, ())):
                await self._note(index, attempt, "orphaned", key=row.key)

    async def _account(self) -> Platform:
        """Return the account, for whose Connection one waits a while: a secrets backend comes back."""
        with self._interruptible():
            return await patiently(self._hook.aplatform, partial(self.trouble.add, "failed reads of the Connection"))

    async def _submit(self, index: int, row: Row) -> tuple[float, ModelResponse] | None:
        """Submit a row, once, and write down where its run can be polled.

        :return: the attempt, and the answer; None if it is not to be submitted any more.
        """
        deadline = time.monotonic() + self._limits.timeout
        refused_key = ""
        while True:
            platform = await self._account()
            with self._interruptible():
                passed_at = await self._gate.passed()
            if self.is_spent or not self._is_to_be_submitted(index):
                return None
            attempt = time.time()
            note = partial(self._note, index, attempt)
            await note("begun")
            if self._is_over or not self._is_to_be_submitted(index):
                await note("not sent")
                return None
            try:
                response = await self._hook.arun_async(self.model_id, row.payload, name=f"Row {row.key}")
            except Exception as error:  # raised before anything is sent: what goes wrong on the way is a response
                await note("not sent")
                if isinstance(error, AixplainInputError):
                    return attempt, ModelResponse(ResponseStatus.FAILED, error_message=str(error), failure=_INVALID)
                raise
            failure = response.failure
            if failure is None:
                self._gate.open()
                if response.url:
                    await note("accepted", url=response.url)
                return attempt, response
            reason = f"Row {row.key}: {response.error_message}"
            if failure.may_be_accepted:
                self.trouble.add("submissions without an answer", reason)
                self._gate.pause(failure.retry_after, passed_at)
                await note("orphaned", key=row.key)
                return attempt, response
            await note("not sent")
            if failure.category is ErrorCategory.AUTHENTICATION and platform.api_key != refused_key:
                refused_key = platform.api_key
                self.trouble.add("refused submissions", reason)
                await self._hook._arenew()  # it may have been rotated
                continue
            if failure.category in ENDING:
                raise error_for(failure, f"Model {self.model_id}: {response.error_message}")
            passes = failure.category is ErrorCategory.RATE_LIMIT or not failure.sent
            if not passes or time.monotonic() > deadline:
                return attempt, response
            self.trouble.add("refused submissions", reason)
            self._gate.pause(failure.retry_after, passed_at)

    def _result(
        self,
        index: int,
        row: Row,
        attempt: float,
        response: ModelResponse | None,
        problem: str,
        *,
        is_known: bool = True,
    ) -> dict[str, Any]:
        if not problem and response is not None and response.status is ResponseStatus.FAILED:
            problem = NO_REASON
        failure = response.failure if response else None
        may_succeed = not failure or failure.retryable is not False
        return result_of(
            index,
            row.key,
            attempt,
            response,
            problem,
            may_succeed=may_succeed,
            is_known=is_known,
            columns=row.columns,
        )

    async def _conclude(self, result: dict[str, Any], *, is_polled: bool = False) -> None:
        """Write down how a row has ended, unless somebody else has, or is to: whoever has taken over runs it too.

        He may have submitted it again, and then asks for that run. But the success that only the answer to a submission
        tells of would be lost.
        """
        await self._hear()
        succeeded = result["status"] == ResponseStatus.SUCCESS
        is_left_to_others = self._state.submissions.is_superseded and (is_polled or not succeeded)
        if self.progress.done[result["row"]] or is_left_to_others:
            return
        await self._results.write({"batch": self._batch, **result})
        self.progress.end(result["row"], succeeded=succeeded, cost=Cost.of(result))

    async def _stored(self, ask: Callable[[], Awaitable[T]], target: Journal | State) -> T:
        """Return the result of a call to the storage. While the storage fails it is retried, and nothing is submitted.

        :param target: what the call reads or writes, for the log.
        :raises Superseded: if another process has taken over the batch, or has deleted it.
        :raises Exception: the storage's own error, after the last retry.
        """

        def report_failure(error: Exception) -> None:
            self.trouble.add("storage errors", error, f"{target}: ")
            self._gate.pause(None)

        try:
            return await patiently(ask, report_failure, final=(Superseded, FileNotFoundError))
        except FileNotFoundError:
            raise Deleted(f"{target}: somebody has deleted it") from None

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Let :meth:`stop` cancel what the current task waits for here: nothing is lost by that."""
        task: Any = asyncio.current_task()
        if self._is_over:
            raise asyncio.CancelledError
        self._waiting.add(task)
        try:
            yield
        finally:
            self._waiting.discard(task)


_INVALID = Failure(ErrorCategory.VALIDATION, sent=False)


class Gate:
    """What all submissions of a batch pass, one by one.

    :param per_second: how many may, at most.
    """

    def __init__(self, per_second: float | None) -> None:
        self._interval = 1 / per_second if per_second else 0.0
        self._next = 0.0
        self._pause = 0.0
        self._paused_at = -math.inf

    async def passed(self) -> float:
        """Return when the next one may be made: the time, by the monotonic clock."""
        while (delay := self._next - time.monotonic()) > 0:  # noqa: ASYNC110 # it may grow while one sleeps
            await asyncio.sleep(delay)
        now = time.monotonic()
        self._next = now + self._interval
        return now

    def pause(self, asked: float | None, passed_at: float = math.inf) -> None:
        """Let all wait: as long as the platform asks, up to five minutes, or longer each time that it has trouble.

        :param passed_at: when the submission did that tells of it. Of many that were under way one counts.
        """
        if passed_at > self._paused_at:
            self._paused_at = time.monotonic()
            self._pause = min(max(FIRST_PAUSE, self._pause * 2), LONGEST_PAUSE)
        delay = max(asked_delay(asked or 0.0, random.random()), self._pause * random.uniform(0.8, 1.2))
        self._next = max(self._next, time.monotonic() + delay)

    def open(self) -> None:
        """Take back that there is trouble: a submission was accepted."""
        self._pause = 0.0


class Writer:
    """Appends to a journal what many tasks have to write: all together that comes while it is at it.

    :param journal: the journal.
    :param heed: takes what others have written.
    :param stored: calls the storage, and retries while it fails.
    """

    def __init__(
        self,
        journal: Journal,
        heed: Callable[[Iterable[dict[str, Any]]], None],
        stored: Callable[[Callable[[], Awaitable[Any]], Journal], Awaitable[Any]],
    ) -> None:
        self._journal = journal
        self._heed = heed
        self._stored = stored
        self._left: list[tuple[dict[str, Any], asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def write(self, record: dict[str, Any]) -> None:
        """Write a record, and return when it is there.

        A storage that has trouble is waited for: what is to be written is paid for.

        :raises Superseded: if somebody has deleted the journal.
        :raises Exception: whatever the storage has for trouble.
        """
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left.append((record, written))
        if self._writing is None:
            self._writing = asyncio.ensure_future(self._write_all())
        await written

    async def _write_all(self) -> None:
        while self._left:
            some, self._left = self._left, []
            try:
                records = [record for record, _ in some]
                self._heed(await self._stored(partial(self._journal.aappend, records), self._journal))
            except Exception as error:
                for _, written in some:
                    written.set_exception(error)
            else:
                for _, written in some:
                    written.set_result(None)
        self._writing = None
