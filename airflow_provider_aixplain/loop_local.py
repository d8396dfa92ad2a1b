"""State that belongs to an event loop, and is dropped with it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

K = TypeVar("K")
T = TypeVar("T")


class LoopLocal(Generic[T]):
    """One value for each event loop, created on first use and dropped with the loop.

    A triggerer has one event loop, so all its triggers share the value.

    :param create: returns a new value.
    """

    def __init__(self, create: Callable[[], T]) -> None:
        self._create = create
        self._values: WeakKeyDictionary[asyncio.AbstractEventLoop, T] = WeakKeyDictionary()

    def get(self) -> T:
        """Return the value of the running event loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._values:
            self._values[loop] = self._create()
        return self._values[loop]


class LoopCache(Generic[K, T]):
    """Caches values for each event loop; they are dropped with the loop.

    Tasks that need a value at the same time share one load (single flight): a triggerer starts with thousands of runs.
    """

    def __init__(self) -> None:
        self._loads: LoopLocal[dict[K, _Load[T]]] = LoopLocal(dict)

    async def get(
        self, key: K, load: Callable[[], Coroutine[Any, Any, T]], since: float = -math.inf
    ) -> tuple[float, T]:
        """Return when the load of a value started, by the monotonic clock, and the value. A failure is not cached.

        :param load: loads the value.
        :param since: a value whose load started at this time or before is loaded again.
        """
        loads = self._loads.get()
        if (current := loads.get(key)) is None or current.started_at <= since:
            loads[key] = current = _Load(load)
        return current.started_at, await current.result()

    def keys(self) -> set[K]:
        """Return the keys of the running event loop's values."""
        return set(self._loads.get())

    def discard(self, key: K) -> None:
        """Remove a value of the running event loop."""
        self._loads.get().pop(key, None)


class _Load(Generic[T]):
    """A value that is being loaded, or has been."""

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
