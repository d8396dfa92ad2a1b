"""What one task costs in a real Airflow: the visits of workers, and the messages of its trigger.

The tasks run one at a time, so that everything between two tasks belongs to one of them. The Connection is in Airflow's
database, as it usually is.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.end_to_end import DAGS
from tests.benchmarks.instrumented import PATH
from tests.benchmarks.preload import preload
from tests.benchmarks.results import report
from tests.support.deployment import Airflow, Emulator, Processes

ROOT = Path(__file__).parents[2]
SECONDS = 5
WORKER_WAYS = {
    "floor_deferred": "DateTimeSensorAsync",
    "deferred_whole": "multiple_outputs=False",
    "deferred": "default",
    "agent": "agent",
    "floor_ended_by_triggers": "DateTimeSensorAsync, ended by its trigger",
    "ended_by_triggers_whole": "ended by triggers, multiple_outputs=False",
    "floor_blocking": "DateTimeSensor",
    "blocking": "deferrable=False",
    "batch": "batch of 100 rows",
}
TRIGGER_WAYS = {
    "floor_deferred": "DateTimeTrigger",
    "deferred": "default",
    "floor_ended_by_triggers": "DateTimeTrigger, ends its task",
    "ended_by_triggers_whole": "ended, multiple_outputs=False",
    "ended_by_triggers": "ended",
    "floor_started_by_triggers": "TimeDeltaTrigger, starts and ends its task",
    "started_by_triggers_whole": "started and ended, multiple_outputs=False",
    "started_by_triggers": "started and ended",
    "batch": "batch of 100 rows",
}
REQUESTS = {
    "Airflow's": r"task-instances/",
    "record": r"store/ti/",
    "XComs": r"xcoms/",
    "Connection": r"connections/",
    "other": r"",
}
MESSAGES = {
    "XComs read": r"GetXCom",
    "XComs written": r"SetXCom",
    "other": r"(?!TriggerStateChanges)",
    "event": r"",
}
"""The kinds of requests and messages, the first that matches. The event is what Airflow's own triggers send too."""


class InstrumentedAirflow(Airflow):
    """An Airflow whose components record what tasks cost."""

    def start_component(self, name: str) -> None:
        self.processes.start(name, sys.executable, "-m", "tests.benchmarks.instrumented", name)


def records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of JSON in a file."""
    for line in path.read_text(errors="replace").splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def measure(airflow: Airflow, way: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Run a DAG with one task, and return its requests to the API server and its other costs, in order."""
    paths = airflow.processes.log_path("api-server"), Path(airflow.processes.env[PATH])
    before = [len(list(records(path))) for path in paths]
    if (state := airflow.finish(way, airflow.trigger(way))) != "success":
        raise RuntimeError(f"{way}: {state}")
    airflow.worker_seconds()  # waits until the task processes have ended
    lines, costs = (list(records(path))[count:] for path, count in zip(paths, before, strict=True))
    return [line for line in lines if line.get("path", "").startswith("/execution/")], costs


def count(kinds: dict[str, str], names: Iterable[str]) -> dict[str, int]:
    """Count names by the first kind that matches."""
    found = Counter(next(kind for kind, pattern in kinds.items() if re.match(pattern, name)) for name in names)
    return {kind: found[kind] for kind in kinds}


