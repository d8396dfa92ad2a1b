"""How many polls a schedule makes for a run, and how long a result waits for the next one: simulated, for many runs."""

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
LEARNT = 100
"""Runs after which a schedule that learns is measured."""

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
"""Seconds that runs take."""


@dataclass(frozen=True)
class Cost:
    """What a schedule costs: polls a run, and seconds from the end of a run to the poll that sees it."""

    polls: float
    mean_delay: float
    p95_delay: float

    @classmethod
    def of(cls, runs: list[tuple[int, float]]) -> Cost:
        delays = sorted(delay for _, delay in runs)
        return cls(
            statistics.mean(polls for polls, _ in runs), statistics.mean(delays), delays[len(delays) * 95 // 100]
        )


def waited(wait: Wait, run_time: float, dice: random.Random, *, tells: bool) -> tuple[int, float]:
    """Wait for a run.

    :param tells: whether the platform tells the run time.
    :return: the number of polls, and the delay.
    """
    elapsed = wait.first_delay(0.0, dice.random())
    while elapsed < run_time:
        wait.judge(RUNNING, elapsed)
        elapsed += wait.delay(elapsed, dice.random())
    over = ModelResponse(ResponseStatus.SUCCESS, completed=True, run_time=run_time if tells else 0)
    wait.judge(over, elapsed)
    wait.learn(over, elapsed, dice.random())
    return wait.polls, elapsed - run_time


def cost(draw: Draw, runs: int, *, adaptive: bool, tells: bool = True, seed: int = 1) -> Cost:
    """Return what one of our schedules costs, for runs one after another."""
    dice = random.Random(seed)
    run_times = RunTimes() if adaptive else None
    waits = (Wait(0.5, 1e6, run_times=run_times) for _ in range(LEARNT + runs))
    return Cost.of([waited(wait, draw(dice), dice, tells=tells) for wait in waits][LEARNT:])


def fixed_cost(draw: Draw, runs: int, interval: float, seed: int = 1) -> Cost:
    """Return what polling at a fixed interval costs."""
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
    parser.add_argument("--runs", type=int, default=3000, help="how many (default: %(default)s)")
    runs = parser.parse_args().runs
    rows = []
    for name, draw in RUN_TIMES.items():
        knows = cost(draw, runs, adaptive=True)
        mean = statistics.mean(draw(random.Random(seed)) for seed in range(runs))
        interval = mean / (knows.polls - 0.5)
        costs = {
            "backoff (default)": cost(draw, runs, adaptive=False),
            "adaptive": knows,
            "adaptive, no run times told": cost(draw, runs, adaptive=True, tells=False),
            "every 5 s": fixed_cost(draw, runs, 5),
            f"as many polls: every {interval:.3g} s": fixed_cost(draw, runs, interval),
        }
        for schedule, found in costs.items():
            rows.append(
                {
                    "run times": name,
                    "schedule": schedule,
                    "polls a run": found.polls,
                    "delay, mean, s": found.mean_delay,
                    "delay, p95, s": found.p95_delay,
                }
            )
    report("schedules", "Polls, and seconds from the end of a run to the poll that sees it (simulated)", rows)


if __name__ == "__main__":
    main()
