"""The trigger that waits for a run in the triggerer, without a worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import cached_property, lru_cache
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_aixplain import compat
from airflow_provider_aixplain.client.aio import MAX_RESPONSE_BYTES
from airflow_provider_aixplain.exceptions import AixplainPermanentError
from airflow_provider_aixplain.hooks.aixplain import AixplainHook
from airflow_provider_aixplain.loop_local import LoopLocal
from airflow_provider_aixplain.observability.metrics import RunMetrics
from airflow_provider_aixplain.observability.run_summary import run_summary
from airflow_provider_aixplain.placement import PLACEMENT
from airflow_provider_aixplain.protocol.adaptive import RunTimes
from airflow_provider_aixplain.protocol.values import to_printable
from airflow_provider_aixplain.protocol.wait import RETRY_BUDGET, Outcome, Wait
from airflow_provider_aixplain.run_settings import RunSettings
from airflow_provider_aixplain.submission import seconds_since
from airflow_provider_aixplain.triggers.worker_release import wait_for_worker_release

RUN_TIMES = LoopLocal(lambda: lru_cache(1024)(lambda conn_id, asset: RunTimes()))
"""The durations of earlier runs that a triggerer has seen, by Connection and asset."""


class AixplainModelRunTrigger(BaseTrigger):
    """Polls a run until it has finished and fires one event.

    The payload of the event is ``{"status": "success" | "failed" | "timeout" | "error", "message": str, "response": the
    ModelResponse as a dict or None, "poll_url": str}``. An event passes through the triggerer's memory and Airflow's
    database, so a response of more than 128 KiB is not in it. The event is then a ``success`` without a response: poll
    the URL to read it, as the run may have failed.

    With ``end_from_trigger`` a successful run whose response was read finishes the task instead (``TaskSuccessEvent``).

    :param poll_url: the ``url`` of the submission's response.
    :param aixplain_conn_id: the id of a Connection of type ``aixplain``.
    :param wait_time: seconds before the second poll, at least 0.2; increases by 10 % per poll up to 60 seconds.
    :param settings: the other fields of :class:`~airflow_provider_aixplain.run_settings.RunSettings`.
    :raises TypeError: if there is no such setting.
    :raises AixplainInputError: if a duration is invalid.
    """

    settings: RunSettings

    def __init__(
        self,
        poll_url: str,
        aixplain_conn_id: str = AixplainHook.default_conn_name,
        wait_time: float = 0.5,
        **settings: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Airflow does not annotate it
        self.settings = RunSettings(
            poll_url=poll_url, aixplain_conn_id=aixplain_conn_id, wait_time=wait_time, **settings
        )

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what Airflow stores to start this trigger on any triggerer, at any time."""
        return f"{type(self).__module__}.{type(self).__qualname__}", self.settings.to_dict()

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until the run has finished, the timeout has passed, or the platform refuses the polls."""
        compat.is_inline(self)  # raises here, before the wait, if the check after it cannot work
        if not self.settings.end_from_trigger:  # no event can be fired before, so no poll is needed
            await self._wait_for_worker_release()
        yield await self._finish(await self._wait())

    async def _wait(self) -> Outcome:
        """Return the outcome of the wait for the run."""
        settings = self.settings
        elapsed = seconds_since(str(settings.submitted_at))
        is_adaptive = settings.polling == "adaptive" and settings.asset.id
        run_times = RUN_TIMES.get()(settings.aixplain_conn_id, settings.asset) if is_adaptive else None
        wait = Wait(settings.wait_time, settings.timeout, RETRY_BUDGET, run_times)
        self.log.info("Waiting for the run, submitted %.0f s ago: %s", elapsed, to_printable(settings.poll_url))
        try:
            outcome = await self.hook.await_run(settings.poll_url, wait, elapsed, max_size=MAX_RESPONSE_BYTES)
        except AixplainPermanentError as error:
            outcome = Outcome("error", str(error))
        if outcome.is_too_large:
            outcome = Outcome("success", "its response is too large for an event: poll the run to read it")
        elapsed = seconds_since(str(settings.submitted_at))
        self.log.info("%s", run_summary(outcome, wait.polls, elapsed))
        metrics = RunMetrics().add_wait(settings.asset, outcome, wait.polls, elapsed)
        metrics.send(self.task_instance, compat.triggerer_stats)
        return outcome

    async def _finish(self, outcome: Outcome) -> TriggerEvent:
        """Return the event that finishes the task, after pushing its XComs, or the one that resumes it on a worker."""
        event = outcome.to_event(self.settings.poll_url)
        response = event["response"]
        if self.settings.end_from_trigger and outcome.status == "success" and response is not None:
            if response["error_message"]:  # no worker is going to log it
                self.log.warning("The run succeeded with a warning: %s", to_printable(response["error_message"]))
            if finished := await PLACEMENT.finish(self, response):
                return finished
        await self._wait_for_worker_release()
        return TriggerEvent(event)

    @cached_property
    def hook(self) -> AixplainHook:
        """The hook that makes this trigger's calls."""
        return AixplainHook(self.settings.aixplain_conn_id)

    async def on_kill(self) -> None:
        """Log that the run of a task that was cleared, failed or skipped continues. (Airflow 3.3 and later)

        Airflow 3.3.2 calls it too when another triggerer has taken over the trigger.
        """
        self.log.warning(
            "This triggerer no longer waits for the run: the task was stopped, or another triggerer waits. The run"
            " continues and is billed, as the platform cannot cancel it: %s",
            to_printable(self.settings.poll_url),
        )

    async def _wait_for_worker_release(self) -> None:
        """Return when the worker that deferred the task is certain to have released it."""
        await wait_for_worker_release(self, str(self.settings.deferred_at))
