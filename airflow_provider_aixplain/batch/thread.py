"""Runs a batch in an event loop of its own, which a triggerer that stops does not cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from airflow_provider_aixplain.client.account import Platform
from airflow_provider_aixplain.hooks.aixplain import AixplainHook

T = TypeVar("T")


class CrossLoopHook(AixplainHook):
    """A hook that is used in one event loop and reads its Connection in another one.

    :param aixplain_conn_id: the id of a Connection of type ``aixplain``.
    :param home: the event loop in which Connections can be read.
    """

    def __init__(self, aixplain_conn_id: str, home: asyncio.AbstractEventLoop) -> None:
        super().__init__(aixplain_conn_id)
        self._home = home

    async def _aread(self) -> Platform:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(super()._aread(), self._home))


def run_in_loop_thread(work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
    """Run a coroutine in a new thread with a new event loop. Python waits for the thread before it exits.

    :return: a future of the result. Cancelling the future does not cancel the work.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="aixplain-batch")
    result = asyncio.wrap_future(thread.submit(asyncio.run, work))
    thread.shutdown(wait=False)
    return result
