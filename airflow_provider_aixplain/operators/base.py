"""The base of operator and sensor: a task that waits for a run in a trigger and is resumed with its result."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow_provider_aixplain import compat
from airflow_provider_aixplain.compat import BaseOperatorLink
from airflow_provider_aixplain.exceptions import (
    AixplainError,
    AixplainPermanentError,
    AixplainRunFailed,
    AixplainRunTimeout,
    from_event,
)
from airflow_provider_aixplain.observability.links import ASSET_LINK
from airflow_provider_aixplain.observability.metrics import RunMetrics, outcome_of
from airflow_provider_aixplain.observability.outlets import add_to_outlet_events
from airflow_provider_aixplain.operators.arguments import RESUMED_WITHOUT_EVENT, is_nested
from airflow_provider_aixplain.placement import PLACEMENT
from airflow_provider_aixplain.protocol.assets import Asset
from airflow_provider_aixplain.protocol.response import ModelResponse, format_cost
from airflow_provider_aixplain.protocol.usage import USAGE_KEY, run_usage
from airflow_provider_aixplain.protocol.values import fields_with_values, to_printable
from airflow_provider_aixplain.protocol.wait import RETRY_BUDGET, Wait
from airflow_provider_aixplain.run_settings import RunSettings
from airflow_provider_aixplain.submission import (
    TaskStateIdempotencyStore,
    now,
    pull_usage,
    push_xcoms,
    seconds_since,
)
from airflow_provider_aixplain.templates import TemplatedOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_aixplain.hooks.aixplain import AixplainHook

# The hook, the triggers and streams are imported where they are used, so that DAG files are parsed quickly.

GRACE = timedelta(minutes=1)
"""The time after ``execution_timeout`` at which Airflow ends a deferral that no triggerer has ended."""


class DeferrableRunBaseOperator(TemplatedOperator):
    """A task that defers until a run has finished; a worker resumes it in :meth:`resume_from_trigger`."""

    input_fields: ClassVar[tuple[str, ...]] = ()
    """The templated arguments that are the run's input."""

    artifacts_path: Any = None
    """The folder in which the task stores what the run has created."""

    aixplain_conn_id: str
    wait_time: float
    timeout: float
    ends_from_trigger: bool
    """The argument ``end_from_trigger``. If there is any listener, Airflow refuses a DAG whose task has an attribute of
    that name, while this provider lets a worker finish the task."""

    polling: str = "backoff"
    durable: bool = False

    asset_page: str | None = None
    """The URL of the page of the model or agent; empty if none is named, None if it was not looked up."""

    response: dict[str, Any] | None = None
    """The ModelResponse of the finished run, for listeners."""

    submitted_at: str | None = None
    """When the run was submitted, in ISO 8601; None if it is not known."""

    _is_link_stored = False

    _store: TaskStateIdempotencyStore | None = None

    _usage_of_trigger: Mapping[str, Any] | None = None
    """The usage record that a trigger has pushed, if no worker has started this task."""

    @property
    def operator_extra_links(self) -> Collection[BaseOperatorLink]:  # type: ignore[override] # Airflow takes both
        """The link to the model or agent. Only the worker that starts the task stores it."""
        # Airflow also reads this property of a mapped task, where ``self`` is not an instance of this class.
        return () if getattr(self, "_is_link_stored", False) else (ASSET_LINK,)

    @property
    def run_name(self) -> str:
        """The name of the run in the log."""
        return self.task_id

    @property
    def asset(self) -> Asset:
        """The model or agent that is run; its id is empty if it is not known."""
        raise NotImplementedError

    @property
    def longest_wait(self) -> float:
        """The seconds after which a try of this task stops waiting."""
        limit = self.execution_timeout
        return min(self.timeout, limit.total_seconds()) if limit else self.timeout

    @cached_property
    def hook(self) -> AixplainHook:
        """The hook that makes this task's calls."""
        from airflow_provider_aixplain.hooks.aixplain import AixplainHook

        return AixplainHook(self.aixplain_conn_id)

    def run_settings(self, **run: Any) -> RunSettings:
        """Return this task's settings for a trigger.

        :param run: the fields of :class:`RunSettings` that belong to one run, such as ``poll_url``.
        """
        settings = {
            "aixplain_conn_id": self.aixplain_conn_id,
            "wait_time": self.wait_time,
            "timeout": self.timeout,
            "end_from_trigger": self.ends_from_trigger,
            "do_xcom_push": self.do_xcom_push,
            "multiple_outputs": bool(self.multiple_outputs),
            "polling": self.polling,
            "asset_page": self.asset_page or "",
            self.asset.id_name: self.asset.id,
        }
        return RunSettings(**{**settings, **run})

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume the task after its deferral."""
        self._is_link_stored = True
        return super().resume_execution(next_method, next_kwargs, context)

    def resume_from_trigger(
        self,
        context: Context,
        event: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
        stored: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return the result that the trigger's event reports; poll a response that is too large for an event.

        :param event: the payload of the trigger's event; without it the run is polled here.
        :param settings: the fields of the trigger's :class:`RunSettings`; None if the trigger has started the task.
        :param stored: what the task state store holds, so that it is not read again; None if that is not known.
        :return: the result of :meth:`execute_complete`.
        :raises AixplainError: if there is no run, or neither an event nor settings.
        """
        if stored is not None:
            self._store = self._create_store(context, stored)
        if event is None:
            if settings is None:
                raise AixplainError(RESUMED_WITHOUT_EVENT)
            url = settings["poll_url"]
            self.log.warning("%s: %s. Polling the run: %s", self.run_name, RESUMED_WITHOUT_EVENT, to_printable(url))
            event = {"status": "success", "response": None, "poll_url": url}
        if settings is None:
            self._is_link_stored = False  # no worker has started this task
            self.set_link(context)
            self._usage_of_trigger = pull_usage(context)
        else:
            self.asset_page, self.submitted_at = settings.get("asset_page"), settings["submitted_at"]
        if event["status"] == "refused":
            error = from_event(event["error"])
            self.submitted_at = event.get("submitted_at")
            self.record_end(context, outcome_of(error), event["response"])
            raise error
        if event["status"] == "success" and event["response"] is None:
            settings = settings or {}  # None if a trigger started the task: then the timeout counts from now
            event = self._poll_large_response(self.run_settings(**{**settings, "poll_url": event["poll_url"]}))
        return self.execute_complete(context, event)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Return the result of the run, or raise its error.

        :param event: the payload of the event of :class:`AixplainModelRunTrigger`, with a response of any size.
        :return: the response as a dict; for an agent with further fields, as :meth:`Asset.result
            <airflow_provider_aixplain.protocol.assets.Asset.result>` returns it.
        :raises AixplainRunFailed: if the run has failed.
        :raises AixplainRunTimeout: if the run did not finish in time.
        :raises AixplainPermanentError: if the platform refuses the polls, or the Connection cannot work.
        """
        response: dict[str, Any] = event["response"]
        self.response = response
        self.record_end(context, event["status"], response, event["poll_url"])
        if event["status"] == "success":
            self.log.info("%s: %s succeeded after %s", self.run_name, self.asset, format_cost(response))
            self.log_warning(response)
            add_to_outlet_events(context, self, response)
            return self._push_fields(context, self.make_result(response))
        error, problem = _ERRORS[event["status"]]
        raise error(f"{self.asset.title}: {problem}: {event['message']}; poll URL: {event['poll_url']}")

    def make_result(self, response: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the task returns.

        :param response: the ModelResponse as a dict.
        """
        return self.asset.result(response)

    def _push_fields(self, context: Context, result: dict[str, Any]) -> dict[str, Any]:
        """Push the non-empty fields of the result as XComs, if ``multiple_outputs`` is set, and return the result.

        Airflow would push all fields, with a request for each. Reading an XCom that does not exist returns None.
        """
        task_instance = context.get("ti")
        if task_instance and self.multiple_outputs and self.do_xcom_push and not is_nested(self, context):
            self.multiple_outputs = False
            for key, value in fields_with_values(result).items():
                task_instance.xcom_push(key=key, value=value)
        return result

    def record_end(
        self, context: Context, outcome: str, response: Mapping[str, Any] | None, poll_url: str = ""
    ) -> None:
        """Count an outcome of a run in the metrics, and in the usage record of the task instance.

        If the task is about to fail, the cost of the run is pushed as XComs, as for a run that has succeeded.

        :param outcome: as in the metric ``aixplain.runs``.
        :param response: the ModelResponse as a dict, if there is one.
        :param poll_url: the poll URL, if it is known.
        """
        RunMetrics().add_end(self.asset, outcome, response).send(context.get("ti") or self)
        wait_time = seconds_since(self.submitted_at) if self.submitted_at else None
        store = self._open_store(context)
        # A submission without a poll URL is identified by its time, as the next try finds it.
        run_id = poll_url or str((response or {}).get("url") or self.submitted_at or "")
        usage = run_usage(outcome, response, run_id, wait_time)
        asset = self.asset.or_reported(response)
        record = store.add_usage(usage, asset, self.asset_page or "", self._usage_of_trigger)
        self._store_end(store, outcome)
        xcoms: dict[str, Any] = {USAGE_KEY: record}
        if outcome not in ("success", "submitted"):
            figures = response or {}
            costs = {name: figures[name] for name in ("used_credits", "run_time", "usage") if figures.get(name)}
            xcoms |= {**costs, "url": poll_url or figures.get("url"), self.asset.id_name: self.asset.id}
        push_xcoms(context, {key: value for key, value in xcoms.items() if value})

    def _open_store(self, context: Context) -> TaskStateIdempotencyStore:
        if is_nested(self, context):
            # The store is the outer task's. Its submission must not be mixed up with those of calls within the task.
            outer = compat.running_task(context)
            stored = outer._open_store(context).stored if isinstance(outer, DeferrableRunBaseOperator) else None
            return TaskStateIdempotencyStore(context, durable=False, stored=stored)
        if self._store is None:
            is_first = compat.try_number(context.get("ti")) == 1  # then no worker has stored anything
            self._store = self._create_store(context, {} if is_first else None)
        return self._store

    def _create_store(self, context: Context, stored: dict[str, Any] | None) -> TaskStateIdempotencyStore:
        pushes_result = bool(self.do_xcom_push)
        return TaskStateIdempotencyStore(context, durable=self.durable, stored=stored, pushes_result=pushes_result)

    def _store_end(self, store: TaskStateIdempotencyStore, outcome: str) -> None:
        """Store the usage record and what a later try has to know about the end of a run."""
        store.save()

    def log_warning(self, response: Mapping[str, Any] | ModelResponse) -> None:
        """Log the warning in the response of a run that succeeded, such as an unknown status."""
        if warning := response["error_message"]:
            self.log.warning("%s: the run succeeded with a warning: %s", self.run_name, to_printable(warning))

    def set_link(self, context: Context) -> None:
        """Set :attr:`asset_page`, the target of this task's link. Errors are only logged."""
        try:
            self.asset_page = self.hook.platform.page_url(self.asset) if self.asset.id else ""
            task_instance = context.get("ti")
            if task_instance is not None and not compat.stores_links():
                task_instance.xcom_push(key=ASSET_LINK.xcom_key, value=self.asset_page)
        except Exception as error:
            message = "%s: the task has no link to its %s: %s: %s"
            self.log.warning(message, self.run_name, self.asset.kind, type(error).__name__, error)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return the lineage of the run. Only the openlineage provider calls this."""
        from airflow_provider_aixplain.observability.lineage import lineage_of, uploaded_files

        files = uploaded_files([getattr(self, name) for name in self.input_fields])
        return lineage_of(self.asset, self.response, files, self.artifacts_path)

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> Any:
        """Return the lineage of a run that failed."""
        return self.get_openlineage_facets_on_complete(task_instance)

    def _defer(self, settings: RunSettings) -> NoReturn:
        """Defer the task until the run has finished.

        :param settings: of the run, with its poll URL.
        """
        from airflow_provider_aixplain.triggers.aixplain import AixplainModelRunTrigger

        self.log.info("%s: Deferred: waiting in the triggerer for the run to finish", self.run_name)
        reason = PLACEMENT.reason_not_end(self) if self.ends_from_trigger else None
        if reason:
            self.log.info("%s: a worker finishes the task, as a trigger would lose %s", self.run_name, reason)
        settings = replace(settings, deferred_at=now(), end_from_trigger=self.ends_from_trigger and not reason)
        limit = self.execution_timeout
        self.defer(
            trigger=AixplainModelRunTrigger(**settings.to_dict()),
            method_name="resume_from_trigger",
            kwargs={"settings": settings.to_dict(), "stored": self._store and self._store.stored},
            # For a deferral without a triggerer; a trigger ends its wait earlier, with a more detailed error.
            timeout=limit + GRACE if limit else None,
        )

    def _poll_large_response(self, settings: RunSettings) -> dict[str, Any]:
        """Return the event of a run whose response is too large for the triggerer; defer again if the poll fails."""
        from airflow_provider_aixplain.client.blocking import MAX_POLL_TIMEOUT

        response = self.hook.poll_tolerant(settings.poll_url, self.run_name, MAX_POLL_TIMEOUT)
        wait = Wait(settings.wait_time, settings.timeout, RETRY_BUDGET)
        outcome = wait.judge(response, seconds_since(str(settings.submitted_at)))
        if outcome is None:
            problem = to_printable(response.error_message or response.status)
            self.log.warning("%s: the response could not be read; deferring again: %s", self.run_name, problem)
            self._defer(settings)
        return outcome.to_event(settings.poll_url)


_ERRORS: dict[str, tuple[type[AixplainError], str]] = {
    "failed": (AixplainRunFailed, "the run failed"),
    "timeout": (AixplainRunTimeout, "stopped waiting; the run continues"),
    "error": (AixplainPermanentError, "the run cannot be polled, so its result is unknown"),
}
