"""When a trigger may hand its task back to a worker."""

from __future__ import annotations

import asyncio

from airflow.providers.common.compat.sdk import conf
from airflow.triggers.base import BaseTrigger

from airflow_provider_aixplain.submission import seconds_since


def runs_inline(trigger: BaseTrigger) -> bool:
    """Return whether ``dag.test()`` runs a trigger in the process of its task, without scheduler and triggerer.

    A triggerer sets the task instance and the id of every trigger that it runs; ``dag.test()`` sets neither. In an
    Airflow whose triggers have no such attributes the answer is no, so that no trigger resumes its task too early.
    """
    return all(getattr(trigger, name, "unknown") is None for name in ("trigger_id", "task_instance"))


async def wait_for_worker_release(trigger: BaseTrigger, deferred_at: str) -> None:
    """Return when the worker that deferred the task has surely released it.

    :param deferred_at: when the task was deferred, in ISO 8601.
    """
    if not runs_inline(trigger):
        await asyncio.sleep(max(0.0, _worker_release_delay() - seconds_since(deferred_at)))


def _worker_release_delay() -> float:
    """Return how many seconds after the deferral its worker may still report the end of that visit.

    Airflow 3 fails a task that is queued again before its executor has reported the end of the first visit ("finished
    with state success, but the task instance's state attribute is queued"), and a worker may see that end only after
    ``[workers] min_heartbeat_interval``. Of 40 runs of 2 s that Airflow 3.3.2 resumed at once, 12 were lost that way,
    and paid. Airflow 2 has neither the option nor the problem.
    """
    interval = conf.getfloat("workers", "min_heartbeat_interval", fallback=0.0)
    return interval + 1 if interval else 0.0
