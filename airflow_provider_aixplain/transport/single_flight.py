"""Looks something up once for all who ask for it in an event loop."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """What many ask for at the same time, and one looks up: thousands of runs start together in a triggerer."""

    def __init__(self) -> None:
        self._asked_at = -math.inf
        self._answer: asyncio.Task[T] | None = None

    async def get(self, look_up: Callable[[], Coroutine[Any, Any, T]], since: float) -> tuple[float, T]:
        """Return what was looked up after a time; a failure is not kept.

        :param since: by the monotonic clock.
        :return: when it was looked up, too.
        """
        answer = self._answer
        failed = answer is not None and answer.done() and (answer.cancelled() or answer.exception() is not None)
        if answer is None or self._asked_at <= since or failed:
            # A task of its own: whoever is first may be cancelled, and the others still want it.
            self._asked_at, self._answer = time.monotonic(), asyncio.create_task(look_up())
        asked_at, answer = self._asked_at, self._answer
        assert answer is not None
        return asked_at, await asyncio.shield(answer)
