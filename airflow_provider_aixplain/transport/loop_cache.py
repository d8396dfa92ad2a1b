"""Values that the tasks of one event loop share."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

K = TypeVar("K")
T = TypeVar("T")


class LoopCache(Generic[K, T]):
    """Caches values per event loop: the loop owns them, and they are dropped with it.

    Each value is loaded once, however many tasks ask for it at the same time (single flight): a triggerer starts with
    thousands of runs.
    """

    def __init__(self) -> None:
        self._loads: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[K, _Load[T]]] = WeakKeyDictionary()

    async def get(
        self, key: K, load: Callable[[], Coroutine[Any, Any, T]], since: float = -math.inf
    ) -> tuple[float, T]:
        """Return when a value was loaded, by the monotonic clock, and the value. A failure is not cached.

        :param load: loads the value.
        :param since: a value that was loaded at this time or before is loaded again.
        """
        loads = self._loads.setdefault(asyncio.get_running_loop(), {})
        if (current := loads.get(key)) is None or current.started_at <= since:
            loads[key] = current = _Load(load)
        return current.started_at, await current.result()

    def keys(self) -> set[K]:
        """Return the keys that the running event loop has values of."""
        return set(self._loads.get(asyncio.get_running_loop(), ()))

    def discard(self, key: K) -> None:
        """Forget a value of the running event loop."""
        self._loads.get(asyncio.get_running_loop(), {}).pop(key, None)


class _Load(Generic[T]):
    """A value that is being loaded, or was."""

    _value: T

    def __init__(self, load: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self.started_at = time.monotonic()
        # A task of its own: the first caller may be cancelled, and the others still need the value.
        self._task: asyncio.Task[None] | None = asyncio.create_task(self._run(load))

    async def result(self) -> T:
        if self._task is not None:
            await asyncio.shield(self._task)
        return self._value

    async def _run(self, load: Callable[[], Coroutine[Any, Any, T]]) -> None:
        try:
            self._value = await load()
        except BaseException:
            self.started_at = -math.inf  # the next caller loads it again
            raise
        finally:
            self._task = None  # a task refers to its event loop, which would never be freed
