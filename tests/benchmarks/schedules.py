"""Polls per run of each schedule, and how long a result waits for the next poll, in a simulation of many runs."""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from airflow_provider_aixplain.protocol.adaptive import RunTimes
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus
from airflow_provider_aixplain.protocol.wait import Wait
from tests.benchmarks.results import report

RUNNING = ModelResponse(ResponseStatus.IN_PROGRESS)
LEARNING_RUNS = 100
"""Runs before a schedule that learns is measured."""

Draw = Callable[[random.Random], float]
RUN_TIMES: dict[str, Draw] = {
    "constant, 30 s": lambda dice: 30.0,
    "uniform, 20 to 60 s": lambda dice: dice.uniform(20, 60),
    "log-normal, median 60 s, sigma 0.5": lambda dice: 60 * dice.lognormvariate(0, 0.5),
    "log-normal, median 600 s, sigma 1": lambda dice: 600 * dice.lognormvariate(0, 1),
    "bimodal, 5 s or 120 s": lambda dice: dice.choice([dice.gauss(5, 0.5), dice.gauss(120, 6)]),
    "bimodal, one in ten 600 s instead of 5 s": lambda dice: (
        dice.gauss(600, 30) if dice.random() < 0.1 else dice.gauss(5, 0.5)
    ),
}
"""Durations of runs, in seconds."""


@dataclass(frozen=True)
class Cost:
    """Cost of a schedule: polls per run, and seconds between the end of a run and the poll that sees it."""

    polls: float
    mean_delay: float
    p95_delay: float

    @classmethod
    def of(cls, runs: list[tuple[int, float]]) -> Cost:
        delays = sorted(delay for _, delay in runs)
        return cls(
            statistics.mean(polls for polls, _ in runs), statistics.mean(delays), delays[len(delays) * 95 // 100]
        )


def simulate_wait(wait: Wait, run_time: float, dice: random.Random, *, reports_run_time: bool) -> tuple[int, float]:
    """Simulate waiting for a run.

    :param reports_run_time: whether the platform reports the run time.
    :return: the number of polls, and the delay.
    """
    elapsed = wait.first_delay(0.0, dice.random())
    while elapsed < run_time:
        wait.judge(RUNNING, elapsed)
        elapsed += wait.delay(elapsed, dice.random())
    result = ModelResponse(ResponseStatus.SUCCESS, completed=True, run_time=run_time if reports_run_time else 0)
    wait.judge(result, elapsed)
    wait.learn(result, elapsed, dice.random())
    return wait.polls, elapsed - run_time


def cost(draw: Draw, runs: int, *, adaptive: bool, reports_run_time: bool = True, seed: int = 1) -> Cost:
    """Return the cost of one of this provider's schedules, for consecutive runs."""
    dice = random.Random(seed)
    run_times = RunTimes() if adaptive else None
    waits = (Wait(0.5, 1e6, run_times=run_times) for _ in range(LEARNING_RUNS + runs))
    return Cost.of(
        [simulate_wait(wait, draw(dice), dice, reports_run_time=reports_run_time) for wait in waits][LEARNING_RUNS:]
    )


def fixed_cost(draw: Draw, runs: int, interval: float, seed: int = 1) -> Cost:
    """Return the cost of polling at a fixed interval."""
    dice = random.Random(seed)

    def wait() -> tuple[int, float]:
        run_time, elapsed, polls = draw(dice), interval * dice.random(), 1
        while elapsed < run_time:
            elapsed, polls = elapsed + interval, polls + 1
        return polls, elapsed - run_time

    return Cost.of([wait() for _ in range(runs)])


def main() -> None:
    """Simulate all schedules and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3000, help="number of runs (default: %(default)s)")
    runs = parser.parse_args().runs
    rows = []
    for name, draw in RUN_TIMES.items():
        adaptive = cost(draw, runs, adaptive=True)
        mean = statistics.mean(draw(random.Random(seed)) for seed in range(runs))
        interval = mean / (adaptive.polls - 0.5)
        costs = {
            "backoff (default)": cost(draw, runs, adaptive=False),
            "adaptive": adaptive,
            "adaptive, no run times reported": cost(draw, runs, adaptive=True, reports_run_time=False),
            "every 5 s": fixed_cost(draw, runs, 5),
            f"same number of polls: every {interval:.3g} s": fixed_cost(draw, runs, interval),
        }
        for schedule, measured in costs.items():
            rows.append(
                {
                    "run times": name,
                    "schedule": schedule,
                    "polls per run": measured.polls,
                    "delay, mean, s": measured.mean_delay,
                    "delay, p95, s": measured.p95_delay,
                }
            )
    report("schedules", "Polls per run, and delay between the end of a run and the poll that sees it (simulated)", rows)


if __name__ == "__main__":
    main()
