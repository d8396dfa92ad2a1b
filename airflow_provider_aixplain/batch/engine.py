"""Runs the rows of a batch: submits so many at a time, polls them all, and writes down each step before the next."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_provider_aixplain.batch.journal import Writer
from airflow_provider_aixplain.batch.rows import Row
from airflow_provider_aixplain.batch.state import Progress, State, Totals, result_of
from airflow_provider_aixplain.exceptions import AixplainError, AixplainInputError, error_for
from airflow_provider_aixplain.protocol.adaptive import RunTimes
from airflow_provider_aixplain.protocol.failure import ErrorCategory, Failure
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus
from airflow_provider_aixplain.protocol.wait import PATIENCE, Wait

if TYPE_CHECKING:
    from airflow_provider_aixplain.hooks.aixplain import AixplainHook

LAG = 5.0
"""Seconds that a request may take beyond its own time."""

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


class Superseded(Exception):
    """Somebody else runs this batch now."""


class Engine:
    """Runs what is left of a batch.

    :param hook: carries the calls.
    :param model_id: of the model.
    :param state: the batch's.
    :param limits: how it is run.
    """

    def __init__(self, hook: AixplainHook, model_id: str, state: State, limits: Limits) -> None:
        self._hook = hook
        self.model_id = model_id
        self._state = state
        self._limits = limits
        self._owner = uuid.uuid4().hex
        self._run_times = RunTimes()
        self._gate = Gate(limits.max_per_second)
        self._is_over = False
        self._waiting: set[asyncio.Task[Any]] = set()
        self._problem: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._submissions = Writer(state.submissions, self._heed)
        self._results = Writer(state.results)
        self.progress = Progress(bytearray(), {}, {}, Totals())
        self.in_flight = 0
        self.submitted = 0

    def stop(self) -> None:
        """Submit no more, and end as soon as every answer to a submission has come and is written down."""
        self._is_over = True
        for task in self._waiting:
            task.cancel()

    def stop_from_elsewhere(self) -> None:
        """As :meth:`stop`, from another thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # its loop is closed: it has ended
                self._loop.call_soon_threadsafe(self.stop)

    async def run(self) -> None:
        """Run the rows that are left, until each has a result, or nothing more may be submitted.

        :raises Superseded: if somebody else has begun to run this batch.
        :raises AixplainError: if the platform refuses what every row needs.
        """
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._claim)
        slots = asyncio.Semaphore(self._limits.max_in_flight)
        tasks: set[asyncio.Task[None]] = set()

        def ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            slots.release()
            self.in_flight -= 1
            if not task.cancelled() and (error := task.exception()):
                self._fail(error)

        with suppress(asyncio.CancelledError):
            async for index, row in self._left():
                with self._interruptible():
                    await slots.acquire()
                task = asyncio.ensure_future(self._one(index, row))
                tasks.add(task)
                self.in_flight += 1
                task.add_done_callback(ended)
        while tasks:
            await asyncio.wait(list(tasks))
        if self._problem is not None:
            raise self._problem

    @property
    def is_spent(self) -> bool:
        """Whether the credits that may be spent are."""
        most = self._limits.max_credits
        return most is not None and self.progress.totals.credits >= most

    def _fail(self, error: BaseException) -> None:
        self._problem = self._problem or error
        self.stop()

    def _claim(self) -> None:
        """Say who runs the batch from now on, and see how far it is: in this order, so that who ran it before either
        has written what it does, or sees this before it does more."""
        self._state.submissions.remember()
        self._state.submissions.append([{"owner": self._owner, "at": time.time()}])
        self._state.results.remember()
        self.progress = self._state.progress()

    def _heed(self, record: dict[str, Any]) -> None:
        """Take note of what somebody else has written."""
        if record.get("owner"):
            self._fail(Superseded("somebody else runs this batch now"))
        elif "url" in record and record["row"] in self.progress.begun:
            self.progress.accepted[record["row"]] = record["url"], record["at"]

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
            async for index, row in _in_thread(enumerate(self._state.rows())):
                if known.done[index] or not is_of_it(index):
                    continue
                if self.is_spent and index not in accepted:
                    return
                yield index, row

    async def _one(self, index: int, row: Row) -> None:
        """Bring one row to its end."""
        begun = self.progress.begun.get(index)
        if begun is not None:
            await self._settle(index, row, begun)
        url, submitted_at = self.progress.accepted.pop(index, ("", time.time()))
        if not url:
            response = await self._submit(index, row)
            if response is None:
                return
            if response.status is not ResponseStatus.IN_PROGRESS:
                await self._conclude(index, row, response, response.error_message or "")
                return
            url = response.url or ""
        wait = Wait(self._limits.wait_time, self._limits.timeout, PATIENCE, self._run_times)
        age = max(0.0, time.time() - submitted_at)
        with self._interruptible():
            outcome = await self._hook.await_run(url, wait, age, name=f"Row {row.key}")
        problem = "" if outcome.status == "success" else outcome.message or outcome.status
        await self._conclude(index, row, outcome.response, problem)

    async def _settle(self, index: int, row: Row, begun: float) -> None:
        """Wait until the answer to a submission of an earlier process cannot come any more; then it is orphaned."""
        platform = await self._hook.aplatform()
        with self._interruptible():
            await asyncio.sleep(max(0.0, begun + platform.timeout + LAG - time.time()))
        await self._submissions.write({"owner": self._owner, "at": time.time()})  # tells of an answer meanwhile, too
        if index not in self.progress.accepted:
            await self._orphaned(row)
        del self.progress.begun[index]

    async def _submit(self, index: int, row: Row) -> ModelResponse | None:
        """Submit a row, once, and write down where its run can be polled.

        :return: the answer; None if the batch is over before.
        """
        deadline = time.monotonic() + self._limits.timeout
        while True:
            with self._interruptible():
                await self._gate.passed()
            if self.is_spent:
                return None
            await self._submissions.write({"row": index, "begun": True, "at": time.time()})
            if self._is_over:
                return None
            self.submitted += 1
            try:
                response = await self._hook.arun_async(self.model_id, row.payload, name=f"Row {row.key}")
            except AixplainInputError as error:
                await self._submissions.write({"row": index, "begun": False})
                return ModelResponse(ResponseStatus.FAILED, error_message=str(error), failure=_INVALID)
            except AixplainError:
                await self._submissions.write({"row": index, "begun": False})
                raise
            failure = response.failure
            if failure is None:
                self._gate.open()
                if response.url:
                    await self._submissions.write({"row": index, "url": response.url, "at": time.time()})
                return response
            if failure.may_be_accepted:
                self._gate.pause(failure.retry_after)
                await self._orphaned(row)
                return response
            self.submitted -= 1
            await self._submissions.write({"row": index, "begun": False})
            if failure.category in ENDING:
                raise error_for(failure, f"Model {self.model_id}: {response.error_message}")
            if not failure.retryable or time.monotonic() > deadline:
                return response
            self._gate.pause(failure.retry_after)

    async def _conclude(self, index: int, row: Row, response: ModelResponse | None, problem: str) -> None:
        failed = response is not None and response.status is ResponseStatus.FAILED
        problem = problem or ("the platform gives no reason" if failed else "")
        failure = response.failure if response else None
        result = result_of(index, row.key, response, problem, may_succeed=not failure or failure.retryable is not False)
        await self._results.write(result)
        self.progress.done[index] = 1
        self.progress.totals.add(result)

    async def _orphaned(self, row: Row) -> None:
        await self._submissions.write({"orphan": row.key, "at": time.time()})
        self.progress.totals.orphaned.append(row.key)

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

    async def passed(self) -> None:
        """Return when the next one may be made."""
        while (delay := self._next - time.monotonic()) > 0:  # noqa: ASYNC110 # it may grow while one sleeps
            await asyncio.sleep(delay)
        self._next = time.monotonic() + self._interval

    def pause(self, asked: float | None) -> None:
        """Let all wait: as long as the platform asks, or longer each time that it has trouble."""
        self._pause = min(max(FIRST_PAUSE, self._pause * 2), LONGEST_PAUSE)
        delay = max(asked or 0.0, self._pause) * random.uniform(0.8, 1.2)
        self._next = max(self._next, time.monotonic() + delay)

    def open(self) -> None:
        """Take back that there is trouble: a submission was accepted."""
        self._pause = 0.0


async def _in_thread(values: Iterator[Any], at_a_time: int = 200) -> AsyncIterator[Any]:
    """Read from an iterator that may block."""

    def some() -> list[Any]:
        return list(islice(values, at_a_time))

    while chunk := await asyncio.to_thread(some):
        for value in chunk:
            yield value
