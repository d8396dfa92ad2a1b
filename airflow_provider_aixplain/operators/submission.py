"""What a task remembers of its submission, so that a later try finds it: in the task state store of Airflow 3.3."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import pendulum
from airflow.providers.common.compat.sdk import XCOM_RETURN_KEY

from airflow_provider_aixplain.triggers.aixplain import seconds_since

log = logging.getLogger(__name__)

KEY = "aixplain_submission"


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
    def now(cls, fingerprint: str) -> Submission:
        """Return a submission that is about to be made."""
        return cls(fingerprint, pendulum.now("UTC").isoformat())

    @property
    def age(self) -> float:
        """The seconds since it was made."""
        return seconds_since(self.submitted_at)


class SubmissionRecord:
    """Where a task instance remembers its submission. Without a store, below Airflow 3.3, it remembers nothing.

    :param context: the task's context.
    :param durable: whether to remember anything.
    """

    def __init__(self, context: Mapping[str, Any], *, durable: bool) -> None:
        self._store = context.get("task_state_store") if durable else None
        # Airflow raises it when a task is cleared, and keeps it from one retry to the next.
        task_instance = context.get("ti")
        self._max_tries = getattr(task_instance, "max_tries", None)
        # A trigger that ends a task cannot reach the store, so the XComs tell: of a task that begins anew, Airflow
        # names those that an earlier try has left (3.3.2; where it does not, the earlier run counts as not delivered).
        started = getattr(task_instance, "_ti_context_from_server", None)
        self._has_result = XCOM_RETURN_KEY in (getattr(started, "xcom_keys_to_clear", None) or ())

    def read(self) -> Submission | None:
        """Return what an earlier try remembered, if that is of use for this one."""
        told = dict(self._store.get(KEY) or {}) if self._store is not None else {}
        if not told:
            return None
        max_tries = told.pop("max_tries")
        earlier = Submission(**told)
        # A task that was cleared after its success is meant to run the model again.
        is_delivered = earlier.is_delivered or self._has_result
        return None if is_delivered and max_tries != self._max_tries else earlier

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
