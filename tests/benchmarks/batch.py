"""A batch with the emulator: wall time compared with the ideal, CPU and memory; its results after kills; and the same
rows in a real Airflow as one batch, as mapped tasks, and in threads with the platform's own package.

One process runs the batch, like a triggerer; the emulator is another one on the same machine. Kills in a real Airflow
are in ``make test-faults``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.benchmarks.results import report
from tests.support.deployment import Airflow, Emulator, Processes
from tests.support.peer import PEER_PYTHON, peer_settings
from tests.support.services import ATTACH, ObjectStore, Postgres

IN_FLIGHT = 500
KILLS = 20
SLOTS = 4
DAGS = Path(__file__).parent / "batch_dags"


def begin(folder: str, rows: int, seconds: float) -> None:
    """Write the rows of a batch, as a worker does."""
    from airflow_provider_aixplain.batch.batch import Batch
    from airflow_provider_aixplain.batch.ledger import Header
    from airflow_provider_aixplain.inputs.rows import Row

    inputs = (Row(row, json.dumps({"data": f"row {row}", "delay": seconds})) for row in range(rows))
    Batch(folder).begin(inputs, lambda batch: Header(batch, "", rows, 0, [], "2026-01-01T00:00:00+00:00"))


def read(folder: str) -> Any:
    """Return a batch, read from its log."""
    from airflow_provider_aixplain.batch.batch import Batch

    batch = Batch(folder)
    batch.read()
    return batch


def peak_memory() -> float:
    """Return the peak memory of this process, in MB. ``ru_maxrss`` would include that of the process that forked it."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) / 1024


def run(folder: str) -> dict[str, float]:
    """Run a batch until it has finished, as a triggerer does, and return its cost to this process."""
    from airflow_provider_aixplain.triggers.batch import AixplainBatchTrigger

    async def wait() -> Any:
        limits = {"max_in_flight": IN_FLIGHT}
        trigger = AixplainBatchTrigger(folder, read(folder).header.batch, "echo", "aixplain_default", limits)
        return [event.payload["error"] async for event in trigger.run()]

    cpu, wall = time.process_time(), time.monotonic()
    assert asyncio.run(wait()) == [None]
    return {
        "wall, s": time.monotonic() - wall,
        "CPU, s": time.process_time() - cpu,
        "peak memory, MB": peak_memory(),
    }


def start(folder: str, connection: str) -> subprocess.Popen[str]:
    """Run a batch in a new process."""
    env = {**os.environ, "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR", "AIRFLOW_CONN_AIXPLAIN_DEFAULT": connection}
    command = [sys.executable, "-m", "tests.benchmarks.batch", "--run", folder]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)


def results(folder: str) -> Counter[int]:
    """Return the number of results of each row."""
    from airflow_provider_aixplain.batch.batch import read_results

    return Counter(result["row"] for result in read_results(folder))


def measure(rows: int, seconds: float, storage: str = "file") -> dict[str, Any]:
    """Run a batch once.

    :param storage: ``file`` for a local folder, or ``s3`` for object storage whose requests are counted.
    """
    with tempfile.TemporaryDirectory() as place, Processes(Path(place) / "processes") as processes:
        emulator, folder = Emulator(processes, seconds), f"file://{place}/batch"
        objects = ObjectStore(processes) if storage == "s3" else None
        if objects:
            folder = f"s3://{objects.bucket}/batch"
            os.environ |= objects.env
            attach(folder)
        begin(folder, rows, seconds)
        requests_before = count_requests(processes) if objects else Counter()
        process = start(folder, emulator.connection)
        cost = json.loads(process.communicate()[0].splitlines()[-1])
        requests = count_requests(processes) - requests_before if objects else Counter()
        commits = read(folder).log.number
        assert set(results(folder).values()) == {1}
        assert len(results(folder)) == rows
        object_count = len(objects.fs.find(f"{objects.bucket}/batch")) if objects else None
    ideal = max(1.0, rows / IN_FLIGHT) * seconds
    row = {
        "rows": rows,
        "run, s": seconds,
        "wall, s": cost["wall, s"],
        "ideal, s": ideal,
        "wall / ideal": cost["wall, s"] / ideal if ideal else None,  # runs of 0 s have no ideal
        "CPU, ms per row": 1e3 * cost["CPU, s"] / rows,
        "peak memory, MB": cost["peak memory, MB"],
        "commits": commits,
    }
    if not objects:
        return row
    puts = requests["PUT"]
    return {**row, "objects": object_count, "PUT requests": puts, "other requests": requests.total() - puts}


def count_requests(processes: Processes) -> Counter[str]:
    """Return the number of requests that the S3 server answered, by method."""
    return Counter(re.findall(r'"([A-Z]+) /', processes.log_path("objects").read_text()))


