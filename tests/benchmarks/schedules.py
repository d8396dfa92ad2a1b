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
    "agent: log-normal, median 20 s, sigma 1.2": lambda dice: 20 * dice.lognormvariate(0, 1.2),
    "agent: log-normal, median 60 s, sigma 1.5": lambda dice: 60 * dice.lognormvariate(0, 1.5),
    "agent: Pareto, at least 10 s, alpha 1.2": lambda dice: 10 * dice.paretovariate(1.2),
    "agent: answers of 4 s, three in ten loops, median 90 s, sigma 1.2": lambda dice: (
        90 * dice.lognormvariate(0, 1.2) if dice.random() < 0.3 else 4 * dice.lognormvariate(0, 0.3)
    ),
    "agent: 1 to 12 tool calls, median 6 s, sigma 0.8 each": lambda dice: sum(
        6 * dice.lognormvariate(0, 0.8) for _ in range(min(12, 1 + int(dice.expovariate(0.4))))
    ),
}
"""Durations of runs, in seconds. Those of agents are assumptions: heavy tails, and loops of tool calls."""


@dataclass(frozen=True)
class Cost:
    """Cost of a schedule: polls per run, and seconds between the end of a run and the poll that sees it."""

    polls: float
    mean_delay: float
    median_delay: float
    p95_delay: float

    @classmethod
    def of(cls, runs: list[tuple[int, float]]) -> Cost:
        delays = sorted(delay for _, delay in runs)
        return cls(
            statistics.mean(polls for polls, _ in runs),
            statistics.mean(delays),
            delays[len(delays) // 2],
            delays[len(delays) * 95 // 100],
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


def draw_run_times(draw: Draw, runs: int, seed: int) -> list[float]:
    """Return the durations of consecutive runs, the same ones for all schedules."""
    dice = random.Random(f"run times {seed}")
    return [draw(dice) for _ in range(runs)]


def cost(draw: Draw, runs: int, *, adaptive: bool, reports_run_time: bool = True, seed: int = 1) -> Cost:
    """Return the cost of one of this provider's schedules, for consecutive runs."""
    run_times = RunTimes() if adaptive else None
    return Cost.of(simulate(draw, LEARNING_RUNS + runs, run_times, reports_run_time, seed)[LEARNING_RUNS:])


def simulate(
    draw: Draw, runs: int, run_times: RunTimes | None, reports_run_time: bool = True, seed: int = 1
) -> list[tuple[int, float]]:
    """Return the number of polls and the delay of each of consecutive runs."""
    dice = random.Random(seed)
    return [
        simulate_wait(Wait(0.5, 1e6, run_times=run_times), run_time, dice, reports_run_time=reports_run_time)
        for run_time in draw_run_times(draw, runs, seed)
    ]


def restart_cost(draw: Draw, restarts: int) -> tuple[float, float]:
    """Return the polls and the seconds of delay that a triggerer has lost 100 runs after it has lost its run times."""
    polls, delays = 0, 0.0
    for seed in range(restarts):
        known = RunTimes()
        simulate(draw, LEARNING_RUNS, known, seed=-seed - 1)
        lost, kept = (simulate(draw, 100, run_times, seed=seed) for run_times in (RunTimes(), known))
        polls += sum(polls for polls, _ in lost) - sum(polls for polls, _ in kept)
        delays += sum(delay for _, delay in lost) - sum(delay for _, delay in kept)
    return polls / restarts, delays / restarts


def fixed_cost(draw: Draw, runs: int, interval: float, seed: int = 1) -> Cost:
    """Return the cost of polling at a fixed interval."""
    dice = random.Random(seed)

    def wait(run_time: float) -> tuple[int, float]:
        elapsed, polls = interval * dice.random(), 1
        while elapsed < run_time:
            elapsed, polls = elapsed + interval, polls + 1
        return polls, elapsed - run_time

    return Cost.of([wait(run_time) for run_time in draw_run_times(draw, LEARNING_RUNS + runs, seed)[LEARNING_RUNS:]])


def main() -> None:
    """Simulate all schedules and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3000, help="number of runs (default: %(default)s)")
    parser.add_argument("--restarts", type=int, default=100, help="number of restarts (default: %(default)s)")
    arguments = parser.parse_args()
    runs, rows, restarts = arguments.runs, [], []
    for name, draw in RUN_TIMES.items():
        adaptive = cost(draw, runs, adaptive=True)
        mean = statistics.mean(draw_run_times(draw, LEARNING_RUNS + runs, seed=1)[LEARNING_RUNS:])
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
                    "delay, median, s": measured.median_delay,
                    "delay, p95, s": measured.p95_delay,
                }
            )
        polls, delay = restart_cost(draw, arguments.restarts)
        restarts.append({"run times": name, "more polls, in 100 runs": polls, "longer delays, in 100 runs, s": delay})
    report("schedules", "Polls per run, and delay between the end of a run and the poll that sees it (simulated)", rows)
    report("schedules_restart", "What a triggerer loses that restarts without its run times (simulated)", restarts)


if __name__ == "__main__":
    main()
