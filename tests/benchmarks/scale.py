"""Cost of thousands of runs in flight in one triggerer process: runs of ten minutes, submitted evenly over as long.

Each number of runs has its own process, which starts all triggers at once, like a triggerer that takes over from
another one.
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
    """Wait until runs have finished, and measure the cost."""
    from airflow_provider_aixplain.triggers.aixplain import AixplainModelRunTrigger

    process, delays = psutil.Process(), list[float]()

    async def tick() -> None:
        while True:
            due = time.perf_counter() + TICK
            await asyncio.sleep(TICK)
            delays.append(time.perf_counter() - due)

    async def wait(finishes_at: float, run: int) -> str:
        trigger = AixplainModelRunTrigger(
            f"{url}/api/v1/data/until/{finishes_at:.3f}/{run}",
            submitted_at=pendulum.from_timestamp(finishes_at - seconds).isoformat(),
        )
        return str((await anext(aiter(trigger.run()))).payload["status"])

    await wait(0.0, -1)  # warm-up
    before, cpu = process.memory_info().rss, time.process_time()
    ticking = asyncio.ensure_future(tick())
    begin = time.time()
    tasks = [asyncio.ensure_future(wait(begin + seconds * (run + 1) / runs, run)) for run in range(runs)]
    await asyncio.sleep(seconds / 4)
    memory = process.memory_info().rss - before
    payloads = await asyncio.gather(*tasks)
    ticking.cancel()
    delays.sort()
    return {
        "lost": sum(payload != "success" for payload in payloads),
        "loop delay p99, ms": 1e3 * delays[len(delays) * 99 // 100],
        "memory, KB per run": memory / runs / 1024,
        "CPU, ms per run": 1e3 * (time.process_time() - cpu) / runs,
    }


def measure(runs: int, seconds: float) -> dict[str, Any]:
    """Measure in a new process."""
    with server(10**9, None) as url:
        connection = json.dumps({"conn_type": "aixplain", "host": url, "password": "k" * 32})
        env = {**os.environ, "AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL", "AIRFLOW_CONN_AIXPLAIN_DEFAULT": connection}
        arguments = json.dumps([url, runs, seconds])
        command = [sys.executable, "-m", "tests.benchmarks.scale", "--hold", arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=3600)
        if done.returncode:
            raise RuntimeError(done.stderr[-3000:])
        counted = counts(url, None)
    row = json.loads(done.stdout.splitlines()[-1])
    return {"runs": runs, **row, "polls per run": counted["polls"] / runs, "connections": counted["most"]}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--runs", type=int, nargs="+", default=[1000, 20000], help="numbers of runs (default: 1000 20000)"
    )
    parser.add_argument("--seconds", type=float, default=600, help="duration of a run (default: %(default)s)")
    parser.add_argument("--hold", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.hold:
        print(json.dumps(asyncio.run(hold(*json.loads(arguments.hold)))))
        return
    rows = [measure(runs, arguments.seconds) for runs in arguments.runs]
    report("scale", f"Runs of {arguments.seconds:g} s in flight in one triggerer process", rows)


if __name__ == "__main__":
    main()
