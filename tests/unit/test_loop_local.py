"""Values that the tasks of one event loop share."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from airflow_provider_aixplain.loop_local import LoopCache


class Value:
    """A value that a weak reference can watch."""


def test_concurrent_callers_share_one_load() -> None:
    cache: LoopCache[str, Value] = LoopCache()
    loads = 0

    async def load() -> Value:
        nonlocal loads
        loads += 1
        await asyncio.sleep(0)
        return Value()

    async def main() -> None:
        results = await asyncio.gather(*(cache.get("key", load) for _ in range(10)))
        assert len({value for _, value in results}) == 1
        (loaded_at, value), *_ = results
        assert await cache.get("key", load, loaded_at - 1) == (loaded_at, value)
        assert loads == 1
        assert (await cache.get("key", load, loaded_at))[1] is not value
        assert cache.keys() == {"key"}
        cache.discard("key")
        assert cache.keys() == set()

    asyncio.run(main())


def test_a_failed_load_is_repeated_for_the_next_caller() -> None:
    cache: LoopCache[str, str] = LoopCache()
    outcomes: list[Exception | str] = [OSError("down"), "value"]

    async def load() -> str:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def main() -> None:
        with pytest.raises(OSError, match="down"):
            await cache.get("key", load)
        assert (await cache.get("key", load))[1] == "value"

    asyncio.run(main())


def test_a_cancelled_caller_leaves_the_load_to_others() -> None:
    cache: LoopCache[str, str] = LoopCache()

    async def main() -> None:
        ready = asyncio.Event()

        async def load() -> str:
            await ready.wait()
            return "value"

        first, second = (asyncio.create_task(cache.get("key", load)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        ready.set()
        assert (await second)[1] == "value"
        assert first.cancelled()

    asyncio.run(main())


def test_values_are_freed_with_their_event_loop() -> None:
    cache: LoopCache[str, Value] = LoopCache()

    async def load() -> Value:
        return Value()

    async def main() -> weakref.ref[Value]:
        return weakref.ref((await cache.get("key", load))[1])

    value = asyncio.run(main())
    gc.collect()
    assert value() is None
