"""When to ask again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_aixplain.protocol import schedule

SECONDS = st.floats(0, 1e6)
WAIT_TIMES = st.floats(0, 300)
CHANCES = st.floats(0, 1)


@pytest.mark.parametrize("wait_time", [0.0, 0.2, 0.5, 2.0])
def test_each_wait_is_ten_percent_longer_than_the_one_before_up_to_a_minute(wait_time: float) -> None:
    elapsed, expected = 0.0, max(wait_time, 0.2)
    for _ in range(200):
        wait = schedule.interval(elapsed, wait_time)
        assert wait == pytest.approx(min(expected, 60))
        elapsed += wait
        expected = min(expected * 1.1, 60)


def test_a_longer_wait_than_a_minute_is_kept() -> None:
    assert [schedule.interval(elapsed, 300) for elapsed in (0, 1000)] == [300, 300]


@given(SECONDS, WAIT_TIMES, CHANCES)
def test_jitter_is_a_fifth_at_the_most(elapsed: float, wait_time: float, chance: float) -> None:
    interval = schedule.interval(elapsed, wait_time)
    assert 0.8 * interval - 1e-9 <= schedule.delay(elapsed, wait_time, chance) <= 1.2 * interval + 1e-9


@given(SECONDS, WAIT_TIMES, CHANCES)
def test_a_waiter_first_polls_within_one_interval(elapsed: float, wait_time: float, chance: float) -> None:
    assert 0 <= schedule.first_delay(elapsed, wait_time, chance) <= schedule.interval(elapsed, wait_time)


@given(SECONDS, WAIT_TIMES)
def test_bounds(elapsed: float, wait_time: float) -> None:
    assert 0.2 <= schedule.interval(elapsed, wait_time) <= max(60, wait_time)
