"""The trigger of a batch: submits and polls all its rows in the triggerer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_aixplain import compat
from airflow_provider_aixplain.batch.batch import Batch, BatchDeleted
from airflow_provider_aixplain.batch.commit_log import Fenced
from airflow_provider_aixplain.batch.engine import Engine, Limits
from airflow_provider_aixplain.batch.ledger import Header
from airflow_provider_aixplain.batch.retrying import retry_with_budget
from airflow_provider_aixplain.client.account import Platform
from airflow_provider_aixplain.compat import XCom
from airflow_provider_aixplain.exceptions import AixplainPermanentError, to_event
from airflow_provider_aixplain.hooks.aixplain import AixplainHook
from airflow_provider_aixplain.observability.failure_summary import FailureSummary
from airflow_provider_aixplain.observability.progress import run_with_progress, warn_of_open_runs
from airflow_provider_aixplain.protocol.assets import make_asset
from airflow_provider_aixplain.protocol.usage import USAGE_KEY, RunUsage, add_usage
from airflow_provider_aixplain.submission import now
from airflow_provider_aixplain.triggers.worker_release import wait_for_worker_release

OWNER_CHECK_INTERVAL = 60.0
"""Seconds without a commit after which a new owner counts as stopped. An idle owner commits every 30 seconds."""


class CrossLoopHook(AixplainHook):
    """A hook for one event loop that reads its Connection in another one.

    :param aixplain_conn_id: the id of a Connection of type ``aixplain``.
    :param home: the event loop of the triggerer, in which Connections can be read.
    """

    def __init__(self, aixplain_conn_id: str, home: asyncio.AbstractEventLoop) -> None:
        super().__init__(aixplain_conn_id)
        self._home = home

    async def aread_account(self) -> Platform:
        """Read the Connection in the home event loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(super().aread_account(), self._home))


class AixplainBatchTrigger(BaseTrigger):
    """Runs the rows of a batch that have no result, and fires one event.

    Its payload is ``{"batch": …, "error": …}``: the id of the batch, and its error or None. Each step is recorded on
    the result path before the next one, so that a trigger that is started again, on any host, resumes the batch.

    :param result_path: the URI of the batch's folder.
    :param batch: the id of the batch.
    :param model_id: the model's id on the platform.
    :param aixplain_conn_id: the id of a Connection of type ``aixplain``.
    :param limits: the fields of :class:`~airflow_provider_aixplain.batch.engine.Limits`.
    :param agent_id: the id of an agent, instead of a model's.
    :param usage: the usage record of earlier tries of the task instance, if there is one.
    :param asset_page: the URL of the page of the model or agent.
    """

    def __init__(
        self,
        result_path: str,
        batch: str,
        model_id: str = "",
        aixplain_conn_id: str = "aixplain_default",
        limits: Mapping[str, Any] | None = None,
        agent_id: str = "",
        usage: Mapping[str, Any] | None = None,
        asset_page: str = "",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Airflow does not annotate it
        self.result_path = result_path
        self.batch = batch
        self.asset = make_asset(model_id, agent_id)
        self.aixplain_conn_id = aixplain_conn_id
        self.limits = Limits(**(limits or {}))
        self.usage = usage
        self.asset_page = asset_page

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments of this trigger."""
        names = ("result_path", "batch", "aixplain_conn_id", "usage", "asset_page")
        stored = {name: getattr(self, name) for name in names}
        stored |= {self.asset.id_name: self.asset.id, "limits": asdict(self.limits)}
        return f"{type(self).__module__}.{type(self).__qualname__}", stored

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Run the remaining rows."""
        started_at = now()  # later than the deferral, so the wait for the worker is long enough
        batch = Batch(self.result_path)
        while True:
            try:
                error = await self._run(batch)
            except Fenced as reason:
                self.log.warning("%s", reason)
                if await self._is_finished_by_new_owner(batch):
                    error = None
                elif isinstance(reason, BatchDeleted):
                    problem = "it was deleted, or another one has begun there; name a folder that no other task uses"
                    error = to_event(
                        AixplainPermanentError(f"result_path: the batch at {batch} is incomplete: {problem}")
                    )
                else:
                    self.log.warning("The new owner of the batch has stopped: this triggerer resumes the batch")
                    continue
            await wait_for_worker_release(self, started_at)
            yield TriggerEvent({"batch": self.batch, "error": error})
            return

    async def _run(self, batch: Batch) -> dict[str, Any] | None:
        """Run rows until the batch has finished or this trigger is stopped.

        :return: the error of the batch, if any.
        :raises Fenced: if another process has claimed the batch.
        """
        hook = CrossLoopHook(self.aixplain_conn_id, asyncio.get_running_loop())
        engine = Engine(hook, self.asset, batch, self.batch, self.limits)
        try:
            return await run_with_progress(
                engine, self.log, self.task_instance, compat.triggerer_stats, self._publish_usage
            )
        finally:
            # Not in on_kill, which Airflow calls only since 3.3.
            warn_of_open_runs(engine, self.log)

    async def _publish_usage(self, usage: RunUsage) -> None:
        """Update the usage record in the task's XComs, which a trigger can do since Airflow 3.3."""
        if compat.can_push_xcoms() and not compat.is_inline(self):
            record = add_usage(self.usage, usage, self.asset, self.asset_page)
            await XCom.aset(USAGE_KEY, record, **compat.xcom_address(self.task_instance))

    async def _is_finished_by_new_owner(self, batch: Batch) -> bool:
        """Wait until the batch is finished or deleted; return False if the new owner stops committing before.

        Airflow stops a trigger that it has moved to another triggerer. If the new owner has stopped, it was such a
        trigger, which claimed the batch late (for example after a freeze), and Airflow runs this trigger instead.
        """
        failures = FailureSummary()

        def report(error: Exception) -> None:
            failures.add("storage errors", error, f"{batch}: ")
            if line := failures.report(time.monotonic()):
                self.log.warning("%s", line)

        def read() -> Header | None:
            header = batch.read()
            return header if batch.log.is_intact() else None

        number = -1
        while True:
            header = await retry_with_budget(partial(asyncio.to_thread, read), report)
            if header is None:
                return True
            is_finished = batch.ledger.totals.done == header.rows
            if header.batch != self.batch or is_finished or batch.log.number == number:
                return header.batch == self.batch and is_finished
            number = batch.log.number
            await asyncio.sleep(OWNER_CHECK_INTERVAL)
