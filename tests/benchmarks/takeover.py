"""Thousands of runs in flight in two triggerers of a real Airflow, one of which is killed.

The tasks begin as deferred ones, since workers would need hours to submit so many runs. No scheduler runs, so each task
keeps the event of its trigger.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.benchmarks.polling import counts, server
from tests.benchmarks.results import report
from tests.support.deployment import Airflow, Processes, connection_to
from tests.support.services import Postgres

DAGS = Path(__file__).parent / "takeover_dags"
TRIGGERERS = ("triggerer:1", "triggerer:2")


def defer_tasks(url: str, runs: int, seconds: float) -> None:
    """Create a DAG run whose tasks wait for runs that finish evenly over ``seconds``, from now on."""
    import pendulum
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.models.trigger import Trigger
    from airflow.sdk import timezone
    from airflow.utils.session import create_session
    from airflow.utils.types import DagRunTriggeredByType, DagRunType

    from airflow_provider_aixplain.triggers.aixplain import AixplainModelRunTrigger

    (bundle,) = (manager := DagBundlesManager()).get_all_dag_bundles()
    manager.sync_bundles_to_db()
    sync_bag_to_db(BundleDagBag(bundle.path, bundle_path=bundle.path, bundle_name=bundle.name), bundle.name, None)
    with create_session() as session:
        dag = SerializedDagModel.get_dag("takeover")
        dag_run = dag.create_dagrun(
            run_id="takeover",
            run_after=timezone.utcnow(),
            run_type=DagRunType.MANUAL,
            state="running",
            triggered_by=DagRunTriggeredByType.TEST,
            session=session,
        )
        now = time.time()
        for number, task in enumerate(dag_run.get_task_instances(session=session), 1):
            finishes_at = now + seconds * number / runs
            trigger = AixplainModelRunTrigger(
                f"{url}/api/v1/data/until/{finishes_at:.3f}/{number}",
                submitted_at=pendulum.from_timestamp(finishes_at - seconds).isoformat(),
            )
            task.state, task.next_method = "deferred", "resume_from_trigger"
            task.trigger = Trigger.from_object(trigger)


def measure(runs: int, seconds: float) -> dict[str, Any]:
    """Run the tasks' triggers, kill a triggerer, and return what happened."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Processes(Path(folder) / "airflow") as processes,
        server(10**9, None) as url,
    ):
        postgres = Postgres(processes)
        settings = {
            "core__max_map_length": runs,
            "database__sql_alchemy_conn": postgres.url,
            "triggerer__capacity": runs,
        }
        airflow = Airflow(processes, DAGS, {"aixplain_default": connection_to(url, "k" * 32)}, 1, settings, TRIGGERERS)
        processes.env |= {"BENCH_RUNS": str(runs), "PYTHONPATH": str(Path.cwd())}
        processes.run("db", str(Path(sys.executable).parent / "airflow"), "db", "migrate")
        defer = (sys.executable, "-m", "tests.benchmarks.takeover", "--defer", url, f"--runs={runs}")
        processes.run("defer", *defer, f"--seconds={seconds}")

        def waits_by_triggerer() -> Counter[int]:
            held = "SELECT triggerer_id, count(*) FROM trigger WHERE triggerer_id IS NOT NULL GROUP BY triggerer_id"
            return Counter(dict(postgres.query(held)))

        def watch(until: Callable[[], bool]) -> list[int]:
            """Return the number of polls in each second until a condition is true, or for twice a run's duration."""
            polls, deadline = [counts(url, None)["polls"]], time.monotonic() + 2 * seconds
            while not until() and time.monotonic() < deadline:
                processes.check(*(name for name in TRIGGERERS if name in processes.running))
                time.sleep(max(0.0, 1 - time.time() % 1))
                polls.append(counts(url, None)["polls"])
            return [later - earlier for earlier, later in pairwise(polls)]

        for name in TRIGGERERS:
            airflow.start_component(name)
        unassigned = "SELECT count(*) FROM trigger WHERE triggerer_id IS NULL"
        watch(lambda: postgres.query(unassigned) == [(0,)])
        end = time.monotonic() + seconds / 10
        before = watch(lambda: time.monotonic() > end)
        shares = waits_by_triggerer()
        processes.kill(TRIGGERERS[0])
        killed_at = time.monotonic()
        after = watch(lambda: len(waits_by_triggerer()) == 1)
        seconds_until_takeover = time.monotonic() - killed_at
        (survivor,) = waits_by_triggerer()
        after += watch(lambda: postgres.query("SELECT count(*) FROM task_instance WHERE state = 'deferred'") == [(0,)])
        events = postgres.query(
            "SELECT count(*) FROM task_instance WHERE state = 'scheduled'"
            ' AND next_kwargs::text LIKE \'%"status": "success"%\''
        )
    return {
        "runs": runs,
        "in the killed one": shares.total() - shares[survivor],
        "lost": runs - events[0][0],
        "taken over after, s": seconds_until_takeover,
        "most polls a second before": max(before),
        "and after": max(after),
    }


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000, help="number of runs (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=400, help="duration of a run (default: %(default)s)")
    parser.add_argument("--defer", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.defer:
        defer_tasks(arguments.defer, arguments.runs, arguments.seconds)
        return
    row = measure(arguments.runs, arguments.seconds)
    report("takeover", f"Runs of {arguments.seconds:g} s in two triggerers, one of which is killed", [row])


if __name__ == "__main__":
    main()
