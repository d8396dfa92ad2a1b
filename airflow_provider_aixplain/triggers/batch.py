"""The trigger of a batch: submits and polls all its rows in the triggerer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_aixplain.batch.engine import Engine, Limits
from airflow_provider_aixplain.batch.patience import patiently
from airflow_provider_aixplain.batch.progress import warn_of_open_runs, watched
from airflow_provider_aixplain.batch.state import Deleted, Progress, State, Superseded
from airflow_provider_aixplain.batch.thread import HookElsewhere, elsewhere
from airflow_provider_aixplain.batch.trouble import Trouble
from airflow_provider_aixplain.exceptions import AixplainPermanentError, to_event
from airflow_provider_aixplain.metrics import of_triggerer
from airflow_provider_aixplain.submission import now
from airflow_provider_aixplain.triggers.worker_release import wait_for_worker_release

LOOK_EVERY = 60.0
"""Seconds between looks at what whoever has taken over does."""


class AixplainBatchTrigger(BaseTrigger):
    """Runs what is left of a batch, and fires one event: ``{"batch": …, "error": …}``, with the batch's id,
    and the error that has ended it or None.

    All that it does is on the result path before it does more; started again, anywhere, it goes on.

    :param result_path: the URI of the batch's folder.
    :param batch: its id.
    :param model_id: the model's id on the platform.
    :param aixplain_conn_id: the id of a Connection of type ``aixplain``.
    :param limits: the fields of :class:`~airflow_provider_aixplain.batch.engine.Limits`.
    """

    def __init__(
        self, result_path: str, batch: str, model_id: str, aixplain_conn_id: str, limits: dict[str, Any]
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Airflow types only what it names a parameter of
        self.result_path = result_path
        self.batch = batch
        self.model_id = model_id
        self.aixplain_conn_id = aixplain_conn_id
        self.limits = Limits(**limits)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what Airflow stores to start this trigger anywhere, any time."""
        stored = {name: getattr(self, name) for name in ("result_path", "batch", "model_id", "aixplain_conn_id")}
        return f"{type(self).__module__}.{type(self).__qualname__}", {**stored, "limits": asdict(self.limits)}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Run the rows that are left."""
        started_at = now()  # after the deferral, so that the wait at the end is long enough
        state = State(self.result_path)
        while True:
            try:
                error = await self._run(state)
            except Superseded as reason:
                self.log.warning("%s", reason)
                if await self._is_done_by_other(state):
                    error = None
                elif isinstance(reason, Deleted):
                    told = "somebody has deleted it, or begun another one there; name a folder that no other task has"
                    error = to_event(AixplainPermanentError(f"result_path: the batch at {state} is not whole: {told}"))
                else:
                    self.log.warning("Nobody else goes on with the batch: this triggerer does")
                    continue
            await wait_for_worker_release(self, started_at)
            yield TriggerEvent({"batch": self.batch, "error": error})
            return

    async def _run(self, state: State) -> dict[str, Any] | None:
        """Run the rows that are left, until this trigger is stopped.

        :return: the error that has ended it, if any.
        :raises Superseded: if somebody else has taken over.
        """
        hook = HookElsewhere(self.aixplain_conn_id, asyncio.get_running_loop())
        engine = Engine(hook, self.model_id, state, self.batch, self.limits)
        running = elsewhere(engine.run())
        try:
            return await watched(engine, running, self.log, of_triggerer)
        finally:
            # Submissions that are under way are paid for: their answers are waited for, and written down.
            engine.stop_from_elsewhere()
            while not running.done():
                with suppress(asyncio.CancelledError, Exception):
                    await asyncio.shield(running)
            # Here and not in on_kill, which Airflow calls from 3.3 on only.
            warn_of_open_runs(engine, self.log)

    async def _is_done_by_other(self, state: State) -> bool:
        """Return whether whoever has taken over is done, or has deleted all, once that is so or it does no more.

        Airflow stops a trigger that another triggerer has. So who takes over and does nothing was stopped, as it came
        too late, as after it stood still for a while; and this one, which is still here, is the one that is meant.
        """

        def look() -> bool | Progress:
            header = state.header()
            if header is None or header.batch != self.batch:
                return header is None
            progress = state.progress(header)
            return progress.totals.done == header.rows or progress

        trouble = Trouble()

        def report_failure(error: Exception) -> None:
            trouble.add("storage errors", error, f"{state}: ")
            if line := trouble.report(time.monotonic()):
                self.log.warning("%s", line)

        before: Progress | None = None
        while True:
            found = await patiently(partial(asyncio.to_thread, look), report_failure)
            if isinstance(found, bool):
                return found
            if found == before:
                return False
            before = found
            await asyncio.sleep(LOOK_EVERY)
