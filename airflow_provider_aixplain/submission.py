"""What a task remembers of its submission, so that a later try, or another triggerer, finds its run again.

A worker keeps it in the task state store of Airflow 3.3, which outlives a clear. A trigger cannot reach that store, but
the XComs of its task, which nobody clears where no worker starts a task.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, cast

import pendulum
from airflow.providers.common.compat.sdk import XCom

from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus
from airflow_provider_aixplain.protocol.values import to_printable

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger(__name__)

KEY = "aixplain_submission"
RUN_KEY = "aixplain_run"

RETURN_KEY = "return_value"
"""Airflow's ``XCOM_RETURN_KEY``, which brings its database models along where it is imported from."""

IN_FLIGHT_MARGIN = 5.0
"""Seconds that Airflow, or a request beyond its own time, may take."""

NOT_FOUND_ATTEMPTS = 7
NOT_FOUND_DELAY = 10.0
"""Seconds between the polls of a later try for a run that the platform does not know: who believes that too early pays
twice."""

CLEARED = "the task had its result when it was cleared, so the model runs again, which is billed"
NOT_REMEMBERED = (
    "this is a later try, and no submission of an earlier one is remembered: that needs Airflow 3.3 and durable=True."
    " The model may run again, which is billed"
)


def now() -> str:
    """Return the time, in ISO 8601."""
    return pendulum.now("UTC").isoformat()


def seconds_since(time: str) -> float:
    """Return how long ago a time in ISO 8601 was; a clock that was set back since makes no wait longer."""
    then = cast("pendulum.DateTime", pendulum.parse(time))
    return max(0.0, pendulum.now("UTC").timestamp() - then.timestamp())


def is_not_found(response: ModelResponse) -> bool:
    """Whether the platform does not know the run that it was asked for."""
    return response.failure is not None and response.failure.status_code == 404


def is_rejected(response: ModelResponse) -> bool:
    """Whether a submission was answered so that there is no run: a later try has nothing to go on with."""
    failure = response.failure
    return response.status is ResponseStatus.FAILED and not (failure and failure.may_be_accepted)


@dataclass(frozen=True)
class Submission:
    """A submission of a task.

    :param fingerprint: tells whether a later try would submit the same.
    :param submitted_at: when it was made, in ISO 8601.
    :param poll_url: where the run can be asked for; None until the platform has accepted it.
    :param is_delivered: whether the task has got its result.
    """

    fingerprint: str
    submitted_at: str
    poll_url: str | None = None
    is_delivered: bool = False

    @classmethod
    def from_stored(cls, told: Mapping[str, Any]) -> Self:
        """Return what was stored, perhaps by another version, which may have known more or less."""
        return cls(**{field.name: told[field.name] for field in fields(cls) if field.name in told})

    @property
    def age(self) -> float:
        """The seconds since it was made."""
        return seconds_since(self.submitted_at)

    @property
    def orphan_message(self) -> str:
        """What to tell of it if nobody has learnt its poll URL."""
        return (
            f"an earlier try began a submission at {self.submitted_at} and never learnt whether it was accepted:"
            " a run may go on, and be billed, that nobody waits for"
        )

    def reason_not_resumable(self, fingerprint: str, response: ModelResponse | None = None) -> str:
        """Return why a later try cannot go on with this run, and has to submit again; nothing if it can.

        :param fingerprint: of what the later try would submit.
        :param response: the answer to a poll, if one was made. One that brings no news tells of the way to the
            platform, or of the key, and not of the run.
        """
        if self.fingerprint != fingerprint:
            return (
                f"model, input or endpoint differ from an earlier try's; its run goes on: {to_printable(self.poll_url)}"
            )
        if response is None:
            return ""
        if is_not_found(response):
            return f"the platform knows nothing of an earlier try's run: {to_printable(self.poll_url)}"
        if response.completed and response.status is ResponseStatus.FAILED:
            return f"the run of an earlier try has failed: {to_printable(self.poll_url)}"
        return ""


