"""``make bench``: 20 mapped runs of 20 s on 4 worker slots of a real Airflow: deferred, ended by triggers, blocking."""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.airflow.deployment import Airflow, Emulator, Processes, wait_until

DAGS = Path(__file__).parent / "dags"


def main() -> None:
    """Run all ways in one Airflow and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="how long a run takes (default: %(default)s)")
    parser.add_argument("--slots", type=int, default=4, help="worker slots (default: %(default)s)")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    table = Table("way", title=f"mapped runs of {arguments.seconds:g} s on {arguments.slots} worker slots")
    for heading in ("runs", "wall time", "held a worker, median", "polls a run, median", "delay of the end, median"):
        table.add_column(heading, justify="right")
    walls = {}
    with tempfile.TemporaryDirectory() as folder, Processes(Path(folder) / "airflow") as processes:
        emulator = Emulator(processes, arguments.seconds)
        airflow = Airflow(processes, DAGS, {"aixplain_default": emulator.connection}, arguments.slots)
        console.print("Starting a real Airflow ...")
        airflow.start()
        for way in ("deferred", "ended_by_triggers", "blocking"):
            before = len(emulator.runs())
            run_id = airflow.trigger(way)
            state = airflow.finish(way, run_id, seconds=1800)
            tasks = airflow.tasks(way, run_id)
            wait_until(lambda tasks=tasks: all(t["id"] in airflow.worker_seconds() for t in tasks), "the workers", 60)
            held = airflow.worker_seconds()
            runs = emulator.runs()[before:]
            walls[way] = airflow.wall_seconds(way, run_id)
            delays = [run["polled_at"][-1] - run["over_at"] for run in runs]
            table.add_row(
                way if state == "success" else f"{way} ({state})",
                str(len(runs)),
                f"{walls[way]:.1f} s",
                f"{statistics.median(held[task['id']] for task in tasks):.1f} s",
                f"{statistics.median(len(run['polled_at']) for run in runs):g}",
                f"{statistics.median(delays):.2f} s",
            )
    console.print(table)
    for way in ("deferred", "ended_by_triggers"):
        console.print(f"Blocking takes {walls['blocking'] / walls[way]:.1f} times as long as {way}.")


if __name__ == "__main__":
    main()
