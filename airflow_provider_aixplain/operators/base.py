"""What operator and sensor share: a task that waits for a run in a trigger, and takes its end."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import BaseOperatorLink

from airflow_provider_aixplain.exceptions import (
    AixplainError,
    AixplainPermanentError,
    AixplainRunFailed,
    AixplainRunTimeout,
    from_event,
)
from airflow_provider_aixplain.observability.links import MODEL_LINK, is_stored_by_airflow
from airflow_provider_aixplain.observability.metrics import count_end, outcome_of
from airflow_provider_aixplain.operators.arguments import RESUMED_WITHOUT_EVENT
from airflow_provider_aixplain.protocol.response import ModelResponse, format_cost
from airflow_provider_aixplain.protocol.values import to_printable
from airflow_provider_aixplain.protocol.wait import RETRY_BUDGET, Wait
from airflow_provider_aixplain.submission import now, seconds_since
from airflow_provider_aixplain.templates import TemplatedOperator
from airflow_provider_aixplain.workerless.eligibility import reason_not_end_from_trigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_aixplain.hooks.aixplain import AixplainHook

# The hook, the triggers and streams are imported where they are used: DAG files, which are parsed again and again, do
# without them.

GRACE = timedelta(minutes=1)
"""How much longer than an ``execution_timeout`` a task may stay deferred, where no triggerer ends its wait."""


class DeferrableRunBaseOperator(TemplatedOperator):
    """A task that defers until a run has finished; a worker resumes it in :meth:`resume_from_trigger`."""

    aixplain_conn_id: str
    wait_time: float
    timeout: float
    ends_from_trigger: bool
    """The argument ``end_from_trigger``. An attribute of that name makes Airflow refuse the DAG wherever there is any
    listener; here such tasks end on a worker."""

    polling: str = "backoff"
    model_id: str = ""

    model_page: str | None = None
    """The URL of the model's page; empty if no model is named, None if it is not looked up."""

    response: dict[str, Any] | None = None
    """The ModelResponse of the run, once it is over, for listeners."""

    _has_link = False

    @property
    def operator_extra_links(self) -> Collection[BaseOperatorLink]:  # type: ignore[override] # Airflow takes both
        """The link to the model. The first visit of a worker stores it; the last one leaves it unchanged."""
        # Airflow asks this of a mapped task too, which is none of these.
        return () if getattr(self, "_has_link", False) else (MODEL_LINK,)

    @property
    def run_name(self) -> str:
        """What the log calls the run."""
        return self.task_id

    @property
    def subject(self) -> str:
        """What errors and the log call what they tell of."""
        return f"model {self.model_id}" if self.model_id else "the run"

    @property
    def longest_wait(self) -> float:
        """The seconds after which a try of this task stops waiting."""
        limit = self.execution_timeout
        return min(self.timeout, limit.total_seconds()) if limit else self.timeout

    @cached_property
    def hook(self) -> AixplainHook:
        """The hook that carries this task's calls."""
        from airflow_provider_aixplain.hooks.aixplain import AixplainHook

        return AixplainHook(self.aixplain_conn_id)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on where the task was deferred."""
        self._has_link = True
        return super().resume_execution(next_method, next_kwargs, context)

    def resume_from_trigger(
        self,
        context: Context,
        event: dict[str, Any] | None = None,
        submitted_at: str | None = None,
        timeout: float | None = None,
        poll_url: str | None = None,
    ) -> dict[str, Any]:
        """Take the event of the trigger, and fetch the response if it is too large for one.

        :param event: the payload of the event of the trigger; without it the run is polled here.
        :param submitted_at: the trigger's; a task that its trigger has started does not know it, and waits on from now.
        :param timeout: the trigger's.
        :param poll_url: the trigger's.
        :return: what :meth:`execute_complete` makes of it.
        :raises AixplainError: if there is no run, or neither an event nor a poll URL.
        """
        if event is None:
            if poll_url is None:
                raise AixplainError(RESUMED_WITHOUT_EVENT)
            self.log.warning(
                "%s: %s. Polling the run: %s", self.run_name, RESUMED_WITHOUT_EVENT, to_printable(poll_url)
            )
            event = {"status": "success", "response": None, "poll_url": poll_url}
        if submitted_at is None:
            self._has_link = False  # no worker has been here before
            self.set_link(context)
        if event["status"] == "refused":
            error = from_event(event["error"])
            count_end(self.model_id, outcome_of(error), None)
            raise error
        if event["status"] == "success" and event["response"] is None:
            event = self._fetch(event["poll_url"], submitted_at or now(), self.timeout if timeout is None else timeout)
        return self.execute_complete(context, event)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Take the end of the run.

        :param event: the payload of the event of :class:`AixplainModelRunTrigger`, with the response, also if it is
            large.
        :return: the response as a dict.
        :raises AixplainRunFailed: if the model ran and failed.
        :raises AixplainRunTimeout: if the run was not over in time.
        :raises AixplainPermanentError: if the platform refuses to tell, or the Connection cannot work.
        """
        response: dict[str, Any] = event["response"]
        self.response = response
        count_end(self.model_id, event["status"], response)
        if event["status"] == "success":
            self.log.info("%s: %s is done after %s", self.run_name, self.subject, format_cost(response))
            self.log_warning(response)
            return response
        error, what = _ENDS[event["status"]]
        subject = f"{self.subject[0].upper()}{self.subject[1:]}"
        raise error(f"{subject}: {what}: {event['message']} (poll URL: {event['poll_url']})")

    def log_warning(self, response: Mapping[str, Any] | ModelResponse) -> None:
        """Log the warning in the response of a run that succeeded, such as a status that is not known."""
        if warning := response["error_message"]:
            self.log.warning("%s: the run succeeded with a warning: %s", self.run_name, to_printable(warning))

    def set_link(self, context: Context) -> None:
        """Look up the URL of the model's page for this task's link; a task that cannot goes without the link."""
        try:
            self.model_page = self.hook.platform.model_page(self.model_id) if self.model_id else ""
            task_instance = context.get("ti")
            if task_instance is not None and not is_stored_by_airflow():
                task_instance.xcom_push(key=MODEL_LINK.xcom_key, value=self.model_page)
        except Exception as error:
            self.log.warning("%s: no link to the model: %s: %s", self.run_name, type(error).__name__, error)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return what the openlineage provider, which alone calls this, is to know of the run."""
        from airflow_provider_aixplain.observability.lineage import lineage_of

        return lineage_of(self.model_id, self.response)

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> Any:
        """Return what it is to know of a run that failed."""
        return self.get_openlineage_facets_on_complete(task_instance)

    def _defer(self, poll_url: str, submitted_at: str, timeout: float) -> NoReturn:
        """Let a trigger wait.

        :param timeout: seconds after the submission when to stop.
        """
        from airflow_provider_aixplain.triggers.aixplain import AixplainModelRunTrigger

        self.log.info("%s: the triggerer waits for its end", self.run_name)
        loss = reason_not_end_from_trigger(self) if self.ends_from_trigger else None
        if loss:
            self.log.info(
                "%s: a worker takes the result, as a trigger that ends the task loses %s", self.run_name, loss
            )
        limit = self.execution_timeout
        self.defer(
            trigger=AixplainModelRunTrigger(
                poll_url=poll_url,
                aixplain_conn_id=self.aixplain_conn_id,
                wait_time=self.wait_time,
                timeout=timeout,
                submitted_at=submitted_at,
                end_from_trigger=self.ends_from_trigger and not loss,
                do_xcom_push=self.do_xcom_push,
                multiple_outputs=bool(self.multiple_outputs),
                polling=self.polling,
                model_id=self.model_id,
            ),
            method_name="resume_from_trigger",
            kwargs={"submitted_at": submitted_at, "timeout": timeout, "poll_url": poll_url},
            # Where no triggerer runs, Airflow itself keeps an execution_timeout; otherwise the trigger tells more.
            timeout=limit + GRACE if limit else None,
        )

    def _fetch(self, poll_url: str, submitted_at: str, timeout: float) -> dict[str, Any]:
        """Return the event of a run whose response is too large for the triggerer; wait on if it does not come."""
        from airflow_provider_aixplain.client.blocking import MAX_POLL_TIMEOUT

        response = self.hook.poll_tolerant(poll_url, self.run_name, MAX_POLL_TIMEOUT)
        outcome = Wait(self.wait_time, timeout, RETRY_BUDGET).judge(response, seconds_since(submitted_at))
        if outcome is None:
            told = "%s: its response did not come, and is asked for again: %s"
            self.log.warning(told, self.run_name, to_printable(response.error_message or response.status))
            self._defer(poll_url, submitted_at, timeout)
        return outcome.to_event(poll_url)


_ENDS: dict[str, tuple[type[AixplainError], str]] = {
    "failed": (AixplainRunFailed, "the run failed"),
    "timeout": (AixplainRunTimeout, "stopped waiting; the run goes on"),
    "error": (AixplainPermanentError, "cannot learn how the run ended"),
}