class TaskStateIdempotencyStore:
    """Where a worker remembers its task's submission. Without a store, below Airflow 3.3, it remembers nothing.

    :param context: the task's context.
    :param durable: whether to remember anything.
    """

    def __init__(self, context: Mapping[str, Any], *, durable: bool) -> None:
        self._store = context.get("task_state_store") if durable else None
        # Airflow raises it when a task is cleared, and keeps it from one retry to the next.
        task_instance = context.get("ti")
        self._max_tries = getattr(task_instance, "max_tries", None)
        try_number = getattr(task_instance, "try_number", None)
        is_later = isinstance(try_number, int) and try_number > 1
        self.rerun_reason = NOT_REMEMBERED if self._store is None and is_later else ""
        """Why this try runs the model again although nothing failed; empty if it does not. Set by :meth:`read`."""
        # A trigger that ends a task cannot reach the store, so the XComs tell: of a task that begins anew, Airflow
        # names those that an earlier try has left (3.3.2; where it does not, the earlier run counts as not delivered).
        started = getattr(task_instance, "_ti_context_from_server", None)
        self._has_result = RETURN_KEY in (getattr(started, "xcom_keys_to_clear", None) or ())

    def read(self) -> Submission | None:
        """Return what an earlier try remembered, if that is of use for this one."""
        if self._store is None or not (told := dict(self._store.get(KEY) or {})):
            return None
        max_tries = told["max_tries"]
        earlier = Submission.from_stored(told)
        if self._has_result and not earlier.is_delivered:
            # Its trigger has ended the task. Airflow has removed the XComs by now, and so does not tell the next try.
            earlier = replace(earlier, is_delivered=True)
            self._store.set(KEY, {**asdict(earlier), "max_tries": max_tries})
        if earlier.is_delivered and max_tries != self._max_tries:
            self.rerun_reason = CLEARED  # clearing a finished task requests another run
            return None
        return earlier

    def begin(self, submission: Submission) -> None:
        """Remember that a submission is about to be made.

        This raises what the store raises: a run that could not be found again is not to be paid for.
        """
        if self._store is not None:
            self._store.set(KEY, {**asdict(submission), "max_tries": self._max_tries})

    def update(self, submission: Submission) -> None:
        """Remember what became of a submission. It is made: trouble with the store is no reason to lose its run too."""
        try:
            self.begin(submission)
        except Exception as error:
            log.warning("A later try of this task will not find the run at %s: %s", submission.poll_url, error)

    def deliver(self) -> None:
        """Remember that the task has got its result, which trouble with the store is no reason to lose."""
        try:
            if earlier := self.read():
                self.begin(replace(earlier, is_delivered=True))
        except Exception as error:
            log.warning("A later try of this task may get the same result once more: %s", error)

    def forget(self) -> None:
        """Remember no submission: there is no run that a later try could use."""
        try:
            if self._store is not None:
                self._store.delete(KEY)
        except Exception as error:
            log.warning("A later try of this task may look for a run that is none: %s", error)


MAX_PENDING_PUSHES = 1000
"""XComs that the triggers of a process push at a time: what Airflow 3.3.2's triggerer takes in half a minute. It takes
one message of its triggers a turn, and asks its database for triggers to start and to end in each. With much less than
that the workers were the later ones: 188 s instead of 139 for 200 runs at once on two cores."""

_pushes = 0


class XComBackpressure(Exception):
    """So many XComs are being pushed that a worker does it sooner."""


@contextmanager
def _push_slots(pushes: int) -> Iterator[None]:
    global _pushes
    if _pushes + pushes > MAX_PENDING_PUSHES:
        raise XComBackpressure(f"{_pushes} XComs of others are waiting to be pushed")
    _pushes += pushes
    try:
        yield
    finally:
        _pushes -= pushes


