"""``make demo``: runs a model and an agent in a real Airflow, and shows their cost and their time in worker slots."""

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
AGENT_DAG_ID = "example_aixplain_agent"
TASKS = {DAG_ID: "analyse", AGENT_DAG_ID: "ask"}
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
    agent_id = os.environ.get("AGENT_ID") or ("" if api_key else "review-analyst")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    code, pages = 1, {}
    processes = Processes(HOME)
    keep = os.environ.get("KEEP", "") not in ("", "0")
    try:
        code, pages = demonstrate(processes, api_key, model_id, agent_id)
    except KeyboardInterrupt:
        console.print("Interrupted.")
        code = 130
    except (RuntimeError, TimeoutError, OSError) as error:
        console.print(f"The demo failed: {error}", markup=False)
    finally:
        if keep and code == 0:
            LEFT_RUNNING.write_text(json.dumps({p.pid: created(p.pid) for p in processes.running.values()}))
            console.print("Airflow is left running; [bold]make stop[/] stops it.")
            for title, url in pages.items():
                console.print(f"{title}: [bold]{url}[/]")
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


def demonstrate(processes: Processes, api_key: str, model_id: str, agent_id: str) -> tuple[int, dict[str, str]]:
    """Run the example DAGs and show the results; return the exit code, and the URLs of pages to look at by title.

    :param api_key: the platform's key; empty to use the emulator.
    :param agent_id: the agent; empty to run none.
    """
    assets = f"model [bold]{model_id}[/]" + (f" and agent [bold]{agent_id}[/]" if agent_id else "")
    pages = {}
    if api_key:
        connection = json.dumps({"conn_type": "aixplain", "password": api_key})
        console.print(f"Using the real platform with {assets}: the runs are billed to your account.")
    else:
        emulator = Emulator(processes, RUN_SECONDS)
        connection = emulator.connection
        pages["The emulator's models, runs and faults"] = emulator.url
        console.print(f"Started the emulator: each run of its {assets} takes {RUN_SECONDS} s.")
    airflow = Airflow(processes, ROOT / "example_dags", {"aixplain_default": connection}, SLOTS)
    console.print(f"Starting a real Airflow with {SLOTS} worker slots; its logs are in {HOME.name}/ ...")
    airflow.start()
    runs = {DAG_ID: airflow.trigger(DAG_ID, {"model_id": model_id})}
    if agent_id:
        runs[AGENT_DAG_ID] = airflow.trigger(AGENT_DAG_ID, {"agent_id": agent_id})
    console.print(f"Airflow's UI, no password: [bold]{airflow.url}/dags/{DAG_ID}[/]")
    seen: list[str] = []

    def finished() -> bool:
        processes.check()
        states = Counter(ti["state"] for dag_id in runs for ti in tasks(airflow, dag_id, runs[dag_id]))
        progress = ", ".join(f"{states[state]} {words}" for state, words in SHOWN_STATES.items() if states[state])
        if progress and progress not in seen[-1:]:
            seen.append(progress)
            console.print(f"  {progress}")
        return all(airflow.state(dag_id, run_id) in FINISHED for dag_id, run_id in runs.items())

    wait_until(finished, "the runs to finish", seconds=3600, every=2)
    return show(airflow, runs), {"What the runs cost": f"{airflow.url}/plugin/aixplain", **pages}


