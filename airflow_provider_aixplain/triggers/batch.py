"""The trigger of a batch: submits and polls all its rows in the triggerer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_aixplain.batch.engine import Engine, Limits
from airflow_provider_aixplain.batch.progress import watched
from airflow_provider_aixplain.batch.state import Deleted, Progress, State, Superseded
from airflow_provider_aixplain.batch.thread import HookElsewhere, elsewhere
from airflow_provider_aixplain.exceptions import AixplainPermanentError, to_event
from airflow_provider_aixplain.metrics import of_triggerer
from airflow_provider_aixplain.protocol.wait import PATIENCE

LOOK_EVERY = 60.0
"""Seconds between looks at what whoever has taken over does."""


class AixplainBatchTrigger(BaseTrigger):
    """Runs what is left of a batch, and fires one event: ``{"error": None}``, or the error that has ended it.

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
            yield TriggerEvent({"error": error})
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

    async def _is_done_by_other(self, state: State) -> bool:
        """Return whether whoever has taken over is done, or has deleted all, once that is so or it does no more.

        Airflow stops a trigger that another triggerer has. So who takes over and does nothing was stopped, as it came
        too late, as after it stood still for a while; and this one, which is still here, is the one that is meant.
        """
        before: Progress | None = None
        looked_at = time.monotonic()
        while True:
            try:
                header = await asyncio.to_thread(state.header)
                if header is None or header.batch != self.batch:
                    return header is None
                progress = await asyncio.to_thread(state.progress, header)
            except Exception as error:
                if time.monotonic() > looked_at + PATIENCE:
                    raise
                self.log.warning("%s: has trouble, is asked again: %s", state, error)
            else:
                looked_at = time.monotonic()
                if progress.totals.done == header.rows:
                    return True
                if progress == before:
                    return False
                before = progress
            await asyncio.sleep(LOOK_EVERY)
