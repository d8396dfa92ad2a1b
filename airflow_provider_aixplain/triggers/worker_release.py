"""When a trigger may resume its task on a worker."""

from __future__ import annotations

import asyncio

from airflow.triggers.base import BaseTrigger

from airflow_provider_aixplain import compat
from airflow_provider_aixplain.submission import seconds_since


async def wait_for_worker_release(trigger: BaseTrigger, deferred_at: str) -> None:
    """Return when the worker that deferred the task is certain to have released it.

    :param deferred_at: when the task was deferred, in ISO 8601.
    """
    if not compat.is_inline(trigger):
        await asyncio.sleep(max(0.0, compat.worker_release_delay() - seconds_since(deferred_at)))
