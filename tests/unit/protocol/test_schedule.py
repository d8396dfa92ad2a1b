"""When to poll."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_aixplain.protocol.schedule import TICK, Backoff, delay_until_tick

SECONDS = st.floats(0, 1e6)
WAIT_TIMES = st.floats(0, 300)
CHANCES = st.floats(0, 1)


@pytest.mark.parametrize("wait_time", [0.0, 0.2, 0.5, 2.0])
def test_intervals_grow_by_ten_percent_up_to_a_minute(wait_time: float) -> None:
    elapsed, expected = 0.0, max(wait_time, 0.2)
    for _ in range(200):
        wait = Backoff(wait_time).interval(elapsed)
        assert wait == pytest.approx(min(expected, 60))
        elapsed += wait
        expected = min(expected * 1.1, 60)


def test_an_interval_above_a_minute_does_not_change() -> None:
    assert [Backoff(300).interval(elapsed) for elapsed in (0, 1000)] == [300, 300]


@given(SECONDS, WAIT_TIMES, CHANCES)
def test_jitter_is_at_most_a_fifth(elapsed: float, wait_time: float, chance: float) -> None:
    interval = Backoff(wait_time).interval(elapsed)
    assert 0.8 * interval - 1e-9 <= Backoff(wait_time).delay(elapsed, chance) <= 1.2 * interval + 1e-9


@given(SECONDS, WAIT_TIMES, CHANCES)
def test_the_first_poll_falls_within_one_interval(elapsed: float, wait_time: float, chance: float) -> None:
    assert 0 <= Backoff(wait_time).first_delay(elapsed, chance) <= Backoff(wait_time).interval(elapsed)


@given(SECONDS, WAIT_TIMES)
def test_intervals_are_bounded(elapsed: float, wait_time: float) -> None:
    assert 0.2 <= Backoff(wait_time).interval(elapsed) <= max(60, wait_time)


@given(st.floats(0, 1e5), st.floats(0, 300))
def test_polls_and_elapsed_are_inverse(elapsed: float, wait_time: float) -> None:
    backoff = Backoff(wait_time)
    assert backoff.elapsed(backoff.polls(elapsed)) == pytest.approx(elapsed, abs=1e-6)


@pytest.mark.parametrize("wait_time", [0.2, 0.5, 100])
def test_polls_counts_the_intervals(wait_time: float) -> None:
    backoff, elapsed = Backoff(wait_time), 0.0
    for polls in range(40):
        assert backoff.polls(elapsed) == pytest.approx(polls)
        elapsed += backoff.interval(elapsed)
        if backoff.interval(elapsed) >= 60:
            break


@given(SECONDS, SECONDS)
def test_polls_fall_on_ticks_and_are_never_early(delay: float, now: float) -> None:
    delayed = delay_until_tick(delay, now)
    assert delay - 1e-6 <= delayed <= delay + TICK + 1e-6
    assert (now + delayed) / TICK == pytest.approx(round((now + delayed) / TICK), abs=1e-3)
