"""The schedule that learns from earlier runs."""

from __future__ import annotations

import random
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_aixplain.protocol.adaptive import (
    MAX_SAMPLES,
    MAX_START_DELAY,
    MIN_SAMPLES,
    SAMPLES_PER_PLAN,
    Plan,
    RunTimes,
)
from airflow_provider_aixplain.protocol.schedule import Backoff
from airflow_provider_aixplain.protocol.wait import Wait
from tests.benchmarks.schedules import RUN_TIMES, cost, simulate_wait

BACKOFF = Backoff(0.5)
KNOWN = st.lists(st.floats(0, 1e5), min_size=1, max_size=MAX_SAMPLES)
SECONDS = st.floats(0, 1e6)
CHANCES = st.floats(0, 1)


def run_times_of(*run_times: float) -> RunTimes:
    memory = RunTimes()
    for run_time in run_times:
        memory.add(run_time, 0, 0, run_time, 0)
    return memory


@pytest.mark.parametrize("reports_run_time", [True, False], ids=["the platform reports run times", "it reports none"])
@pytest.mark.parametrize("name", RUN_TIMES)
def test_an_adaptive_schedule_polls_and_waits_less_than_the_backoff(name: str, reports_run_time: bool) -> None:
    adaptive = cost(RUN_TIMES[name], 1000, adaptive=True, reports_run_time=reports_run_time)
    backoff = cost(RUN_TIMES[name], 1000, adaptive=False)
    # Little can be learnt from run times that vary as much as those of agents.
    polls, mean_delay = (0.75, 0.97) if name.startswith("agent") else (0.7, 0.9)
    assert adaptive.polls < polls * backoff.polls
    assert adaptive.mean_delay < mean_delay * backoff.mean_delay
    assert adaptive.p95_delay < 0.9 * backoff.p95_delay


@pytest.mark.parametrize("then", [3.0, 300.0], ids=["faster", "slower"])
@pytest.mark.parametrize("reports_run_time", [True, False], ids=["the platform reports run times", "it reports none"])
def test_the_schedule_adapts_to_a_model_that_changes(then: float, reports_run_time: bool) -> None:
    dice, memory = random.Random(1), RunTimes()

    def run(seconds: float) -> tuple[int, float]:
        return simulate_wait(Wait(0.5, 1e6, run_times=memory), seconds, dice, reports_run_time=reports_run_time)

    for _ in range(MAX_SAMPLES):
        run(30.0)
    costs = [run(then) for _ in range(2 * MAX_SAMPLES)]
    assert max(delay for _, delay in costs) < 40
    later = costs[-MAX_SAMPLES // 2 :]
    assert statistics.mean(polls for polls, _ in later) < BACKOFF.polls(then)
    assert statistics.mean(delay for _, delay in later) < BACKOFF.interval(then) / 2


@given(KNOWN, SECONDS, CHANCES)
def test_delays_are_bounded(known: list[float], elapsed: float, chance: float) -> None:
    plan = Plan(known, BACKOFF)
    assert 0.2 <= plan.delay(elapsed, chance) < 1e6
    assert 0 <= plan.first_delay(elapsed, chance) < 1e6


@given(KNOWN, SECONDS, st.floats(0, 1e3))
def test_polls_and_elapsed_are_inverse(known: list[float], elapsed: float, more: float) -> None:
    plan = Plan(known, BACKOFF)
    assert plan.elapsed(plan.polls(elapsed)) == pytest.approx(elapsed, rel=1e-6, abs=1e-3)
    assert plan.polls(elapsed + more) >= plan.polls(elapsed)


@given(KNOWN, SECONDS)
def test_after_all_known_run_times_it_polls_like_the_backoff(known: list[float], more: float) -> None:
    plan = Plan(known, BACKOFF)
    elapsed = 2 * max(known) + 1 + more
    assert plan.delay(elapsed, 0.5) == pytest.approx(
        BACKOFF.elapsed(BACKOFF.polls(elapsed) + 1) - elapsed, rel=1e-6, abs=1e-3
    )


def test_a_few_runs_are_needed_for_a_schedule() -> None:
    known = [10.0] * MIN_SAMPLES
    assert run_times_of(*known[1:]).schedule(BACKOFF) is BACKOFF
    assert isinstance(run_times_of(*known).schedule(BACKOFF), Plan)
    assert isinstance(Wait(0.5, 100)._schedule, Backoff)


def test_a_schedule_is_recomputed_after_enough_new_runs() -> None:
    memory = run_times_of(*[10.0] * (MIN_SAMPLES + SAMPLES_PER_PLAN))
    plan, other = memory.schedule(BACKOFF), memory.schedule(Backoff(2))
    assert other is not plan
    for _ in range(SAMPLES_PER_PLAN):
        assert memory.schedule(BACKOFF) is plan
        memory.add(20.0, 0, 0, 20.0, 0)
    assert memory.schedule(BACKOFF) is not plan
    assert memory.schedule(Backoff(2)) is not other


@pytest.mark.parametrize(
    ("reported", "started_at", "last_in_progress", "finished_by", "recorded"),
    [
        (30.0, 0, 0, 40, 30),
        (30, 0, 28, 40, 30),
        (20.0, 0, 28, 40, 34),  # it waited to be run
        (50.0, 0, 28, 40, 34),  # more than has passed
        ("30", 0, 39, 40, 39.5),
        (None, 0, 0, 40, 38),
        (float("nan"), 0, 0, 40, 38),
        (0, MAX_START_DELAY, 0, 40, 38),
        (0, MAX_START_DELAY + 1, 0, 4000, None),  # a triggerer came back late
        (30.0, 3000, 0, 4000, 30),
    ],
)
def test_run_times_are_recorded_as_observed(
    reported: object, started_at: float, last_in_progress: float, finished_by: float, recorded: Any
) -> None:
    memory = RunTimes()
    memory.add(reported, started_at, last_in_progress, finished_by, 0.5)
    assert list(memory._samples) == ([] if recorded is None else [pytest.approx(recorded)])
