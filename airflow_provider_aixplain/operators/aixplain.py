"""The operator: runs a model as a task."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal

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
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus, format_cost
from airflow_provider_aixplain.protocol.values import to_printable
from airflow_provider_aixplain.protocol.wait import MAX_DURATION, RETRY_BUDGET, Wait
from airflow_provider_aixplain.submission import (
    NOT_FOUND_ATTEMPTS,
    NOT_FOUND_DELAY,
    Submission,
    TaskStateIdempotencyStore,
    is_not_found,
    is_rejected,
    now,
)
from airflow_provider_aixplain.workerless.eligibility import (
    reason_not_end_from_trigger,
    reason_not_start_from_trigger,
    with_xcom_references,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

# The hook, the triggers and streams are imported where they are used: DAG files, which are parsed again and again, do
# without them.


class _StartTriggerArgs:
    """What Airflow's scheduler makes a task's trigger of, if the trigger starts the task.

    It is read when the DAG is serialized: only then all is known that can stand against it. A class has none, and so a
    mapped task, which Airflow does not start from the triggerer.
    """

    def __get__(self, task: AixplainRunModelOperator | None, kind: type[AixplainRunModelOperator]) -> Any:
        if task is None or not task.start_from_trigger or reason_not_start_from_trigger(task):
            return None
        return task.start_arguments()


class AixplainRunModelOperator(DeferrableRunBaseOperator):
    """Runs a model on aiXplain and returns its response.

    The worker submits the run and is free; a trigger waits for its end; a worker takes the result. Returned, and pushed
    as ``return_value``, is the :class:`~airflow_provider_aixplain.model.ModelResponse` as a dict; each of its fields
    is an XCom of its own name as well: ``status``, ``data``, ``details``, ``completed``, ``error_message``,
    ``used_credits``, ``run_time``, ``usage``, ``url``, ``error_code``, ``asset`` and ``additional_fields``.

    :param model_id: the model's id on the platform. (templated)
    :param data: the input: text, or any value that JSON can hold. Text that holds a JSON object sets parameters too:
        for text from outside use ``{"data": text}``. An :class:`~airflow_provider_aixplain.files.Upload` anywhere in
        it, or in ``parameters``, is uploaded, and sent as a link. (templated)
    :param parameters: further parameters of the model, by name. (templated)
    :param name: what the log calls the run; default: the task's id. (templated)
    :param aixplain_conn_id: the id of a Connection of type ``aixplain``. (templated)
    :param wait_for_completion: if False, the task ends with the submission's response, whose ``url`` is the poll URL.
    :param deferrable: if False, the task waits on the worker; default: ``[aixplain] deferrable`` of Airflow's
        configuration, which is True unless set.
    :param stream: whether to write the model's text to the task's log as it is made, and return the whole of it. That
        holds the worker as long as the model writes, and needs a model that supports streaming.
    :param wait_time: seconds before the second poll, at least 0.2; grows by 10 % a poll up to 60 seconds.
    :param timeout: how long to wait for the end of the run, in seconds or as a timedelta; default: a day. The run
        itself goes on after it, as the platform cannot cancel it.
    :param durable: whether a later try of the task goes on with the run of an earlier one instead of paying for another
        (Airflow 3.3 and later; below it each try submits). A run that failed is submitted again.
    :param end_from_trigger: whether the trigger ends the task when its run has succeeded, and pushes the XComs, so that
        no worker is started to pass a result on. Where that would lose something, as outlets, an
        ``on_success_callback``, a listener, an XCom backend or a response of more than 128 KiB, a worker takes the
        result all the same, and the task's log says why. Runs that fail end on a worker, with their reason.
    :param start_from_trigger: whether the trigger submits the run too, so that no worker starts the task (Airflow 3.3
        and later); with ``end_from_trigger`` none is needed at all. No pool and no ``max_active_tasks`` then bounds how
        many run. Where that would lose something, as of mapped tasks, files, streams or templates that only a worker
        can render, a worker submits all the same, and the task's log says why.
    :param on_orphaned_submission: what to do if an earlier try began a submission and never learnt whether it was
        accepted: ``resubmit``, with a warning, or ``fail``, until somebody clears the task.
    :param polling: ``backoff``: poll as ``wait_time`` says; or ``adaptive``: as the triggerer has learnt from earlier
        runs of the model, seldom while this one can hardly be over and often when it is likely to be. Where it has
        learnt nothing, and on a worker, that is as ``backoff``.
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
            raise AixplainInputError("stream and wait_for_completion=False: choose one, a stream is read to its end")
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
        """What the log calls the run."""
        return self.name or self.task_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Submit the run, or find the one that an earlier try has submitted, and defer until it is over.

        :return: the response as a dict.
        :raises AixplainInputError: if it would defer within another task.
        """
        self._refuse_nested(context)
        if self.start_from_trigger:
            # This one's templates are rendered; the one that its DAG holds has what the scheduler has seen.
            planned = self.dag.get_task(self.task_id) if self.has_dag() else self  # type: ignore[no-untyped-call]
            loss = reason_not_start_from_trigger(planned if isinstance(planned, type(self)) else self)
            why = f"a trigger that starts the task loses {loss}" if loss else "this task was started on one"
            self.log.info("%s: a worker submits the run, as %s", self.run_name, why)
        record = self._record(context)
        self._submission = earlier = record.read()
        if record.rerun_reason:
            self.log.info("%s: %s", self.run_name, record.rerun_reason)
        self.check_templates("model_id", "data", "parameters")
        self.warn_of_payload(self.data)
        fingerprint = self.hook.fingerprint(self.model_id, self.data, self.parameters)
        self.set_link(context)
        response = self._resume(earlier, fingerprint, record) if earlier else None
        if earlier is not None and response is not None:
            submission, age = earlier, earlier.age
        else:
            submission, age = Submission(fingerprint, now()), 0.0
            response = self._begin(submission, record)
        is_over = response.status is ResponseStatus.SUCCESS
        submission = replace(submission, poll_url=response.url, is_delivered=is_over or not self.wait_for_completion)
        self._submission = submission
        record.update(submission)
        poll_url = response.url or ""
        if is_over:
            self.log.info("%s: %s answered after %s", self.run_name, self.subject, format_cost(response))
            self.log_warning(response)
        else:
            self.log.info("%s: the run of %s is at %s", self.run_name, self.subject, poll_url)
        if is_over or not self.wait_for_completion:
            self.response = response.to_dict()
            count_end(self.model_id, "success" if is_over else "submitted", self.response)
            return self.response
        self.hook.platform.check(poll_url)
        timeout = self.longest_wait
        if self.deferrable:
            self._defer(poll_url, submission.submitted_at, min(timeout + age, MAX_DURATION))
        wait = Wait(wait_time=self.wait_time, timeout=timeout, retry_budget=RETRY_BUDGET)
        outcome = self.hook.wait_for_run(poll_url, wait, self.run_name)
        count_wait(self.model_id, outcome, wait.polls, submission.age)
        return self.execute_complete(context, outcome.to_event(poll_url))

    def start_arguments(self) -> Any:
        """Return what Airflow's scheduler makes the trigger of that starts this task: a ``StartTriggerArgs``."""
        from airflow.triggers.base import StartTriggerArgs

        from airflow_provider_aixplain.triggers.aixplain import AixplainModelStartTrigger

        arguments = {
            "model_id": self.model_id,
            "data": self.data,
            "parameters": self.parameters,
            "name": self.name,
            "aixplain_conn_id": self.aixplain_conn_id,
            "wait_time": self.wait_time,
            "timeout": self.timeout,
            "durable": self.durable,
            "on_orphaned_submission": self.on_orphaned_submission,
            "end_from_trigger": self.ends_from_trigger,
            "reason_not_end_from_trigger": reason_not_end_from_trigger(self) if self.ends_from_trigger else None,
            "multiple_outputs": bool(self.multiple_outputs),
            "polling": self.polling,
        }
        return StartTriggerArgs(
            trigger_cls=f"{AixplainModelStartTrigger.__module__}.{AixplainModelStartTrigger.__qualname__}",
            trigger_kwargs={name: with_xcom_references(value) for name, value in arguments.items()},
            next_method="resume_from_trigger",
        )

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Take the end of the run, and let the record know."""
        self._submission = None
        if event["status"] == "success":
            self._record(context).deliver()
        elif event["status"] == "failed":
            self._record(context).forget()
        return super().execute_complete(context, event)

    def on_kill(self) -> None:
        """Tell whoever has ended the task on its worker that its run goes on."""
        submission = self._submission
        if submission is None or submission.is_delivered:
            return
        if submission.poll_url is None:
            told = "%s: the task is being ended in the middle of its submission. If that has arrived, a run goes on"
            self.log.warning(told, self.run_name)
            return
        told = "%s: the task is being ended. Its run goes on, and is billed, as the platform cannot cancel it: %s"
        self.log.warning(told, self.run_name, to_printable(submission.poll_url))

    def _begin(self, submission: Submission, record: TaskStateIdempotencyStore) -> ModelResponse:
        """Submit the run.

        :return: in progress, or final and successful.
        :raises AixplainError: if it was refused, or has failed.
        """
        record.begin(submission)
        self._submission = submission
        try:
            response = self._stream() if self.stream else self._submit()
        except AixplainRunTimeout:
            count_end(self.model_id, "timeout", None)
            raise
        except (AixplainError, OSError):
            # Raised before anything is sent, of the input or its files: what goes wrong on the way is a response.
            record.forget()
            raise
        if response.status is ResponseStatus.FAILED:
            if is_rejected(response):
                record.forget()
            outcome = "failed" if response.failure is None else "refused" if is_rejected(response) else "orphaned"
            count_end(self.model_id, outcome, response.to_dict())
            raise submission_error(response, self.model_id, "the stream" if self.stream else "the submission")
        return response

    def _resume(self, earlier: Submission, fingerprint: str, record: TaskStateIdempotencyStore) -> ModelResponse | None:
        """Return how the run of an earlier try is doing, or None if this try has to submit.

        :raises AixplainPermanentError: if an orphaned submission is to end the task.
        """
        if earlier.poll_url is None:
            if self.on_orphaned_submission == "fail":
                record.forget()
                raise AixplainPermanentError(
                    f"Model {self.model_id}: {earlier.orphan_message}. Clear the task to submit again."
                )
            self.log.warning("%s: %s. Submitting again", self.run_name, earlier.orphan_message)
            return None
        useless = earlier.reason_not_resumable(fingerprint)
        if not useless:
            response = self._ask(earlier.poll_url)
            useless = earlier.reason_not_resumable(fingerprint, response)
        if useless:
            self.log.warning("%s: submitting again, as %s", self.run_name, useless)
            return None
        self.log.info("%s: going on with the run of an earlier try: %s", self.run_name, earlier.poll_url)
        if response.completed:
            response.url = response.url or earlier.poll_url
            return response
        # A poll that brings no news tells of the way to the platform, or of the key, and not of the run.
        return ModelResponse(ResponseStatus.IN_PROGRESS, url=earlier.poll_url)

    def _ask(self, poll_url: str) -> ModelResponse:
        """Poll, for a minute if the platform does not know the run."""
        response = self.hook.poll(poll_url, self.run_name)
        for _ in range(NOT_FOUND_ATTEMPTS - 1):
            if not is_not_found(response):
                break
            time.sleep(NOT_FOUND_DELAY)
            response = self.hook.poll(poll_url, self.run_name)
        return response

    def _refuse_nested(self, context: Context) -> None:
        defers = self.deferrable and self.wait_for_completion
        refuse_nested(self, context, gives_up_worker=defers, remedy="deferrable=False")

    def _record(self, context: Context) -> TaskStateIdempotencyStore:
        # The store of an outer task cannot tell apart the runs that several calls within it submit.
        return TaskStateIdempotencyStore(context, durable=self.durable and not is_nested(self, context))

    def _submit(self) -> ModelResponse:
        return self.hook.run_async(self.model_id, self.data, self.run_name, self.parameters)

    def _stream(self) -> ModelResponse:
        """Return the whole answer of a stream; or, of a model that does not stream after all, what it made of it."""
        from airflow_provider_aixplain.operators.log_lines import LineBuffer
        from airflow_provider_aixplain.protocol.stream import Transcript

        start = time.monotonic()
        transcript, lines = Transcript(), LineBuffer()
        with self.hook.run_stream(self.model_id, self.data, self.parameters, self.timeout) as chunks:
            self.log.info("%s: model %s begins to answer:", self.run_name, self.model_id)
            for chunk in chunks:
                for line in lines.add(transcript.add(chunk)):
                    self.log.info("%s", line)
        for line in lines.end():
            self.log.info("%s", line)
        response = transcript.response()
        if response.failure and response.failure.status_code is None and time.monotonic() - start >= self.timeout:
            raise AixplainRunTimeout(f"Model {self.model_id}: its stream was not over after {self.timeout:g} s")
        return response