def show(airflow: Airflow, runs: dict[str, str]) -> int:
    """Print the agent's steps and the table of results; return 0 if every run succeeded, else 1."""
    found = {dag_id: tasks(airflow, dag_id, run_id) for dag_id, run_id in runs.items()}
    slot_seconds = airflow.worker_seconds()
    table = Table("text", "result", title="Results and their cost")
    for heading in ("credits", "run time", "worker slot"):
        table.add_column(heading, justify="right")
    totals = [0.0, 0.0, 0.0]
    for ti, text in zip(found[DAG_ID], texts(airflow, runs[DAG_ID]), strict=True):
        result, figures = read_result(airflow, ti, slot_seconds)
        totals = [total + figure for total, figure in zip(totals, figures, strict=True)]
        table.add_row(_short(text), _short(result, 24), *_cells(*figures))
    table.add_section()
    table.add_row(f"all {len(found[DAG_ID])}", "", *_cells(*totals))
    for ti in found.get(AGENT_DAG_ID, []):
        print_steps(airflow, runs[AGENT_DAG_ID])
        result, figures = read_result(airflow, ti, slot_seconds)
        table.add_section()
        table.add_row(_short(f"the agent: {result}"), "", *_cells(*figures))
    console.print(table)
    _, run_time, worker = totals
    if run_time:
        console.print(
            f"The model's runs took {run_time:.0f} s, and occupied a worker slot for {worker:.0f} s"
            f" ({worker / run_time:.0%}): to submit, and to return the result.\nTheir DAG run took"
            f" {airflow.wall_seconds(DAG_ID, runs[DAG_ID]):.0f} s on {SLOTS} worker slots. Tasks that wait on workers"
            f" would need at least {run_time / SLOTS:.0f} s."
        )
    show_spend(airflow)
    failed = [ti for dag_id in runs for ti in found[dag_id] if ti["state"] != "success"]
    if failed:
        total = sum(map(len, found.values()))
        console.print(f"{len(failed)} of {total} runs failed. The log of the first one ends with:")
        dag_id, run_id, task_id, index = _place(failed[0])
        console.print(airflow.log(dag_id, run_id, task_id, 1, index)[-2000:], markup=False)
    return 1 if failed else 0


def show_spend(airflow: Airflow) -> None:
    """Print what the page aiXplain in Airflow's UI shows of each task."""
    page = airflow.usage()
    table = Table("DAG", "task", "model or agent", title="Spend, as on the page aiXplain in Airflow's UI")
    for heading in ("runs", "credits"):
        table.add_column(heading, justify="right")
    for row in page["tasks"]:
        asset = row.get("model_id") or row.get("agent_id") or ""
        table.add_row(row["dag_id"], row["task_id"], asset, str(row["runs"]), row["credits"])
    table.add_section()
    table.add_row("all", "", "", str(page["totals"]["runs"]), page["totals"]["credits"])
    console.print(table)


def tasks(airflow: Airflow, dag_id: str, run_id: str) -> list[dict[str, Any]]:
    """Return the task instances of a DAG run that run a model or an agent."""
    return [ti for ti in airflow.tasks(dag_id, run_id) if ti["task_id"] == TASKS[dag_id]]


def texts(airflow: Airflow, run_id: str) -> list[str]:
    """Return the texts that the DAG read, in the order of the mapped tasks."""
    return [str(item["data"]) for item in airflow.xcoms(DAG_ID, run_id, "read")["return_value"]]


def read_result(airflow: Airflow, ti: dict[str, Any], slot_seconds: dict[str, float]) -> tuple[str, list[float]]:
    """Return the result of a task, and its credits, run time and time in a worker slot."""
    worker = slot_seconds[ti["id"]]
    if ti["state"] != "success":
        return f"[red]{ti['state']}[/]", [0.0, 0.0, worker]
    response = airflow.xcoms(*_place(ti), keys=["return_value"])["return_value"]
    figures = [_number(response["used_credits"]), _number(response["run_time"]), worker]
    return str(response.get("output", response["data"])), figures


def print_steps(airflow: Airflow, run_id: str) -> None:
    """Print what the agent did, as the log of its task shows it."""
    log = airflow.log(AGENT_DAG_ID, run_id, TASKS[AGENT_DAG_ID])
    steps = [line[line.index("Step ") :] for line in log.splitlines() if " Step " in line]
    if steps:
        console.print("The agent's steps, in the log of its task:", *steps, sep="\n  ", markup=False)


def _place(ti: dict[str, Any]) -> tuple[str, str, str, int]:
    return ti["dag_id"], ti["dag_run_id"], ti["task_id"], ti["map_index"]


def _cells(credits: float, run_time: float, worker: float) -> tuple[str, str, str]:
    return f"{credits:.5f}", f"{run_time:.1f} s", f"{worker:.1f} s"


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
