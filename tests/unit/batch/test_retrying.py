"""For how long a call that fails is retried."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_aixplain.batch import retrying
from airflow_provider_aixplain.batch.retrying import retry_with_budget
from airflow_provider_aixplain.exceptions import AixplainError, AixplainPermanentError

RESET, LOST, BUSY = ConnectionResetError(), FileNotFoundError(), AixplainError("busy", retryable=True)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        pytest.param([(600, RESET), (600, None)], 2, id="the time before the first failure is not charged"),
        pytest.param([(1, RESET)] * 300 + [(1, None)], 301, id="five minutes are charged"),
        pytest.param([(1, RESET)] * 1000, -301, id="then it fails"),
        pytest.param([(1, RESET), (3600, RESET), (3600, RESET), (1, None)], 4, id="a freeze is not charged"),
        pytest.param([(1, LOST)], -1, id="a final error is not retried"),
        pytest.param([(1, AixplainPermanentError("wrong key"))], -1, id="a permanent error is not retried"),
        pytest.param([(1, BUSY), (1, None)], 2, id="a retryable error is retried"),
    ],
)
def test_a_call_is_retried_for_its_budget(times: Any, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0, calls=0)
    left = iter(times)
    monkeypatch.setattr(retrying, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(retrying, "RETRY_DELAY", 0)

    async def call() -> int:
        seconds, error = next(left)
        clock.now += seconds
        clock.calls += 1
        if error:
            raise error
        return int(clock.calls)

    with nullcontext() if expected > 0 else pytest.raises((OSError, AixplainPermanentError)):
        assert asyncio.run(retry_with_budget(call, final=(FileNotFoundError,))) == expected
    assert clock.calls == abs(expected)
