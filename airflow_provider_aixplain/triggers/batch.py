"""The trigger of a batch: submits and polls all its rows in the triggerer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_aixplain.batch.engine import Engine, Limits, Superseded
from airflow_provider_aixplain.batch.progress import watched
from airflow_provider_aixplain.batch.state import State
from airflow_provider_aixplain.batch.thread import HookElsewhere, elsewhere
from airflow_provider_aixplain.metrics import of_triggerer

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath


class AixplainBatchTrigger(BaseTrigger):
    """Runs what is left of a batch, and fires one event: ``{"error": None}``, or the error that has ended it.

    All that it does is on the result path before it does more; started again, anywhere, it goes on.

    :param result_path: the folder of the batch, as a URI.
    :param storage_conn_id: the Connection of its storage, if it has one.
    :param model_id: the model's id on the platform.
    :param aixplain_conn_id: the id of a Connection of type ``aixplain``.
    :param limits: the fields of :class:`~airflow_provider_aixplain.batch.engine.Limits`.
    """

    def __init__(
        self,
        result_path: str,
        storage_conn_id: str | None,
        model_id: str,
        aixplain_conn_id: str,
        limits: dict[str, Any],
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Airflow types only what it names a parameter of
        self.result_path = result_path
        self.storage_conn_id = storage_conn_id
        self.model_id = model_id
        self.aixplain_conn_id = aixplain_conn_id
        self.limits = Limits(**limits)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what Airflow stores to start this trigger anywhere, any time."""
        names = ("result_path", "storage_conn_id", "model_id", "aixplain_conn_id")
        stored = {**{name: getattr(self, name) for name in names}, "limits": asdict(self.limits)}
        return f"{type(self).__module__}.{type(self).__qualname__}", stored

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Run the rows that are left."""
        hook = HookElsewhere(self.aixplain_conn_id, asyncio.get_running_loop())
        engine = Engine(hook, self.model_id, State(self._folder()), self.limits)
        running = elsewhere(engine.run())
        try:
            yield TriggerEvent({"error": await watched(engine, running, self.log, of_triggerer())})
        except Superseded as reason:
            self.log.warning("This triggerer runs the batch no longer: %s", reason)
            await asyncio.Event().wait()  # one that ends without an event fails the task, which is another's now
        finally:
            # Submissions that are under way are paid for: their answers are waited for, and written down.
            engine.stop_from_elsewhere()
            while not running.done():
                with suppress(asyncio.CancelledError, Exception):
                    await asyncio.shield(running)

    def _folder(self) -> ObjectStoragePath:
        from airflow.providers.common.compat.sdk import ObjectStoragePath

        return ObjectStoragePath(self.result_path, conn_id=self.storage_conn_id)