@dataclass(frozen=True)
class IdempotencyRecord(Submission):
    """A submission that a trigger makes.

    :param try_id: the id of the task instance that waits for its run; each try has another.
    :param tried_at: when that try began to, in ISO 8601. Its deadline counts from then, wherever its trigger runs.
    :param response: the response as a dict, if the submission was answered with it.
    """

    try_id: str = ""
    tried_at: str = ""
    response: dict[str, Any] | None = None

    @property
    def is_open(self) -> bool:
        """Whether nobody has recorded what became of it."""
        return not self.poll_url and not self.response and not self.is_delivered

    def final(self) -> ModelResponse | None:
        """Return the response, if the submission was answered with it."""
        if self.response is None:
            return None
        return ModelResponse(**{**self.response, "status": ResponseStatus(self.response["status"])})


class XComIdempotencyStore:
    """Where a trigger remembers its task's submission: in XComs of the task, beside those of its result.

    One tells that it is begun, another what became of it: so a triggerer that stood still, and says late that it
    begins, takes nothing away from the one that has taken over.

    Every method raises what Airflow raises: a run that could not be found again is not to be paid for.

    :param task_instance: the trigger's.
    """

    def __init__(self, task_instance: Any) -> None:
        self.try_id = str(task_instance.id)
        names = ("dag_id", "task_id", "run_id", "map_index")
        self._place: dict[str, Any] = {name: getattr(task_instance, name) for name in names}

    async def read(self) -> IdempotencyRecord | None:
        """Return what this try of the task remembered, or else an earlier one."""
        if not (told := await self._get(KEY)):
            return None
        begun = IdempotencyRecord.from_stored(told)
        if not (told := await self._get(RUN_KEY)):
            return begun
        became = IdempotencyRecord.from_stored(told)
        is_of_it = became.try_id == begun.try_id or became.submitted_at == begun.submitted_at
        return became if is_of_it else begun

    async def write(self, submission: IdempotencyRecord) -> None:
        """Remember a submission."""
        key = RUN_KEY if submission.poll_url or submission.response else KEY
        await XCom.aset(key, asdict(submission), **self._place)

    async def forget(self) -> None:
        """Remember no submission."""
        await XCom.aset(KEY, None, **self._place)

    async def is_delivered(self, submission: IdempotencyRecord) -> bool:
        """Whether an earlier try has got the result of its submission, and somebody has cleared the task since."""
        return submission.is_delivered or await self._get(RETURN_KEY) is not None

    async def start_over(self, submission: IdempotencyRecord, keys: Iterable[str]) -> IdempotencyRecord:
        """Remove the XComs of a result that was delivered, as a worker does that starts a task.

        :param keys: of its fields.
        :return: what is remembered of the submission from now on.
        """
        delivered = replace(submission, is_delivered=True)
        await self.write(delivered)
        for key in (RETURN_KEY, *keys):
            await self._delete(key)
        return delivered

    async def push(self, response: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
        """Push the task's result, the whole response last.

        :param fields: what is an XCom of its own as well, by key.
        :raises XComBackpressure: if so many XComs are being pushed that a worker does it sooner.
        """
        with _push_slots(len(fields) + 1):
            await asyncio.gather(*(XCom.aset(name, value, **self._place) for name, value in fields.items()))
            await XCom.aset(RETURN_KEY, dict(response), **self._place)

    async def pull(self, task_id: str, key: str) -> Any:
        """Return another task's XCom; None if there is none.

        :param task_id: of a task that is not mapped, in the same DAG.
        """
        return await XCom.aget_one(key=key, **{**self._place, "task_id": task_id, "map_index": -1})

    async def _get(self, key: str) -> Any:
        return await XCom.aget_one(key=key, **self._place)

    async def _delete(self, key: str) -> None:
        # Airflow 3.3.2 has no coroutine for it; in a thread it does not need Airflow's greenback portal either.
        await asyncio.to_thread(XCom.delete, key, **self._place)
