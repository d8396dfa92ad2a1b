"""Runs in a real Airflow in all modes, and as a lower bound as many waits of Airflow's own operators."""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import pendulum

from tests.benchmarks.preload import preload
from tests.benchmarks.results import report
from tests.support.deployment import Airflow, Emulator, Processes
from tests.support.services import Postgres

DAGS = Path(__file__).parent / "dags"
WAYS = (
    "blocking",
    "floor_deferred",
    "deferred_whole",
    "floor_with_fields",
    "deferred",
    "deferred_adaptive",
    "floor_ended_by_triggers",
    "ended_by_triggers_whole",
    "ended_by_triggers",
    "floor_started_by_triggers",
    "started_by_triggers_whole",
    "started_by_triggers",
    "started_by_triggers_adaptive",
)
FLOORS = {
    "deferred_whole": "floor_deferred",
    "deferred": "floor_with_fields",
    "deferred_adaptive": "floor_with_fields",
    "ended_by_triggers_whole": "floor_ended_by_triggers",
    "ended_by_triggers": "floor_ended_by_triggers",
    "started_by_triggers_whole": "floor_started_by_triggers",
    "started_by_triggers": "floor_started_by_triggers",
    "started_by_triggers_adaptive": "floor_started_by_triggers",
}
"""The lower bound of each mode."""


def measure(airflow: Airflow, emulator: Emulator, way: str) -> dict[str, Any]:
    """Run a DAG and return its cost."""
    if way.endswith("_adaptive"):
        airflow.finish("learn", airflow.trigger("learn"))
    before, cpu = len(emulator.runs()), airflow.processes.cpu_seconds()
    run_id = airflow.trigger(way)
    state = airflow.finish(way, run_id, seconds=1800)
    tasks = airflow.tasks(way, run_id)
    seconds = airflow.worker_seconds()
    cpu = airflow.processes.cpu_seconds() - cpu
    runs = emulator.runs()[before:]
    delays = sorted(_delays(airflow, way, run_id, tasks, runs)) if runs else []
    return {
        "way": way if state == "success" else f"{way} ({state})",
        "runs": len(tasks),
        "wall, s": airflow.wall_seconds(way, run_id),
        "CPU, ms per run": 1e3 * cpu / len(tasks),
        "worker slot, s per run": sum(seconds.get(task["id"], 0.0) for task in tasks) / len(tasks),
        "polls per run": statistics.mean(len(run["polled_at"]) for run in runs) if runs else None,
        "delay, median, s": statistics.median(delays) if delays else None,
        "delay, p95, s": delays[len(delays) * 95 // 100] if delays else None,
    }


def _delays(
    airflow: Airflow, way: str, run_id: str, tasks: list[dict[str, Any]], runs: list[dict[str, Any]]
) -> list[float]:
    """Return the seconds between the end of each run on the platform and the end of its task in Airflow's database."""
    finished = {run["id"]: run["finishes_at"] for run in runs}
    delays = []
    for task in tasks:
        response = airflow.xcoms(way, run_id, task["task_id"], task["map_index"], keys=["return_value"])
        run = response["return_value"]["url"].rpartition("/")[2]
        delays.append(pendulum.parse(task["end_date"]).timestamp() - finished[run])
    return delays


def main() -> None:
    """Measure each mode in one Airflow and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200, help="number of runs (default: %(default)s)")
    parser.add_argument("--blocking", type=int, default=20, help="number of blocking runs (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=30, help="duration of a run, in seconds (default: %(default)s)"
    )
    parser.add_argument("--slots", type=int, default=4, help="worker slots (default: %(default)s)")
    parser.add_argument("--sqlite", action="store_true", help="use SQLite instead of PostgreSQL")
    parser.add_argument("--preload", action="store_true", help="import the provider before task processes are forked")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="modes (default: all)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Processes(Path(folder) / "airflow") as processes:
        emulator = Emulator(processes, arguments.seconds)
        # Parsing hundreds of tasks again and again would take CPU time from the mode that is being measured.
        settings: dict[str, Any] = {"dag_processor__min_file_process_interval": 3600}
        if not arguments.sqlite:
            settings["database__sql_alchemy_conn"] = Postgres(processes).url
        airflow = Airflow(processes, DAGS, {"aixplain_default": emulator.connection}, arguments.slots, settings)
        processes.env |= {
            f"BENCH_{name.upper()}": str(getattr(arguments, name)) for name in ("runs", "blocking", "seconds")
        }
        if arguments.preload:
            preload(processes.home)
        airflow.start()
        # A triggerer's first request to Airflow takes about five seconds.
        airflow.finish("warm_up", airflow.trigger("warm_up"))
        rows = [measure(airflow, emulator, way) for way in arguments.ways]
    measured = {row["way"]: row for row in rows}
    for row in rows:
        floor = measured.get(FLOORS.get(row["way"], ""))
        for name, heading in (("wall / floor", "wall, s"), ("CPU / floor", "CPU, ms per run")):
            row[name] = row[heading] / floor[heading] if floor else None
    title = f"Runs of {arguments.seconds:g} s on {arguments.slots} worker slots"
    report("end_to_end", title, rows)


if __name__ == "__main__":
    main()
