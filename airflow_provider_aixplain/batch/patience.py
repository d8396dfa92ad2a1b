"""How long one waits for what has trouble."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from airflow_provider_aixplain.exceptions import AixplainError
from airflow_provider_aixplain.protocol.wait import PATIENCE

T = TypeVar("T")

PAUSE = 1.0
"""Seconds, at least, between two times that something is asked for."""

COUNTED = 60.0
"""Seconds that count at most of the time between two failures: a process that stood still has not been patient."""


async def patiently(
    ask: Callable[[], Awaitable[T]],
    on_trouble: Callable[[Exception], object] = lambda error: None,
    final: tuple[type[Exception], ...] = (),
) -> T:
    """Return what is asked for; as long as that has trouble it is asked again, for five minutes from the first time.

    :param ask: asks once.
    :param on_trouble: is told each time.
    :param final: what asking again does not mend; nor does it an error of this package that is not ``retryable``.
    :raises Exception: what was raised in the end.
    """
    left, failed_at = PATIENCE, None
    while True:
        try:
            return await ask()
        except Exception as error:
            now = time.monotonic()
            if failed_at is not None:
                left -= min(now - failed_at, COUNTED)
            failed_at = now
            is_final = isinstance(error, final) or (isinstance(error, AixplainError) and not error.retryable)
            if is_final or left <= 0:
                raise
            on_trouble(error)
            await asyncio.sleep(PAUSE * random.uniform(1, 2))
