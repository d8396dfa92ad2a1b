"""Retries calls that fail temporarily."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from airflow_provider_aixplain.exceptions import AixplainError
from airflow_provider_aixplain.protocol.wait import RETRY_BUDGET

T = TypeVar("T")

RETRY_DELAY = 1.0
"""The minimum time between two calls, in seconds."""

MAX_CHARGED_PER_FAILURE = 60.0
"""The maximum time that is charged to the budget between two failures, in seconds. A freeze of the process must not use
up the budget."""


async def retry_with_budget(
    call: Callable[[], Awaitable[T]],
    on_failure: Callable[[Exception], object] = lambda error: None,
    final: tuple[type[Exception], ...] = (),
) -> T:
    """Return the result of a call. While the call fails, retry it for five minutes from the first failure.

    :param call: makes the call.
    :param on_failure: receives each error that is retried.
    :param final: errors that are not retried, like those of this package that are not ``retryable``.
    :raises Exception: the last error.
    """
    budget, failed_at = RETRY_BUDGET, None
    while True:
        try:
            return await call()
        except Exception as error:
            now = time.monotonic()
            if failed_at is not None:
                budget -= min(now - failed_at, MAX_CHARGED_PER_FAILURE)
            failed_at = now
            is_final = isinstance(error, final) or (isinstance(error, AixplainError) and not error.retryable)
            if is_final or budget <= 0:
                raise
            on_failure(error)
            await asyncio.sleep(RETRY_DELAY * random.uniform(1, 2))
