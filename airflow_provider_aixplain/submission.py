"""The idempotency record of a task's submission, and its usage record, in the task state store of Airflow 3.3.

With it, a later try finds the run of an earlier one. Airflow keeps the store when a task is cleared; only workers can
access it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from decimal import Decimal
from functools import cached_property
from typing import Any, cast

import pendulum

from airflow_provider_aixplain import compat
from airflow_provider_aixplain.exceptions import AixplainPermanentError
from airflow_provider_aixplain.protocol.assets import Asset
from airflow_provider_aixplain.protocol.resumption import Decision, Submission
from airflow_provider_aixplain.protocol.usage import USAGE_KEY, RunUsage, add_usage, latest, spent
from airflow_provider_aixplain.protocol.values import to_printable

log = logging.getLogger(__name__)

KEY = "aixplain_submission"

IN_FLIGHT_MARGIN = 5.0
"""Seconds after its timeout until a request is certain to have ended, and the time limit of recording its outcome."""

MAX_STORED_RESPONSE = 128 * 1024
"""Characters of a response, as JSON, that the task state store keeps if it came as the answer to the submission."""

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


def check_budget(max_credits: float | None, usage: Mapping[str, Any] | None) -> None:
    """Check that a task may submit a run.

    :param max_credits: the argument; None: no limit.
    :param usage: the usage record of the task instance, if there is one.
    :raises AixplainPermanentError: if its runs have cost this much.
    """
    if max_credits is not None and spent(usage) >= Decimal(str(max_credits)):
        raise AixplainPermanentError(
            f"max_credits is {max_credits:g}, and the runs of this task have cost {spent(usage):f} credits: nothing was"
            " submitted. Raise max_credits, and clear the task"
        )


class TaskStateIdempotencyStore:
    """Stores a task's submission and its usage record in Airflow's task state store, under one key.

    Below Airflow 3.3 there is no such store: then nothing is stored, and :attr:`usage` holds the runs of this try only.

    :param context: the task's context.
    :param durable: whether to store the submission. The usage record is always stored.
    :param stored: what is stored, if that is known: each request costs Airflow's API server about 15 ms of CPU.
        It is changed together with the store.
    :param pushes_result: whether the task pushes its result as an XCom.
    """

    def __init__(
        self,
        context: Mapping[str, Any],
        *,
        durable: bool,
        stored: dict[str, Any] | None = None,
        pushes_result: bool = True,
    ) -> None:
        self._store = compat.task_state_store(context)
        self._task_instance = context.get("ti")
        self.is_durable = durable and self._store is not None
        self._pushes_result = pushes_result
        if stored is not None:
            self.stored = stored
        self.is_cleared = False
        """Whether the task was cleared after it had received its result. Set by :meth:`read`."""

    @cached_property
    def stored(self) -> dict[str, Any]:
        """What is stored: the fields of the submission and ``max_tries``, if there is one, and ``usage``."""
        return dict((self._store and self._store.get(KEY)) or {})

    @property
    def usage(self) -> Mapping[str, Any] | None:
        """The usage record of the task instance, as in :mod:`~airflow_provider_aixplain.protocol.usage`."""
        try:
            return self.stored.get("usage")
        except Exception as error:
            log.warning("The cost of earlier runs could not be read: %s: %s", type(error).__name__, error)
            return None

    def add_usage(
        self, usage: RunUsage, asset: Asset, page: str, other: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """Add the usage of a run to the record, which the next change of the submission stores, or :meth:`save`.

        :param usage: of the run, or of a batch.
        :param asset: what was run.
        :param page: the URL of its page on the platform.
        :param other: another replica of the record, if there is one.
        :return: the record; None if the earlier one could not be read, which is only logged.
        """
        try:
            record = add_usage(latest(self.stored.get("usage"), other), usage, asset, page)
            self.stored["usage"] = record
            return record
        except Exception as error:
            log.warning("The cost of the run could not be recorded: %s: %s", type(error).__name__, error)
            return None

    @property
    def is_later_try(self) -> bool:
        """Whether the task has had an earlier try."""
        return compat.try_number(self._task_instance) > 1

    def read(self) -> Submission | None:
        """Return the submission of an earlier try."""
        if not self.is_durable or "fingerprint" not in self.stored:
            return None
        earlier = Submission.from_stored(self.stored)
        # Airflow raises max_tries when a task is cleared, and keeps it from one retry to the next.
        before, now = self.stored["max_tries"], compat.max_tries(self._task_instance)
        if before is not None and before != now:
            # A trigger that delivers the result cannot write to this store, and pushing a returned result may fail, so
            # the XComs decide. Airflow lists them to the first try after a clear, and deletes them, so that try stores
            # the fact.
            pushed = compat.has_earlier_result(self._task_instance) if self._pushes_result else None
            has_result = earlier.is_delivered if pushed is None else pushed
            earlier, before = replace(earlier, is_delivered=has_result), None if has_result else now
            self._write(earlier, before)
        self.is_cleared = before != now
        return earlier

    def write_intent(self, submission: Submission) -> None:
        """Store a submission before the request is sent.

        Errors of the store are raised: a run that no later try would find must not be billed.
        """
        if self.is_durable:
            self._write(submission, compat.max_tries(self._task_instance))

    def write_accepted(self, submission: Submission) -> None:
        """Store the outcome of a submission. Errors of the store are only logged, as the run exists."""
        try:
            if submission.response and len(json.dumps(submission.response)) > MAX_STORED_RESPONSE:
                submission = replace(submission, response=None)
            self.write_intent(submission)
        except Exception as error:
            url = to_printable(submission.poll_url)
            log.warning("The record of the run could not be stored, so a retry submits again (%s): %s", error, url)

    def mark_delivered(self) -> None:
        """Store that the task has received its result. Errors of the store are only logged."""
        try:
            if (earlier := self.read()) and not (earlier.is_delivered or self.is_cleared):
                self.write_intent(replace(earlier, is_delivered=True))
            else:
                self._save()
        except Exception as error:
            log.warning("The delivery could not be stored, so a cleared task may return the same result: %s", error)

    def clear(self) -> None:
        """Delete the submission: there is no run that a later try could use. Errors of the store are only logged."""
        try:
            if self.is_durable:  # otherwise there is none, or it is that of an outer task
                for name in self.stored.keys() - {"usage"}:
                    del self.stored[name]
            self._save()
        except Exception as error:
            log.warning("The record of the submission could not be deleted, so a retry still considers it: %s", error)

    def save(self) -> None:
        """Store the usage record, and the submission unchanged. Errors of the store are only logged."""
        try:
            self._save()
        except Exception as error:
            log.warning("The cost of the run could not be stored: %s: %s", type(error).__name__, error)

    def _write(self, submission: Submission, max_tries: int | None) -> None:
        self.stored |= {**asdict(submission), "max_tries": max_tries}
        self._save()

    def _save(self) -> None:
        if self._store is None:
            return
        if self.stored:
            self._store.set(KEY, self.stored)
        else:
            self._store.delete(KEY)


def push_xcoms(context: Mapping[str, Any], xcoms: Mapping[str, Any]) -> None:
    """Push XComs of the running task other than its result. Errors are only logged."""
    try:
        if (task_instance := context.get("ti")) is not None:
            for key, value in xcoms.items():
                task_instance.xcom_push(key=key, value=value)
    except Exception as error:
        log.warning("No XCom with the cost of the run: %s: %s", type(error).__name__, error)


def pull_usage(context: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the usage record in the XComs of the running task; None if there is none, or it cannot be read."""
    task_instance = context.get("ti")
    if task_instance is None:
        return None
    # Without an index Airflow returns the records of all instances of a mapped task.
    index = {"map_indexes": task_instance.map_index} if task_instance.map_index >= 0 else {}
    try:
        record = task_instance.xcom_pull(task_ids=task_instance.task_id, key=USAGE_KEY, **index)
        return record if isinstance(record, Mapping) else None
    except Exception as error:
        log.warning("The cost of earlier runs could not be read: %s: %s", type(error).__name__, error)
        return None
