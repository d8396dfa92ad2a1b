"""The idempotency record of a task's submission, in the task state store of Airflow 3.3.

With it, a later try finds the run of an earlier one. Airflow keeps the store when a task is cleared; only workers can
access it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, cast

import pendulum

from airflow_provider_aixplain import compat
from airflow_provider_aixplain.protocol.resumption import Decision, Submission
from airflow_provider_aixplain.protocol.values import to_printable

log = logging.getLogger(__name__)

KEY = "aixplain_submission"

IN_FLIGHT_MARGIN = 5.0
"""Seconds after its timeout until a request is certain to have ended, and the time limit of recording its outcome."""

NOT_FOUND_ATTEMPTS = 7
NOT_FOUND_DELAY = 10.0
"""Seconds between the polls of a run that the platform does not know. After a wrong "not found" it is paid twice."""


def now() -> str:
    """Return the time, in ISO 8601."""
    return pendulum.now("UTC").isoformat()


def seconds_since(time: str) -> float:
    """Return the seconds since a time in ISO 8601; 0 if the clock was set back to before that time."""
    then = cast("pendulum.DateTime", pendulum.parse(time))
    return max(0.0, pendulum.now("UTC").timestamp() - then.timestamp())


def log_resubmission(logger: Any, name: str, decision: Decision) -> None:
    """Log why a run is submitted again, as a warning unless it is expected.

    :param name: the name of the run in the log.
    """
    if decision.is_expected:
        logger.info("%s: %s", name, decision.reason)
    elif decision.reason:
        logger.warning("%s: submitting again: %s", name, decision.reason)


class TaskStateIdempotencyStore:
    """Stores a task's submission in Airflow's task state store. Below Airflow 3.3 there is no such store.

    :param context: the task's context.
    :param durable: whether to store anything.
    """

    def __init__(self, context: Mapping[str, Any], *, durable: bool) -> None:
        self._store = compat.task_state_store(context) if durable else None
        self._task_instance = context.get("ti")
        self.is_durable = self._store is not None
        self.is_cleared = False
        """Whether the task was cleared after it had received its result. Set by :meth:`read`."""

    @property
    def is_later_try(self) -> bool:
        """Whether the task has had an earlier try."""
        return compat.try_number(self._task_instance) > 1

    def read(self) -> Submission | None:
        """Return the submission of an earlier try."""
        if self._store is None or not (stored := self._store.get(KEY)):
            return None
        earlier = Submission.from_stored(stored)
        # A trigger that finishes a task cannot write to this store, so only the task's XComs show that the result was
        # delivered. Airflow lists them to the first try after a clear, and deletes them, so that try stores the fact.
        if not earlier.is_delivered and compat.has_earlier_result(self._task_instance):
            earlier = replace(earlier, is_delivered=True)
            self._store.set(KEY, {**asdict(earlier), "max_tries": stored["max_tries"]})
        # Airflow raises max_tries when a task is cleared, and keeps it from one retry to the next.
        self.is_cleared = earlier.is_delivered and stored["max_tries"] != compat.max_tries(self._task_instance)
        return earlier

    def write_intent(self, submission: Submission) -> None:
        """Store a submission before the request is sent.

        Errors of the store are raised: a run that no later try would find must not be billed.
        """
        if self._store is not None:
            self._store.set(KEY, {**asdict(submission), "max_tries": compat.max_tries(self._task_instance)})

    def write_accepted(self, submission: Submission) -> None:
        """Store the poll URL of a submission. Errors of the store are only logged, as the run exists."""
        try:
            self.write_intent(submission)
        except Exception as error:
            url = to_printable(submission.poll_url)
            log.warning("The record of the run could not be stored, so a retry submits again (%s): %s", error, url)

    def mark_delivered(self) -> None:
        """Store that the task has received its result. Errors of the store are only logged."""
        try:
            if (earlier := self.read()) and not (earlier.is_delivered or self.is_cleared):
                self.write_intent(replace(earlier, is_delivered=True))
        except Exception as error:
            log.warning("The delivery could not be stored, so a cleared task may return the same result: %s", error)

    def clear(self) -> None:
        """Delete the record: there is no run that a later try could use. Errors of the store are only logged."""
        try:
            if self._store is not None:
                self._store.delete(KEY)
        except Exception as error:
            log.warning("The record of the submission could not be deleted, so a retry still considers it: %s", error)
