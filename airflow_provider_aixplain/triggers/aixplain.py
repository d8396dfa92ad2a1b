"""The trigger: waits for a run in the triggerer, off the worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pendulum
from airflow.providers.common.compat.sdk import XCOM_RETURN_KEY, XCom, conf
from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from airflow_provider_aixplain.exceptions import AixplainPermanentError
from airflow_provider_aixplain.hooks.aixplain import AixplainHook
from airflow_provider_aixplain.protocol.values import printable
from airflow_provider_aixplain.protocol.wait import PATIENCE, Outcome, Wait

LARGEST_RESPONSE = 128 * 1024
"""Bytes of an answer that the triggerer reads: all its other triggers stand still while one of 10 MB is parsed, for a
tenth of a second (one text) to more than a whole one (a list of objects)."""


class AixplainModelRunTrigger(BaseTrigger):
    """Polls until a run is over and fires one event.

    The payload of the event is ``{"status": "success" | "failed" | "timeout" | "error", "message": str, "response": the
    ModelResponse as a dict or None, "poll_url": str}``. An event goes through the triggerer's memory and Airflow's
    database, so a response of more than 128 KiB is not read to its end there: ``success`` without a response says that
    the poll URL has it, which may turn out to be that of a failed run.

    With ``end_from_trigger`` a success whose response is there ends the task instead (``TaskSuccessEvent``).

    Airflow's database stores exactly the arguments below.

    :param poll_url: the ``url`` of the submission's response.
    :param aixplain_conn_id: the id of a Connection of type ``aixplain``.
    :param wait_time: seconds before the second poll, at least 0.2; grows by 10 % a poll up to 60 seconds.
    :param timeout: seconds after the submission when to stop waiting; the run itself goes on.
    :param submitted_at: when the run was submitted, in ISO 8601; default: now. Schedule and deadline count from it, so
        that they survive a restart of the triggerer.
    :param deferred_at: when the task was deferred, in ISO 8601; default: now. Its worker may hold on to it for a while.
    :param end_from_trigger: whether this trigger ends the task when the run has succeeded, and pushes its XComs.
    :param do_xcom_push: whether it pushes any.
    :param multiple_outputs: whether each field of the response is an XCom of its own, beside ``return_value``.
    """

    def __init__(
        self,
        poll_url: str,
        aixplain_conn_id: str = AixplainHook.default_conn_name,
        wait_time: float = 0.5,
        timeout: float = 86400,
        submitted_at: str | None = None,
        deferred_at: str | None = None,
        end_from_trigger: bool = False,
        do_xcom_push: bool = True,
        multiple_outputs: bool = True,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Airflow types only what it names a parameter of
        self.poll_url = poll_url
        self.aixplain_conn_id = aixplain_conn_id
        wait = Wait(wait_time, timeout)
        self.wait_time = wait.wait_time
        self.timeout = wait.timeout
        now = pendulum.now("UTC").isoformat()
        self.submitted_at = submitted_at or now
        self.deferred_at = deferred_at or now
        self.end_from_trigger = end_from_trigger
        self.do_xcom_push = do_xcom_push
        self.multiple_outputs = multiple_outputs

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what Airflow stores to start this trigger anywhere, any time."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {name: getattr(self, name) for name in _STORED}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until the run is over, the time is up, or the platform refuses to tell."""
        if not self.end_from_trigger:  # who has to wait for the worker anyway need not poll meanwhile
            await self._worker_gone()
        elapsed = seconds_since(self.submitted_at)
        wait = Wait(self.wait_time, self.timeout, PATIENCE)
        self.log.info("Waiting for the run at %s, submitted %.0f s ago", printable(self.poll_url), elapsed)
        hook = AixplainHook(self.aixplain_conn_id)
        try:
            outcome = await hook.await_run(self.poll_url, wait, elapsed, name="The run", most=LARGEST_RESPONSE)
        except AixplainPermanentError as error:
            outcome = Outcome("error", str(error))
        if outcome.is_too_large:
            outcome = Outcome("success", "its response is too large for an event: whoever takes it has to poll")
        ended = " ".join([outcome.status, outcome.message]).strip()
        self.log.info("The wait ended after %d polls: %s", wait.polls, ended)
        event = outcome.to_event(self.poll_url)
        if self.end_from_trigger and outcome.status == "success" and event["response"] is not None:
            try:
                await self._push(event["response"])
            except Exception as error:
                self.log.warning("A worker pushes the XComs, as here it fails: %s: %s", type(error).__name__, error)
            else:
                yield TaskSuccessEvent()
                return
        await self._worker_gone()
        yield TriggerEvent(event)

    async def on_kill(self) -> None:
        """Tell whoever has cleared, failed or skipped the task that its run goes on. (Airflow 3.3 and later)

        Airflow 3.3.2 calls it too when another triggerer has taken over meanwhile.
        """
        self.log.warning(
            "This triggerer waits no longer: the task was ended, or went to another triggerer. Unless it is over,"
            " the run goes on, and is billed, as the platform cannot cancel it: %s",
            printable(self.poll_url),
        )

    async def _worker_gone(self) -> None:
        """Return when the worker that deferred the task has surely let go of it."""
        await asyncio.sleep(max(0.0, _worker_lingers() - seconds_since(self.deferred_at)))

    async def _push(self, response: dict[str, Any]) -> None:
        """Push the task's XComs, the whole response last.

        ``TaskSuccessEvent`` could take them along, but Airflow 3.3.2 hands such XComs on as JSON text, and commits each
        by itself when the task is over already.
        """
        if not self.do_xcom_push:
            return
        task: Any = self.task_instance
        place = {"dag_id": task.dag_id, "task_id": task.task_id, "run_id": task.run_id, "map_index": task.map_index}
        fields = response if self.multiple_outputs else {}
        await asyncio.gather(*(XCom.aset(name, value, **place) for name, value in fields.items()))
        await XCom.aset(XCOM_RETURN_KEY, response, **place)


_STORED = (
    "poll_url",
    "aixplain_conn_id",
    "wait_time",
    "timeout",
    "submitted_at",
    "deferred_at",
    "end_from_trigger",
    "do_xcom_push",
    "multiple_outputs",
)


def seconds_since(time: str) -> float:
    """Return how long ago a time in ISO 8601 was; a clock that was set back since makes no wait longer."""
    then = cast("pendulum.DateTime", pendulum.parse(time))
    return max(0.0, pendulum.now("UTC").timestamp() - then.timestamp())


def _worker_lingers() -> float:
    """Return how long the worker that deferred a task may hold on to it, in seconds.

    Airflow 3 fails a task that is queued again before its executor has told the end of the first visit ("finished with
    state success, but the task instance's state attribute is queued"), and a worker may see that end only after
    ``[workers] min_heartbeat_interval``. Of 40 runs of 2 s that Airflow 3.3.2 resumed at once, 12 were lost that way,
    and paid. Airflow 2 has neither the option nor the trouble.
    """
    interval = conf.getfloat("workers", "min_heartbeat_interval", fallback=0.0)
    return interval + 1 if interval else 0.0
