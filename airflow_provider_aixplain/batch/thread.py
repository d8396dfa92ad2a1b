"""A thread with an event loop of its own for batches: what a triggerer cancels there, as it stops, is not cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_aixplain.hooks.aixplain import AixplainHook

if TYPE_CHECKING:
    from airflow_provider_aixplain.client.account import Platform

T = TypeVar("T")

_threads = ThreadPoolExecutor(1000, thread_name_prefix="aixplain-batch")
"""One for each batch that a process runs at a time, made when it is needed: as many as a triggerer has triggers, unless
its capacity is raised. Python waits for their end where it exits."""


class CrossLoopHook(AixplainHook):
    """A hook for another event loop than that in which Connections can be read.

    :param aixplain_conn_id: the id of a Connection of type ``aixplain``.
    :param home: the event loop in which they can.
    """

    def __init__(self, aixplain_conn_id: str, home: asyncio.AbstractEventLoop) -> None:
        super().__init__(aixplain_conn_id)
        self._home = home

    async def _aread(self) -> Platform:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(super()._aread(), self._home))


def run_in_loop_thread(work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
    """Let a coroutine run in a thread and an event loop of its own.

    :return: for its result. That this is cancelled does not cancel the work.
    """
    return asyncio.wrap_future(_threads.submit(asyncio.run, work))
