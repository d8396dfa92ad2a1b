"""How long a call that fails is repeated."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import SimpleNamespace

import pytest

from airflow_provider_aixplain.batch import retrying
from airflow_provider_aixplain.batch.retrying import retry_with_budget
from airflow_provider_aixplain.exceptions import AixplainError, AixplainPermanentError


def calls(monkeypatch: pytest.MonkeyPatch, times: Iterable[tuple[float, Exception | None]]) -> int:
    """Return how often it was called; negative if it failed in the end.

    :param times: how many seconds each call takes, with the delay before it, and what it raises.
    """
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

    try:
        return asyncio.run(retry_with_budget(call, final=(FileNotFoundError,)))
    except OSError:
        return -int(clock.calls)


RESET = ConnectionResetError()


def test_it_is_repeated_for_five_minutes_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    assert calls(monkeypatch, [(600, RESET), (600, None)]) == 2, "what it took before does not count"
    assert calls(monkeypatch, [(1, RESET)] * 300 + [(1, None)]) == 301
    assert calls(monkeypatch, [(1, RESET)] * 1000) == -301


def test_the_time_of_a_freeze_is_not_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    assert calls(monkeypatch, [(1, RESET), (3600, RESET), (3600, RESET), (1, None)]) == 4


def test_final_errors_are_raised_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert calls(monkeypatch, [(1, FileNotFoundError())]) == -1
    with pytest.raises(AixplainPermanentError):
        calls(monkeypatch, [(1, AixplainPermanentError("wrong key"))])
    assert calls(monkeypatch, [(1, AixplainError("busy", retryable=True)), (1, None)]) == 2
