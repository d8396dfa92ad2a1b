"""What thousands of runs in flight cost a triggerer process: runs of a minute, submitted evenly over the minute before.

Each number of runs is a process of its own. It starts as a triggerer does that takes over from another.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from typing import Any

import pendulum
import psutil

from tests.benchmarks.polling import counts, server
from tests.benchmarks.results import report

TICK = 0.02


async def hold(url: str, runs: int, seconds: float) -> dict[str, float]:
    """Wait for the ends of runs, and measure what that costs."""
    from airflow_provider_aixplain.triggers.aixplain import AixplainModelRunTrigger

    process, delays = psutil.Process(), list[float]()

    async def tick() -> None:
        while True:
            due = time.perf_counter() + TICK
            await asyncio.sleep(TICK)
            delays.append(time.perf_counter() - due)

    async def wait(over_at: float, run: int) -> str:
        trigger = AixplainModelRunTrigger(
            f"{url}/api/v1/data/until/{over_at:.3f}/{run}",
            submitted_at=pendulum.from_timestamp(over_at - seconds).isoformat(),
            end_from_trigger=True,
            do_xcom_push=False,
        )
        return str((await anext(aiter(trigger.run()))).payload)

    await wait(0.0, -1)  # once for all that is done once
    before, cpu = process.memory_info().rss, time.process_time()
    ticking = asyncio.ensure_future(tick())
    begin = time.time()
    tasks = [asyncio.ensure_future(wait(begin + seconds * (run + 1) / runs, run)) for run in range(runs)]
    await asyncio.sleep(seconds / 4)
    held = process.memory_info().rss - before
    ended = await asyncio.gather(*tasks)
    ticking.cancel()
    delays.sort()
    return {
        "lost": sum(payload != "success" for payload in ended),
        "loop delay p99, ms": 1e3 * delays[len(delays) * 99 // 100],
        "memory, KB a run": held / runs / 1024,
        "CPU, ms a run": 1e3 * (time.process_time() - cpu) / runs,
    }


def measure(runs: int, seconds: float) -> dict[str, Any]:
    """Measure in a process of its own."""
    with server(10**9, None) as url:
        connection = json.dumps({"conn_type": "aixplain", "host": url, "password": "k" * 32})
        env = {**os.environ, "AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL", "AIRFLOW_CONN_AIXPLAIN_DEFAULT": connection}
        told = json.dumps([url, runs, seconds])
        command = [sys.executable, "-m", "tests.benchmarks.scale", "--hold", told]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900)
        if done.returncode:
            raise RuntimeError(done.stderr[-3000:])
        found = counts(url, None)
    row = json.loads(done.stdout.splitlines()[-1])
    return {"runs": runs, **row, "polls a run": found["polls"] / runs, "connections": found["most"]}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--runs", type=int, nargs="+", default=[100, 1000, 5000], help="how many (default: 100 1000 5000)"
    )
    parser.add_argument("--seconds", type=float, default=60, help="how long a run takes (default: %(default)s)")
    parser.add_argument("--hold", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.hold:
        print(json.dumps(asyncio.run(hold(*json.loads(arguments.hold)))))
        return
    rows = [measure(runs, arguments.seconds) for runs in arguments.runs]
    report("scale", f"Runs of {arguments.seconds:g} s in flight in one triggerer process", rows)


if __name__ == "__main__":
    main()
