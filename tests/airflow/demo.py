"""``make demo``: analyses texts with deferred tasks in a real Airflow, and shows their time in worker slots."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import psutil
from rich.console import Console
from rich.table import Table

from tests.support.deployment import FINISHED, Airflow, Emulator, Processes, end_sessions, wait_until

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".demo"
LEFT_RUNNING = HOME / "left-running.json"
DAG_ID = "example_aixplain_mapped"
RUN_SECONDS = 20
SLOTS = 4
SHOWN_STATES = {"deferred": "waiting in the triggerer", "running": "on a worker", "success": "done", "failed": "failed"}

console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)


def main() -> int:
    """Run the demo, or stop one that was left running."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--stop", action="store_true", help="only stop the demo that make demo KEEP=1 left running")
    only_stop = parser.parse_args().stop
    if LEFT_RUNNING.exists():
        stop_left_running()
        console.print("Stopped the demo that was left running.")
    elif only_stop:
        console.print("No demo was left running.")
    if only_stop:
        return 0

    api_key = os.environ.get("AIXPLAIN_API_KEY", "")
    model_id = os.environ.get("MODEL_ID") or ("" if api_key else "sentiment")
    if not model_id:
        console.print("AIXPLAIN_API_KEY is set: name the model too, as in make demo MODEL_ID=6414bd3cd09663e9225130e8")
        return 2
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    code, url = 1, ""
    processes = Processes(HOME)
    keep = os.environ.get("KEEP", "") not in ("", "0")
    try:
        code, url = demonstrate(processes, api_key, model_id)
    except KeyboardInterrupt:
        console.print("Interrupted.")
        code = 130
    except (RuntimeError, TimeoutError, OSError) as error:
        console.print(f"The demo failed: {error}", markup=False)
    finally:
        if keep and code == 0:
            LEFT_RUNNING.write_text(json.dumps({p.pid: created(p.pid) for p in processes.running.values()}))
            console.print(f"Airflow is left running at {url}; [bold]make stop[/] stops it.")
        else:
            console.print("Stopping everything that was started ...")
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            processes.stop()
    return code


def stop_left_running() -> None:
    """Stop the processes that KEEP=1 left running, unless other processes have their ids now."""
    left = json.loads(LEFT_RUNNING.read_text())
    end_sessions([int(pid) for pid, when in left.items() if created(int(pid)) in (when, None)])
    LEFT_RUNNING.unlink()


def created(pid: int) -> float | None:
    """Return when a process was created, or None if there is none."""
    with suppress(psutil.NoSuchProcess):
        return float(psutil.Process(pid).create_time())
    return None


def demonstrate(processes: Processes, api_key: str, model_id: str) -> tuple[int, str]:
    """Run the example DAG and show the results; return the exit code and the URL of Airflow's UI."""
    if api_key:
        connection = json.dumps({"conn_type": "aixplain", "password": api_key})
        console.print(f"Using the real platform with model {model_id}: the runs are billed to your account.")
    else:
        connection = Emulator(processes, RUN_SECONDS).connection
        console.print(f"Started the emulator: each run of its model [bold]{model_id}[/] takes {RUN_SECONDS} s.")
    airflow = Airflow(processes, ROOT / "example_dags", {"aixplain_default": connection}, SLOTS)
    console.print(f"Starting a real Airflow with {SLOTS} worker slots; its logs are in {HOME.name}/ ...")
    airflow.start()
    run_id = airflow.trigger(DAG_ID, {"model_id": model_id})
    console.print(f"Airflow's UI, no password: [bold]{airflow.url}/dags/{DAG_ID}[/]")
    seen: list[str] = []

    def finished() -> bool:
        processes.check()
        states = Counter(ti["state"] for ti in airflow.tasks(DAG_ID, run_id) if ti["task_id"] == "analyse")
        progress = ", ".join(f"{states[state]} {words}" for state, words in SHOWN_STATES.items() if states[state])
        if progress and progress not in seen[-1:]:
            seen.append(progress)
            console.print(f"  {progress}")
        return airflow.state(DAG_ID, run_id) in FINISHED

    wait_until(finished, "the runs to finish", seconds=3600, every=2)
    return show(airflow, run_id), airflow.url


def show(airflow: Airflow, run_id: str) -> int:
    """Print the table of results; return 0 if every run succeeded, else 1."""
    tasks = [ti for ti in airflow.tasks(DAG_ID, run_id) if ti["task_id"] == "analyse"]
    slot_seconds = airflow.worker_seconds()
    table = Table("text", "result", title="Results and their cost")
    for heading in ("credits", "run time", "worker slot"):
        table.add_column(heading, justify="right")
    total_run = total_worker = total_credits = 0.0
    failed = 0
    for ti, text in zip(tasks, texts(airflow, run_id), strict=True):
        worker = slot_seconds[ti["id"]]
        total_worker += worker
        if ti["state"] != "success":
            failed += 1
            table.add_row(_short(text), f"[red]{ti['state']}[/]", "", "", f"{worker:.1f} s")
            continue
        response = airflow.xcoms(DAG_ID, run_id, "analyse", ti["map_index"])["return_value"]
        run, credits = _number(response["run_time"]), _number(response["used_credits"])
        total_run += run
        total_credits += credits
        result = _short(str(response["data"]), 24)
        table.add_row(_short(text), result, f"{credits:.5f}", f"{run:.1f} s", f"{worker:.1f} s")
    table.add_section()
    table.add_row(f"all {len(tasks)}", "", f"{total_credits:.5f}", f"{total_run:.1f} s", f"{total_worker:.1f} s")
    console.print(table)
    if total_run:
        console.print(
            f"The runs took {total_run:.0f} s, and occupied a worker slot for {total_worker:.0f} s"
            f" ({total_worker / total_run:.0%}): once to submit, once to return the result.\nThe DAG run took"
            f" {airflow.wall_seconds(DAG_ID, run_id):.0f} s on {SLOTS} worker slots. Tasks that wait on workers would"
            f" need at least {total_run / SLOTS:.0f} s."
        )
    if failed:
        console.print(f"{failed} of {len(tasks)} runs failed. The log of the first one ends with:")
        first = next(ti for ti in tasks if ti["state"] != "success")
        console.print(airflow.log(DAG_ID, run_id, "analyse", 1, first["map_index"])[-2000:], markup=False)
    return 1 if failed else 0


def texts(airflow: Airflow, run_id: str) -> list[str]:
    """Return the texts that the DAG read, in the order of the mapped tasks."""
    return [str(item["data"]) for item in airflow.xcoms(DAG_ID, run_id, "read")["return_value"]]


def _number(value: Any) -> float:
    """Return a number from the platform, which may omit it or send it as a string."""
    with suppress(TypeError, ValueError):
        return float(value)
    return 0.0


def _short(text: str, length: int = 48) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def _interrupt(*_: Any) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
