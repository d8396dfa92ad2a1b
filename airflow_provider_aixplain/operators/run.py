"""The base of the operators that submit a run."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_aixplain import compat
from airflow_provider_aixplain.exceptions import (
    AixplainError,
    AixplainInputError,
    AixplainPermanentError,
    AixplainRunTimeout,
    submission_error,
    translate_protocol_errors,
)
from airflow_provider_aixplain.observability.metrics import RunMetrics
from airflow_provider_aixplain.operators.arguments import deferrable_or_default, one_of, positive, refuse_nested
from airflow_provider_aixplain.operators.base import DeferrableRunBaseOperator
from airflow_provider_aixplain.placement import PLACEMENT
from airflow_provider_aixplain.protocol.assets import Asset, RunInput
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus
from airflow_provider_aixplain.protocol.resumption import Action, Submission, decide, is_not_found, is_rejected
from airflow_provider_aixplain.protocol.usage import earlier_usage, has_counted
from airflow_provider_aixplain.protocol.values import to_printable
from airflow_provider_aixplain.protocol.wait import MAX_DURATION, RETRY_BUDGET, Outcome, Wait
from airflow_provider_aixplain.submission import (
    NOT_FOUND_ATTEMPTS,
    NOT_FOUND_DELAY,
    TaskStateIdempotencyStore,
    check_budget,
    log_resubmission,
    now,
    seconds_since,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

# The hook, the triggers and streams are imported where they are used, so that DAG files are parsed quickly.


class _StartTriggerArgs:
    """The attribute from which Airflow reads the trigger that starts a task, or None.

    It is computed when the DAG is serialized: only then are all reasons against a trigger known. It is None on the
    class, so that a worker starts mapped tasks.
    """

    def __get__(self, task: RunBaseOperator | None, kind: type[RunBaseOperator]) -> Any:
        if task is None:
            return None
        try:
            return PLACEMENT.start_trigger_args(task)
        except AttributeError as error:  # Airflow would read it as "no such attribute", and start the task on a worker
            raise compat.UnsupportedAirflowError(f"attribute for start_from_trigger: {error}") from error


class RunBaseOperator(DeferrableRunBaseOperator):
    """A task that submits a run, and returns its result.

    The idempotency record of its submission lets a later try find the run. A subclass returns the input of the run from
    :meth:`run_input`.

    :param name: the name of the run in the log; default: the task's id. (templated)
    :param aixplain_conn_id: the id of a Connection of type ``aixplain``. (templated)
    :param wait_for_completion: if False, the task returns the submission's response, whose ``url`` is the poll URL.
    :param deferrable: if False, the task waits on the worker; default: ``[aixplain] deferrable`` of Airflow's
        configuration, which is True unless set.
    :param wait_time: seconds before the second poll, at least 0.2; increases by 10 % per poll up to 60 seconds.
    :param timeout: how long to wait for the run, in seconds or as a timedelta; default: a day. The run itself
        continues, as the platform cannot cancel it.
    :param durable: whether a later try of the task resumes the run of an earlier try instead of paying for another
        (Airflow 3.3 and later; below it each try submits). A run that failed is submitted again.
    :param max_credits: what all tries of the task may cost together, in credits. Once they have cost this much, a try
        that would submit again fails without retry. One run may exceed it, as its cost is known only afterwards. With
        a higher limit a cleared task submits again. Default: no limit. (Airflow 3.3 and later)
    :param end_from_trigger: whether the trigger finishes the task when its run has succeeded, and pushes the XComs, so
        that no worker is started for that. A worker still finishes a task that would lose something, such as outlets,
        an ``on_success_callback``, a listener, an XCom backend or a response of more than 128 KiB, and the task's log
        states why. Runs that fail are always finished by a worker.
    :param start_from_trigger: whether the trigger submits the run too, so that no worker starts the task (Airflow 3.3
        and later); with ``end_from_trigger`` no worker is needed. The default pool and ``max_active_tasks`` do not
        limit such tasks. A worker still submits for a task that would lose something, such as mapped tasks, files,
        streams, another pool or templates that only a worker can render, and the task's log states why.
    :param on_orphaned_submission: what to do if an earlier try started a submission and it is unknown whether the
        platform accepted it: ``resubmit``, with a warning, or ``fail``, until the task is cleared.
    :param polling: ``backoff``: at intervals that grow from ``wait_time``; or ``adaptive``: rarely while the run is
        unlikely to have finished and often when it is likely to, by the durations of earlier runs of the same model or
        agent in the same triggerer. Without such durations, and on a worker, it is the same as ``backoff``.
    :param multiple_outputs: whether each field that is not empty is an XCom of its own. Reading an empty field returns
        None.
    :raises AixplainInputError: if an argument is invalid.
    """

    ui_color = "#e5f0ff"
    start_trigger_args = _StartTriggerArgs()

    def __init__(
        self,
        *,
        name: str | None = None,
        aixplain_conn_id: str = "aixplain_default",
        wait_for_completion: bool = True,
        deferrable: bool | None = None,
        wait_time: float | timedelta = 0.5,
        timeout: float | timedelta = 86400,
        durable: bool = True,
        max_credits: float | None = None,
        end_from_trigger: bool = False,
        start_from_trigger: bool = False,
        on_orphaned_submission: Literal["resubmit", "fail"] = "resubmit",
        polling: Literal["backoff", "adaptive"] = "backoff",
        multiple_outputs: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(multiple_outputs=multiple_outputs, **kwargs)
        self.name = name
        self.aixplain_conn_id = aixplain_conn_id
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable_or_default(deferrable)
        self.durable = durable
        self.max_credits = None if max_credits is None else positive("max_credits", max_credits)
        if max_credits is not None and not compat.is_at_least(3, 3):
            raise AixplainInputError(
                "max_credits needs Airflow 3.3 or later, which keeps what earlier tries of a task have cost"
            )
        if max_credits is not None and not (durable and wait_for_completion):
            raise AixplainInputError(
                "max_credits needs durable=True and wait_for_completion=True: without them the task does not know what"
                " its runs have cost"
            )
        self.ends_from_trigger = end_from_trigger
        self.start_from_trigger = start_from_trigger
        self.on_orphaned_submission = one_of("on_orphaned_submission", on_orphaned_submission, "resubmit", "fail")
        self.polling = one_of("polling", polling, "backoff", "adaptive")
        with translate_protocol_errors():
            wait = Wait(wait_time=wait_time, timeout=timeout)
        self.wait_time = wait.wait_time
        self.timeout = wait.timeout
        self._submission: Submission | None = None
        self._request_name = "the submission"

    def run_input(self) -> RunInput:
        """Return the input of the run."""
        raise NotImplementedError

    @property
    def asset(self) -> Asset:
        """The model or agent that is run."""
        return self.run_input().asset

    @property
    def run_name(self) -> str:
        """The name of the run in the log."""
        return self.name or self.task_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Submit the run, or re-attach to that of an earlier try, and defer until it has finished.

        :return: the response as a dict.
        :raises AixplainInputError: if it would defer within another task.
        """
        self._refuse_nested(context)
        if self.start_from_trigger:
            self._log_start_on_worker()
        store = self._open_store(context)
        self._submission = earlier = store.read()
        self.check_input(*self.input_fields)
        fingerprint = self.hook.fingerprint(self.run_input())
        self.set_link(context)
        response = self._reattach(earlier, fingerprint, store)
        if earlier is not None and response is not None:
            submission, age = earlier, seconds_since(earlier.submitted_at)
        else:
            submission, age = Submission(fingerprint, now()), 0.0
            response = self._submit_and_record(context, submission, store)
        is_final = response.status is ResponseStatus.SUCCESS
        answer = response.to_dict() if is_final and not response.url else None  # it cannot be polled again
        is_delivered = not self.wait_for_completion
        submission = replace(submission, poll_url=response.url, response=answer, is_delivered=is_delivered)
        self._submission, self.submitted_at = submission, submission.submitted_at
        store.write_accepted(submission)
        if is_final:
            return self.execute_complete(context, Outcome("success", "", response).to_event(response.url or ""))
        if not self.wait_for_completion:
            self.response = response.to_dict()
            self.record_end(context, "submitted", self.response)
            return self._push_fields(context, self.make_result(self.response))
        return self._wait_for_run(context, submission, age)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Return the result of the run, or raise its error."""
        self._submission = None
        return super().execute_complete(context, event)

    def _store_end(self, store: TaskStateIdempotencyStore, outcome: str) -> None:
        if outcome == "success":
            store.mark_delivered()
        elif outcome in ("failed", "refused"):
            store.clear()
        else:
            store.save()

    def on_kill(self) -> None:
        """Log that the run continues although the task was stopped on its worker."""
        submission = self._submission
        if submission is None or submission.is_delivered:
            return
        if submission.poll_url is None:
            message = "%s: the task was stopped during its submission. If the platform accepted it, the run is billed"
            self.log.warning(message, self.run_name)
            return
        message = "%s: the task was stopped. Its run continues and is billed, as the platform cannot cancel it: %s"
        self.log.warning(message, self.run_name, to_printable(submission.poll_url))

    def _log_start_on_worker(self) -> None:
        """Log why a worker starts this task."""
        # The templates of this task are rendered. The scheduler decided about the unrendered task, which the DAG holds.
        planned = self.dag.get_task(self.task_id) if self.has_dag() else self  # type: ignore[no-untyped-call]
        loss = PLACEMENT.reason_not_start(planned if isinstance(planned, type(self)) else self)
        reason = f"a trigger would lose {loss}" if loss else "this task was started on a worker"
        self.log.info("%s: a worker submits the run, as %s", self.run_name, reason)

    def _wait_for_run(self, context: Context, submission: Submission, age: float) -> dict[str, Any]:
        """Defer, or wait on the worker.

        :param age: the seconds between the submission and this try.
        """
        poll_url = submission.poll_url or ""
        self.hook.platform.check_trusted(poll_url)
        timeout = self.longest_wait
        if self.deferrable:
            timeout = min(timeout + age, MAX_DURATION)
            usage = self._open_store(context).usage if self.ends_from_trigger else None
            run = {"poll_url": poll_url, "submitted_at": submission.submitted_at, "timeout": timeout}
            self._defer(self.run_settings(**run, usage=usage))
        wait = Wait(wait_time=self.wait_time, timeout=timeout, retry_budget=RETRY_BUDGET)
        outcome = self.hook.wait_for_run(poll_url, wait, self.run_name)
        seconds = seconds_since(submission.submitted_at)
        RunMetrics().add_wait(self.asset, outcome, wait.polls, seconds).send(context.get("ti") or self)
        return self.execute_complete(context, outcome.to_event(poll_url))

    def _submit_and_record(
        self, context: Context, submission: Submission, store: TaskStateIdempotencyStore
    ) -> ModelResponse:
        """Submit the run.

        :return: a response in progress, or a final and successful one.
        :raises AixplainPermanentError: if earlier runs of the task have cost ``max_credits``.
        :raises AixplainError: if the platform refused the submission, or the run has failed.
        """
        check_budget(self.max_credits, store.usage)
        store.write_intent(submission)
        self._submission, self.submitted_at = submission, submission.submitted_at
        try:
            response = self._submit()
        except AixplainRunTimeout:
            self.record_end(context, "timeout", None)
            raise
        except (AixplainError, OSError):
            # Raised before anything is sent, by the input or its files; a request that fails returns a response.
            store.clear()
            raise
        if response.status is ResponseStatus.FAILED:
            outcome = "failed" if response.failure is None else "refused" if is_rejected(response) else "orphaned"
            self.record_end(context, outcome, response.to_dict())
            raise submission_error(response, self.asset, self._request_name)
        if response.status is ResponseStatus.IN_PROGRESS:
            self.log.info("%s: submitted a run of %s: %s", self.run_name, self.asset, to_printable(response.url))
        return response

    def _reattach(
        self, earlier: Submission | None, fingerprint: str, store: TaskStateIdempotencyStore
    ) -> ModelResponse | None:
        """Return the state of an earlier try's run, or None if this try has to submit.

        :raises AixplainPermanentError: if the submission is orphaned and the task is to fail then.
        """
        decide_now = partial(
            decide,
            earlier,
            fingerprint,
            on_orphaned=self.on_orphaned_submission,
            is_durable=store.is_durable or not store.is_later_try,
            is_cleared=store.is_cleared,
        )
        decision = decide_now()
        response, poll_url = (earlier.final_response(), earlier.poll_url) if earlier else (None, None)
        if decision.action is Action.REATTACH and poll_url:
            response = self._poll(poll_url)
            decision = decide_now(response=response)
        if earlier and decision.action is not Action.REATTACH and not has_counted(store.usage, earlier.run_id):
            self._count_earlier(store, earlier, response)
        if decision.action is Action.FAIL:
            store.clear()
            raise AixplainPermanentError(f"{self.asset.title}: {decision.reason}. Clear the task to submit again")
        if decision.action is Action.RESUBMIT or response is None:
            log_resubmission(self.log, self.run_name, decision)
            return None
        where = to_printable(poll_url or "its result is in the record")
        self.log.info("%s: re-attached to the run of an earlier try: %s", self.run_name, where)
        if response.completed:
            response.url = response.url or poll_url
            return response
        # A failed poll describes the network or the key, not the run.
        return ModelResponse(ResponseStatus.IN_PROGRESS, url=poll_url)

    def _count_earlier(
        self, store: TaskStateIdempotencyStore, earlier: Submission, response: ModelResponse | None
    ) -> None:
        """Add the run of an earlier try to the usage record: its try was stopped, or a trigger finished the task.

        :param response: the answer to a poll of it, if there was one.
        """
        if earlier.poll_url and response is None:
            with suppress(AixplainError):  # the Connection no longer trusts the URL
                response = self.hook.poll(earlier.poll_url, self.run_name)
        store.add_usage(earlier_usage(earlier, response), self.asset, self.asset_page or "")

    def _poll(self, poll_url: str) -> ModelResponse:
        """Poll once, or for a minute while the platform does not know the run."""
        response = self.hook.poll(poll_url, self.run_name)
        for _ in range(NOT_FOUND_ATTEMPTS - 1):
            if not is_not_found(response):
                break
            time.sleep(NOT_FOUND_DELAY)
            response = self.hook.poll(poll_url, self.run_name)
        return response

    def _refuse_nested(self, context: Context) -> None:
        defers = self.deferrable and self.wait_for_completion
        refuse_nested(self, context, releases_worker=defers, remedy="deferrable=False")

    def _submit(self) -> ModelResponse:
        return self.hook.submit(self.run_input(), self.run_name)