def split_visits(requests: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return the requests of each visit of a worker."""
    visits: list[list[dict[str, Any]]] = []
    for request in requests:
        if request["path"].endswith("/run"):
            visits.append([])
        visits[-1].append(request)
    return visits


def request_rows(title: str, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the requests of each visit of a worker, by kind."""
    rows = []
    for number, visit in enumerate(split_visits(requests), 1):
        kinds = count(REQUESTS, (request["path"].removeprefix("/execution/") for request in visit))
        cpu = sum(request["duration_us"] for request in visit) / 1e3
        rows.append({"task": title, "visit": number, "requests": len(visit), **kinds, "API server, ms": cpu})
    return rows


def process_rows(title: str, costs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the imports and the CPU time of each visit of a worker, and what of it is not Airflow's."""
    rows = []
    for number, record in enumerate((record for record in costs if record["kind"] == "visit"), 1):
        modules, cpu = Counter(record["modules"]), Counter(record["milliseconds"])
        row: dict[str, Any] = {"task": title, "visit": number}
        for heading, activity in (("DAG file", "imports of the provider"), ("execute", "imports in execute")):
            row |= {f"imports, {heading}": modules[activity], f"imports, {heading}, ms": cpu[activity]}
        rows.append({**row, "execute, ms": cpu["execute"], "whole process, ms": sum(cpu.values())})
    return rows


def trigger_row(title: str, costs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the messages and the CPU time of a task's trigger.

    Those that read a Connection are left out, as the triggers of a process share them.
    """
    shared = ("GetConnection", "MaskSecret")
    messages = [record for record in costs if record["kind"] == "message" and record["name"] not in shared]
    kinds = count(MESSAGES, (record["name"] for record in messages))
    main_process = sum(record["milliseconds"] for record in messages)
    trigger = sum(record["milliseconds"] for record in costs if record["kind"] == "trigger")
    return {"task": title, "messages": len(messages), **kinds, "their CPU, ms": main_process, "trigger, ms": trigger}


def medians(tables: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return a table whose numbers are the medians of those of several tables."""
    return [
        {
            name: rows[0][name] if name == "task" else statistics.median_low(row[name] for row in rows)
            for name in rows[0]
        }
        for rows in zip(*tables, strict=True)
    ]


def main() -> None:
    """Run each kind of task, and print a table of workers and one of triggers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="runs of each kind (default: %(default)s)")
    parser.add_argument("--ways", nargs="+", choices=WORKER_WAYS | TRIGGER_WAYS, help="kinds of tasks (default: all)")
    parser.add_argument("--preload", action="store_true", help="import the provider before task processes are forked")
    arguments = parser.parse_args()
    request_table: list[dict[str, Any]] = []
    process_table: list[dict[str, Any]] = []
    trigger_table: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, Processes(Path(folder) / "airflow") as processes:
        emulator = Emulator(processes, SECONDS)
        airflow = InstrumentedAirflow(processes, DAGS, {})
        (path := processes.home / "costs.jsonl").touch()
        processes.env |= {"PYTHONPATH": str(ROOT), PATH: str(path), "BENCH_SECONDS": str(SECONDS)}
        processes.env |= {"BENCH_RUNS": "1", "BENCH_BLOCKING": "1"}
        if arguments.preload:
            preload(processes.home)
        airflow.start()
        connection = json.loads(emulator.connection)
        connection |= {"connection_id": "aixplain_default", "extra": json.dumps(connection["extra"])}
        airflow.call("POST", "/connections", json=connection)
        measure(airflow, "warm_up")
        for way in dict.fromkeys([*WORKER_WAYS, *TRIGGER_WAYS]):
            if arguments.ways and way not in arguments.ways:
                continue
            measured = [measure(airflow, way) for _ in range(arguments.runs)]
            if title := WORKER_WAYS.get(way):
                request_table += medians([request_rows(title, requests) for requests, _ in measured])
                process_table += medians([process_rows(title, costs) for _, costs in measured])
            if title := TRIGGER_WAYS.get(way):
                trigger_table += medians([[trigger_row(title, costs)] for _, costs in measured])
    for name, title, table in (
        ("visits", "Requests to the API server, and its CPU time, for each visit of a worker (median)", request_table),
        ("task_processes", "Modules imported and CPU time in each visit of a worker (median)", process_table),
        ("triggers", "Messages of a trigger, which its triggerer handles one a turn, and CPU time", trigger_table),
    ):
        if table:
            report(name, title, table)


if __name__ == "__main__":
    main()
