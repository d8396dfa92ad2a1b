"""The operator: runs a model as a task."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow_provider_aixplain import compat
from airflow_provider_aixplain.exceptions import (
    AixplainError,
    AixplainInputError,
    AixplainPermanentError,
    AixplainRunTimeout,
    submission_error,
    translate_protocol_errors,
)
from airflow_provider_aixplain.observability.metrics import count_end, count_wait
from airflow_provider_aixplain.operators.arguments import deferrable_or_default, is_nested, one_of, refuse_nested
from airflow_provider_aixplain.operators.base import DeferrableRunBaseOperator
from airflow_provider_aixplain.placement import PLACEMENT
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus, format_cost
from airflow_provider_aixplain.protocol.resumption import Action, Submission, decide, is_not_found, is_rejected
from airflow_provider_aixplain.protocol.values import to_printable
from airflow_provider_aixplain.protocol.wait import MAX_DURATION, RETRY_BUDGET, Wait
from airflow_provider_aixplain.submission import (
    NOT_FOUND_ATTEMPTS,
    NOT_FOUND_DELAY,
    TaskStateIdempotencyStore,
    log_resubmission,
    now,
    seconds_since,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

# The hook, the triggers and streams are imported where they are used, so that DAG files are parsed quickly.


class _StartTriggerArgs:
    """The attribute from which Airflow reads the trigger that starts a task, or None.

    It is computed when the DAG is serialized: only then are all reasons against a trigger known. It is None on the
    class, so that a worker starts mapped tasks.
    """

    def __get__(self, task: AixplainRunModelOperator | None, kind: type[AixplainRunModelOperator]) -> Any:
        if task is None:
            return None
        try:
            return PLACEMENT.start_trigger_args(task)
        except AttributeError as error:  # Airflow would read it as "no such attribute", and start the task on a worker
            raise compat.UnsupportedAirflowError(f"attribute for start_from_trigger: {error}") from error


class AixplainRunModelOperator(DeferrableRunBaseOperator):
    """Runs a model on aiXplain and returns its response.

    A worker submits the run and is free again; a trigger waits for the run; a worker returns the result. The task
    returns the :class:`~airflow_provider_aixplain.model.ModelResponse` as a dict and pushes it as ``return_value``.
    Each field is also an XCom of its own: ``status``, ``data``, ``details``, ``completed``, ``error_message``,
    ``used_credits``, ``run_time``, ``usage``, ``url``, ``error_code``, ``asset`` and ``additional_fields``.

    :param model_id: the model's id on the platform. (templated)
    :param data: the input: a string, or any value that JSON can hold. A string that contains a JSON object sets
        parameters too: for text from outside use ``{"data": text}``. An
        :class:`~airflow_provider_aixplain.files.Upload` anywhere in it, or in ``parameters``, is uploaded, and sent as
        a link. (templated)
    :param parameters: further parameters of the model, by name. (templated)
    :param name: the name of the run in the log; default: the task's id. (templated)
    :param aixplain_conn_id: the id of a Connection of type ``aixplain``. (templated)
    :param wait_for_completion: if False, the task returns the submission's response, whose ``url`` is the poll URL.
    :param deferrable: if False, the task waits on the worker; default: ``[aixplain] deferrable`` of Airflow's
        configuration, which is True unless set.
    :param stream: whether to write the model's text to the task's log while it is generated. The task holds its worker
        until the text is complete, and returns the whole text. The model has to support streaming.
    :param wait_time: seconds before the second poll, at least 0.2; increases by 10 % a poll up to 60 seconds.
    :param timeout: how long to wait for the run, in seconds or as a timedelta; default: a day. The run itself
        continues, as the platform cannot cancel it.
    :param durable: whether a later try of the task resumes the run of an earlier try instead of paying for another
        (Airflow 3.3 and later; below it each try submits). A run that failed is submitted again.
    :param end_from_trigger: whether the trigger finishes the task when its run has succeeded, and pushes the XComs, so
        that no worker is started for that. A worker still finishes a task that would lose something, such as outlets,
        an ``on_success_callback``, a listener, an XCom backend or a response of more than 128 KiB, and the task's log
        states why. Runs that fail are always finished by a worker.
    :param start_from_trigger: whether the trigger submits the run too, so that no worker starts the task (Airflow 3.3
        and later); with ``end_from_trigger`` no worker is needed. No pool and no ``max_active_tasks`` limits such
        tasks. A worker still submits for a task that would lose something, such as mapped tasks, files, streams or
        templates that only a worker can render, and the task's log states why.
    :param on_orphaned_submission: what to do if an earlier try started a submission and it is unknown whether the
        platform accepted it: ``resubmit``, with a warning, or ``fail``, until the task is cleared.
    :param polling: ``backoff``: at intervals that grow from ``wait_time``; or ``adaptive``: rarely while the run is
        unlikely to have finished and often when it is likely to, by the durations of the model's earlier runs in the
        same triggerer. Without such durations, and on a worker, it is the same as ``backoff``.
    :param multiple_outputs: whether each field is an XCom of its own.
    :raises AixplainInputError: if an argument can make no valid request.
    """

    template_fields: Sequence[str] = ("model_id", "data", "parameters", "name", "aixplain_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"data": "json", "parameters": "json"}
    ui_color = "#e5f0ff"
    start_trigger_args = _StartTriggerArgs()

    def __init__(
        self,
        *,
        model_id: str,
        data: Any,
        parameters: Mapping[str, Any] | None = None,
        name: str | None = None,
        aixplain_conn_id: str = "aixplain_default",
        wait_for_completion: bool = True,
        deferrable: bool | None = None,
        stream: bool = False,
        wait_time: float | timedelta = 0.5,
        timeout: float | timedelta = 86400,
        durable: bool = True,
        end_from_trigger: bool = False,
        start_from_trigger: bool = False,
        on_orphaned_submission: Literal["resubmit", "fail"] = "resubmit",
        polling: Literal["backoff", "adaptive"] = "backoff",
        multiple_outputs: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(multiple_outputs=multiple_outputs, **kwargs)
        self.model_id = model_id
        self.data = data
        self.parameters = parameters
        self.name = name
        self.aixplain_conn_id = aixplain_conn_id
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable_or_default(deferrable)
        self.stream = stream
        if stream and not wait_for_completion:
            raise AixplainInputError("stream and wait_for_completion=False: choose one, as a stream is read to its end")
        self.durable = durable
        self.ends_from_trigger = end_from_trigger
        self.start_from_trigger = start_from_trigger
        self.on_orphaned_submission = one_of("on_orphaned_submission", on_orphaned_submission, "resubmit", "fail")
        self.polling = one_of("polling", polling, "backoff", "adaptive")
        with translate_protocol_errors():
            wait = Wait(wait_time=wait_time, timeout=timeout)
        self.wait_time = wait.wait_time
        self.timeout = wait.timeout
        self._submission: Submission | None = None

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
        self.check_templates("model_id", "data", "parameters")
        self.warn_of_payload(self.data)
        fingerprint = self.hook.fingerprint(self.model_id, self.data, self.parameters)
        self.set_link(context)
        response = self._reattach(earlier, fingerprint, store)
        if earlier is not None and response is not None:
            submission, age = earlier, seconds_since(earlier.submitted_at)
        else:
            submission, age = Submission(fingerprint, now()), 0.0
            response = self._submit_and_record(submission, store)
        is_final = response.status is ResponseStatus.SUCCESS
        submission = replace(submission, poll_url=response.url, is_delivered=is_final or not self.wait_for_completion)
        self._submission = submission
        store.write_accepted(submission)
        if is_final or not self.wait_for_completion:
            return self._return_at_once(response)
        return self._wait_for_run(context, submission, age)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Return the result of the run, or raise its error, and update the stored record."""
        self._submission = None
        if event["status"] == "success":
            self._open_store(context).mark_delivered()
        elif event["status"] == "failed":
            self._open_store(context).clear()
        return super().execute_complete(context, event)

    def on_kill(self) -> None:
        """Log that the run continues although the task was ended on its worker."""
        submission = self._submission
        if submission is None or submission.is_delivered:
            return
        if submission.poll_url is None:
            message = "%s: the task was ended during its submission. If the platform accepted it, the run is billed"
            self.log.warning(message, self.run_name)
            return
        message = "%s: the task was ended. Its run continues and is billed, as the platform cannot cancel it: %s"
        self.log.warning(message, self.run_name, to_printable(submission.poll_url))

    def _log_start_on_worker(self) -> None:
        """Log why a worker starts this task."""
        # The templates of this task are rendered. The scheduler decided about the unrendered task, which the DAG holds.
        planned = self.dag.get_task(self.task_id) if self.has_dag() else self  # type: ignore[no-untyped-call]
        loss = PLACEMENT.reason_not_start(planned if isinstance(planned, type(self)) else self)
        reason = f"a trigger would lose {loss}" if loss else "this task was started on a worker"
        self.log.info("%s: a worker submits the run, as %s", self.run_name, reason)

    def _return_at_once(self, response: ModelResponse) -> dict[str, Any]:
        """Return the response to a submission that no trigger waits for."""
        is_final = response.status is ResponseStatus.SUCCESS
        if is_final:
            self.log.info("%s: %s succeeded after %s", self.run_name, self.subject, format_cost(response))
            self.log_warning(response)
        self.response = response.to_dict()
        count_end(self.model_id, "success" if is_final else "submitted", self.response)
        return self.response

    def _wait_for_run(self, context: Context, submission: Submission, age: float) -> dict[str, Any]:
        """Defer, or wait on the worker.

        :param age: the seconds between the submission and this try.
        """
        poll_url = submission.poll_url or ""
        self.hook.platform.check_trusted(poll_url)
        timeout = self.longest_wait
        if self.deferrable:
            timeout = min(timeout + age, MAX_DURATION)
            self._defer(self.run_settings(poll_url=poll_url, submitted_at=submission.submitted_at, timeout=timeout))
        wait = Wait(wait_time=self.wait_time, timeout=timeout, retry_budget=RETRY_BUDGET)
        outcome = self.hook.wait_for_run(poll_url, wait, self.run_name)
        count_wait(self.model_id, outcome, wait.polls, seconds_since(submission.submitted_at))
        return self.execute_complete(context, outcome.to_event(poll_url))

    def _submit_and_record(self, submission: Submission, store: TaskStateIdempotencyStore) -> ModelResponse:
        """Submit the run.

        :return: a response in progress, or a final and successful one.
        :raises AixplainError: if the platform refused the submission, or the run has failed.
        """
        store.write_intent(submission)
        self._submission = submission
        try:
            response = self._stream() if self.stream else self._submit()
        except AixplainRunTimeout:
            count_end(self.model_id, "timeout", None)
            raise
        except (AixplainError, OSError):
            # Raised before anything is sent, by the input or its files; a request that fails returns a response.
            store.clear()
            raise
        if response.status is ResponseStatus.FAILED:
            if is_rejected(response):
                store.clear()
            outcome = "failed" if response.failure is None else "refused" if is_rejected(response) else "orphaned"
            count_end(self.model_id, outcome, response.to_dict())
            raise submission_error(response, self.model_id, "the stream" if self.stream else "the submission")
        if response.status is ResponseStatus.IN_PROGRESS:
            self.log.info("%s: submitted a run of %s: %s", self.run_name, self.subject, to_printable(response.url))
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
        response, poll_url = None, earlier.poll_url if earlier else None
        if decision.action is Action.REATTACH and poll_url:
            response = self._poll(poll_url)
            decision = decide_now(response=response)
        if decision.action is Action.FAIL:
            store.clear()
            raise AixplainPermanentError(f"Model {self.model_id}: {decision.reason}. Clear the task to submit again")
        if decision.action is Action.RESUBMIT or response is None:
            log_resubmission(self.log, self.run_name, decision)
            return None
        self.log.info("%s: re-attached to the run of an earlier try: %s", self.run_name, to_printable(poll_url))
        if response.completed:
            response.url = response.url or poll_url
            return response
        # A failed poll describes the network or the key, not the run.
        return ModelResponse(ResponseStatus.IN_PROGRESS, url=poll_url)

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

    def _open_store(self, context: Context) -> TaskStateIdempotencyStore:
        # The store belongs to the outer task, and would mix up the runs of several calls within that task.
        return TaskStateIdempotencyStore(context, durable=self.durable and not is_nested(self, context))

    def _submit(self) -> ModelResponse:
        return self.hook.run_async(self.model_id, self.data, self.run_name, self.parameters)

    def _stream(self) -> ModelResponse:
        """Return the complete answer of a stream, or the response of a model that does not stream after all."""
        from airflow_provider_aixplain.operators.log_lines import LineBuffer
        from airflow_provider_aixplain.protocol.stream import Transcript

        start = time.monotonic()
        transcript, lines = Transcript(), LineBuffer()
        with self.hook.run_stream(self.model_id, self.data, self.parameters, self.timeout) as chunks:
            self.log.info("%s: output of model %s:", self.run_name, self.model_id)
            for chunk in chunks:
                for line in lines.add(transcript.add(chunk)):
                    self.log.info("%s", line)
        for line in lines.end():
            self.log.info("%s", line)
        response = transcript.response()
        if response.failure and response.failure.status_code is None and time.monotonic() - start >= self.timeout:
            raise AixplainRunTimeout(f"Model {self.model_id}: its stream did not finish within {self.timeout:g} s")
        return response