def attach(folder: str) -> None:
    """Register the scheme ``s3`` in this process."""
    if folder.startswith("s3:"):
        from s3fs import S3FileSystem

        S3FileSystem.clear_instance_cache()  # an earlier S3 server had another URL
        exec(ATTACH, {})


def kill(rows: int, seconds: float) -> dict[str, Any]:
    """Run a batch that is killed repeatedly."""
    with tempfile.TemporaryDirectory() as place, Processes(Path(place) / "emulator") as processes:
        emulator, folder = Emulator(processes, seconds, {"timeout": 5}), f"file://{place}/batch"
        begin(folder, rows, seconds)
        for _ in range(KILLS):
            process = start(folder, emulator.connection)
            time.sleep(random.uniform(1.5, 5))
            process.send_signal(signal.SIGKILL)
            process.communicate()
        start(folder, emulator.connection).communicate()
        submitted = Counter(run["payload"]["data"] for run in emulator.runs())
        found = results(folder)
        orphaned = read(folder).ledger.orphaned
    return {
        "rows": rows,
        "kills": KILLS,
        "results": len(found),
        "duplicates": sum(count > 1 for count in found.values()),
        "submissions": submitted.total(),
        "orphaned": len(orphaned),
    }


def compare(rows: int, seconds: float) -> list[dict[str, Any]]:
    """Run the same rows in a real Airflow in each mode."""
    with tempfile.TemporaryDirectory() as place, Processes(Path(place) / "airflow") as processes:
        emulator = Emulator(processes, seconds)
        postgres = Postgres(processes)
        settings = {"database__sql_alchemy_conn": postgres.url, "core__max_active_tasks_per_dag": rows}
        airflow = Airflow(processes, DAGS, {"aixplain_default": emulator.connection}, SLOTS, settings)
        processes.env |= {
            "BENCH_ROWS": str(rows),
            "BENCH_IN_FLIGHT": str(IN_FLIGHT),
            "BENCH_RESULTS": f"{place}/results",
            "BENCH_PEER": str(PEER_PYTHON),
            **peer_settings(emulator.url),
        }
        airflow.start()
        return [_measure_mode(airflow, emulator, way) for way in ("batch", "threads", "mapped")]


def _measure_mode(airflow: Airflow, emulator: Emulator, way: str) -> dict[str, Any]:
    before = len(emulator.runs())
    run_id = airflow.trigger(way)
    state = airflow.finish(way, run_id, seconds=3600)
    seconds = airflow.worker_seconds()
    tasks = airflow.tasks(way, run_id)
    runs = emulator.runs()[before:]
    return {
        "way": way if state == "success" else f"{way} ({state})",
        "rows": len({run["payload"]["data"] for run in runs}),
        "tasks": len(tasks),
        "wall, s": airflow.wall_seconds(way, run_id),
        "worker slot, s": sum(seconds.get(task["id"], 0.0) for task in tasks),
        "polls per row": sum(len(run["polled_at"]) for run in runs) / len(runs),
    }


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--most", type=int, default=100_000, help="maximum number of rows (default: %(default)s)")
    parser.add_argument("--rows", type=int, help="measure one batch of this many rows instead")
    parser.add_argument("--seconds", type=float, default=0.0, help="duration of its runs (default: %(default)s)")
    parser.add_argument(
        "--storage", choices=("file", "s3"), default="file", help="storage of the batch (default: %(default)s)"
    )
    arguments = parser.parse_args()
    if arguments.run:
        attach(arguments.run)
        print(json.dumps(run(arguments.run)))
        return
    if arguments.rows:
        row = measure(arguments.rows, arguments.seconds, arguments.storage)
        report("batch_alone", f"A batch with {IN_FLIGHT} runs in flight ({arguments.storage})", [row])
        return
    sizes = [
        (10_000, 5.0),
        *((rows, 0.5) for rows in (1_000, 10_000, 100_000) if rows <= arguments.most),
        (10_000, 0.0),
    ]
    report("batch", f"Batches with {IN_FLIGHT} runs in flight", [measure(*size) for size in sizes])
    in_objects = [measure(rows, 5.0, "s3") for rows in (1_000, 10_000)]
    report("batch_objects", f"Batches in object storage on the same machine, {IN_FLIGHT} runs in flight", in_objects)
    report("batch_killed", "A batch whose process is killed at random times", [kill(4_000, 5.0)])
    ways = f"1,000 rows of 5 s in a real Airflow, {SLOTS} worker slots, {IN_FLIGHT} concurrent runs or threads"
    report("batch_ways", ways, compare(1_000, 5.0))


if __name__ == "__main__":
    main()
