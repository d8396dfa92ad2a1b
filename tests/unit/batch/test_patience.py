"""How long one waits for what has trouble."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import SimpleNamespace

import pytest

from airflow_provider_aixplain.batch import patience
from airflow_provider_aixplain.batch.patience import patiently
from airflow_provider_aixplain.exceptions import AixplainError, AixplainPermanentError


def asked(monkeypatch: pytest.MonkeyPatch, times: Iterable[tuple[float, Exception | None]]) -> int:
    """Return how many times was asked.

    :param times: how many seconds each takes, with the pause before it, and what it raises.
    """
    clock = SimpleNamespace(now=0.0, asked=0)
    left = iter(times)
    monkeypatch.setattr(patience, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(patience, "PAUSE", 0)

    async def ask() -> int:
        seconds, error = next(left)
        clock.now += seconds
        clock.asked += 1
        if error:
            raise error
        return int(clock.asked)

    try:
        return asyncio.run(patiently(ask, final=(FileNotFoundError,)))
    except OSError:
        return -int(clock.asked)


RESET = ConnectionResetError()


def test_five_minutes_from_the_first_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, [(600, RESET), (600, None)]) == 2, "what it took before does not count"
    assert asked(monkeypatch, [(1, RESET)] * 300 + [(1, None)]) == 301
    assert asked(monkeypatch, [(1, RESET)] * 1000) == -301


def test_a_process_that_stood_still_was_not_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, [(1, RESET), (3600, RESET), (3600, RESET), (1, None)]) == 4


def test_what_asking_again_does_not_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, [(1, FileNotFoundError())]) == -1
    with pytest.raises(AixplainPermanentError):
        asked(monkeypatch, [(1, AixplainPermanentError("wrong key"))])
    assert asked(monkeypatch, [(1, AixplainError("busy", retryable=True)), (1, None)]) == 2
