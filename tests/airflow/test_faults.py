"""Fault injection in a real Airflow: ``make test-faults``.

PostgreSQL, scheduler, workers and two triggerers run as many mapped tasks as a team might, while processes are killed,
frozen and restarted, and the emulator injects all its faults. Each scenario prints its figures.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console
from rich.table import Table

from airflow_provider_aixplain.workerless.submission_slots import MAX_CONCURRENT_SUBMISSIONS
from tests.support.deployment import AIRFLOW_3, Airflow, Emulator, Processes, wait_until
from tests.support.services import SERVICES, Postgres, Redis, missing
from tests.support.stats import StatsListener

pytest.importorskip(
    "psycopg2", reason="in the dependency group faults, which only the environment of Airflow 3.3.2 has"
)

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(missing(*SERVICES)), reason=missing(*SERVICES)),
    pytest.mark.skipif(not AIRFLOW_3, reason="the task state store, on which a run's second try relies, came with 3.3"),
]

DAGS = Path(__file__).parent / "fault_dags"
SHARE = int(os.environ.get("FAULTS_SHARE", "1"))
"""Divides the number of runs. The documentation has the figures of 1; CI uses 16, to stay within its time limit."""

TRIGGERERS = ("triggerer:1", "triggerer:2")
CELERY_WORKERS = ("worker:1", "worker:2")
SLOTS = 6
REQUEST_TIMEOUT = 5
"""Timeout of a poll, in seconds."""

SETTINGS = {
    # Seconds until Airflow notices that a process has died. The defaults would make the tests minutes longer.
    "scheduler__task_instance_heartbeat_timeout": 20,
    "scheduler__task_instance_heartbeat_timeout_detection_interval": 5,
    "triggerer__job_heartbeat_sec": 2,
    "triggerer__triggerer_health_check_threshold": 10,
    "scheduler__max_tis_per_query": 64,
    "core__max_active_tasks_per_dag": 2000,
}


@dataclass
class Deployment:
    """A deployment under test.

    :param parking: a file with the process id of the worker whose task has stopped to be killed.
    :param polls: times of the polls of each run before the emulator was killed, which the emulator does not store.
    :param restarted: components that ended and were restarted.
    """

    airflow: Airflow
    emulator: Emulator
    postgres: Postgres
    parking: Path
    stats: StatsListener
    polls: dict[str, list[float]] = field(default_factory=dict)
    restarted: Counter[str] = field(default_factory=Counter)

    @property
    def processes(self) -> Processes:
        return self.airflow.processes

    def start(self, runs: int, seconds: float) -> None:
        """Start a DAG run.

        :param runs: number of mapped runs.
        :param seconds: duration of each.
        """
        self.airflow.trigger("faults", {"runs": runs, "seconds": seconds})

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return self.postgres.query(sql)

    def states(self) -> Counter[str]:
        rows = self.query("SELECT state, count(*) FROM task_instance WHERE task_id = 'run' GROUP BY state")
        return Counter(dict(rows))

    def wait_until(self, condition: Callable[[], Any], what: str, seconds: float = 600, every: float = 1) -> Any:
        """Wait until a condition is true, and restart components that end in that time."""

        def met() -> Any:
            self.restarted.update(self.airflow.restart_ended())
            if failed := self.states()["failed"]:
                raise RuntimeError(f"{failed} tasks have failed")
            return condition()

        return wait_until(met, what, seconds, every)

    def wait_for(self, state: str, count: int, seconds: float = 600) -> None:
        """Wait until at least this many tasks are in a state."""

        def reached() -> bool:
            return self.states()[state] >= count

        self.wait_until(reached, f"{count} tasks in state {state}", seconds)

    def triggerers(self) -> int:
        """Return the number of running triggerers."""
        return int(self.query("SELECT count(*) FROM job WHERE job_type = 'TriggererJob' AND state = 'running'")[0][0])

    def waits_by_triggerer(self) -> Counter[int]:
        """Return the number of triggers of each triggerer, by its job's id."""
        rows = "SELECT triggerer_id, count(*) FROM trigger WHERE triggerer_id IS NOT NULL GROUP BY triggerer_id"
        return Counter(dict(self.query(rows)))

    def stop_platform(self, seconds: float) -> None:
        """Kill the emulator, and start it again after this many seconds."""
        for run in self.emulator.runs():
            self.polls.setdefault(run["id"], []).extend(run["polled_at"])
        self.processes.kill("emulator")
        self.restarted.update(self.airflow.restart_ended())
        time.sleep(seconds)  # the outage to test
        self.emulator.start()

    def finish(self, title: str, runs: int, seconds: float = 1500) -> Figures:
        """Wait until all runs have finished, then print and return the figures."""
        self.wait_for("success", runs, seconds)
        figures = self.figures(runs)
        figures.show(title)
        return figures

    def figures(self, runs: int) -> Figures:
        submitted = self.emulator.runs()
        delivered = Counter(
            data
            for (data,) in self.query(
                "SELECT value ->> 'data' FROM xcom WHERE task_id = 'run' AND key = 'return_value'"
                " AND value ->> 'status' = 'SUCCESS'"
            )
        )
        ends = self.query("SELECT map_index, EXTRACT(epoch FROM end_date) FROM task_instance WHERE task_id = 'run'")
        finished = {run["payload"]["data"]: run["finishes_at"] for run in submitted}
        gaps, polls = [0.0], 0
        for run in submitted:
            times = self.polls.get(run["id"], []) + run["polled_at"]
            polls += len(times)
            gaps += [later - earlier for earlier, later in pairwise([run["submitted_at"], *times])]
        expected = {f"input {index}" for index in range(runs)}
        return Figures(
            submitted=len(submitted),
            delivered=len(expected & set(delivered)),
            duplicated=sum(count - 1 for count in Counter(run["payload"]["data"] for run in submitted).values()),
            lost=len(expected - set(delivered)),
            polls=polls,
            longest_gap=max(gaps),
            latest=max(float(end) - finished[f"input {index}"] for index, end in ends),
            restarted=dict(self.restarted),
        )


@dataclass(frozen=True)
class Figures:
    """Figures of a scenario. Times are seconds.

    :param delivered: inputs with a result in XCom.
    :param duplicated: submissions of an input after its first.
    :param lost: inputs without a result.
    :param longest_gap: longest time between two polls of a run.
    :param latest: longest time between the end of a run on the platform and the end of its task.
    :param restarted: components of Airflow that ended, and how often.
    """

    submitted: int
    delivered: int
    duplicated: int
    lost: int
    polls: int
    longest_gap: float
    latest: float
    restarted: dict[str, int]

    def show(self, title: str) -> None:
        table = Table(title=title, title_justify="left")
        for name in ("submitted", "delivered", "duplicated", "lost", "polls", "longest stall", "latest result"):
            table.add_column(name, justify="right")
        counts = (self.submitted, self.delivered, self.duplicated, self.lost, self.polls)
        table.add_row(*map(str, counts), f"{self.longest_gap:.0f} s", f"{self.latest:.0f} s")
        console = Console(width=110)
        console.print()
        console.print(table)
        if self.restarted:
            restarts = ", ".join(f"{name} ({count})" for name, count in self.restarted.items())
            console.print(f"Components that ended when others were killed, and were restarted: {restarts}")


@contextmanager
def deploy(
    folder: Path, executor: str = "LocalExecutor", *, parks: bool = False, later: tuple[str, ...] = ()
) -> Iterator[Deployment]:
    """Start a deployment.

    :param parks: whether the first run stops on its worker between submission and deferral.
    :param later: components that the test starts itself.
    """
    with Processes(folder / "airflow") as processes:
        postgres = Postgres(processes)
        emulator = Emulator(processes, 1, {"timeout": REQUEST_TIMEOUT})
        stats = StatsListener(processes)
        settings: dict[str, Any] = {**SETTINGS, **stats.settings, "core__executor": executor}
        settings["database__sql_alchemy_conn"] = postgres.url
        components = ["scheduler", "dag-processor", "api-server", *TRIGGERERS]
        if executor == "CeleryExecutor":
            settings |= {
                "celery__broker_url": Redis(processes).url,
                "celery__result_backend": postgres.url.replace("postgresql", "db+postgresql"),
                "celery__worker_concurrency": SLOTS // 2,
            }
            components += CELERY_WORKERS
        airflow = Airflow(processes, DAGS, {"aixplain_default": emulator.connection}, SLOTS, settings, components)
        if parks:
            processes.env["PARKING"] = str(folder / "parked")
        try:
            airflow.start(without=later)
            deployment = Deployment(airflow, emulator, postgres, folder / "parked", stats)
            # Airflow reports healthy with one triggerer, which might get all runs before the other one has started.
            started = len([name for name in TRIGGERERS if name in processes.running])
            wait_until(lambda: deployment.triggerers() == started, "all triggerers", 180)
            yield deployment
        finally:
            processes.stop(*(name for name in processes.running if name != "postgres"))
            postgres.stop()


def kill_the_parked_worker(deployment: Deployment) -> None:
    """Kill the worker whose task has submitted the first run and not deferred, together with the task.

    With Celery this kills a worker with all its processes, with the LocalExecutor one process.
    """
    pid = int(wait_until(lambda: deployment.parking.exists() and deployment.parking.read_text(), "the parked task"))
    running = deployment.processes.running
    for name in [name for name in CELERY_WORKERS if name in running and running[name].pid == os.getsid(pid)]:
        deployment.processes.kill(name)
        deployment.airflow.start_component(name)
        return
    for process in [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]:
        process.kill()


@pytest.mark.parametrize("executor", ["LocalExecutor", "CeleryExecutor"])
def test_kills_of_every_component_lose_no_run(tmp_path: Path, executor: str) -> None:
    runs = 200 // SHARE
    seconds = 80 + 0.6 * runs  # long enough for all to be submitted, and for what follows
    with deploy(tmp_path, executor, parks=True, later=("triggerer:2",)) as deployment:
        deployment.start(runs, seconds)
        deployment.wait_until(lambda: len(deployment.emulator.runs()) == runs, "all submissions")
        (first,) = wait_until(deployment.waits_by_triggerer, "the first triggerer to have runs")

        deployment.airflow.start_component("triggerer:2")
        deployment.processes.kill("triggerer:1")
        wait_until(lambda: first not in deployment.waits_by_triggerer(), "the second triggerer to take over")
        deployment.airflow.start_component("triggerer:1")
        deployment.processes.stop("triggerer:2")
        deployment.airflow.start_component("triggerer:2")
        kill_the_parked_worker(deployment)
        deployment.postgres.stop()
        deployment.postgres.start()
        deployment.stop_platform(60)

        title = f"{runs} runs of {seconds:g} s, {executor}: triggerers, worker, database, platform killed"
        figures = deployment.finish(title, runs)
    assert (figures.delivered, figures.duplicated, figures.lost) == (runs, 0, 0)
    assert figures.submitted == runs, "the run of the killed worker was stored before, and is resumed"


def test_faults_in_a_third_of_all_polls_lose_no_run(tmp_path: Path) -> None:
    runs = 1000 // SHARE
    with deploy(tmp_path) as deployment:
        deployment.emulator.set_faults(rate=0.3)
        deployment.start(runs, seconds=60)
        figures = deployment.finish(f"{runs} runs of 60 s, 30 % of all polls fail", runs)
        counts = deployment.emulator.set_faults()
    Console().print("Faults:", ", ".join(f"{kind} {count}" for kind, count in counts.items()))
    assert min(counts.values()) > 0
    assert (figures.submitted, figures.delivered, figures.duplicated, figures.lost) == (runs, runs, 0, 0)


def test_a_frozen_triggerer_that_resumes_changes_nothing(tmp_path: Path) -> None:
    """Both triggerers then wait for the same runs; each result arrives once."""
    runs = 20
    with deploy(tmp_path, later=("triggerer:2",)) as deployment:
        deployment.start(runs, seconds=90)
        deployment.wait_for("deferred", runs)
        (first,) = wait_until(
            lambda: deployment.waits_by_triggerer().total() == runs and deployment.waits_by_triggerer(),
            "the first triggerer",
        )
        deployment.airflow.start_component("triggerer:2")
        deployment.processes.signal(signal.SIGSTOP, "triggerer:1")
        wait_until(lambda: deployment.waits_by_triggerer()[first] == 0, "the second triggerer to take over")
        deployment.processes.signal(signal.SIGCONT, "triggerer:1")
        figures = deployment.finish(f"{runs} runs of 90 s, one triggerer frozen until another has taken over", runs)
        tries = deployment.query("SELECT max(try_number) FROM task_instance WHERE task_id = 'run'")
    assert (figures.submitted, figures.delivered, figures.duplicated, figures.lost) == (runs, runs, 0, 0)
    assert tries == [(1,)]


def test_killed_triggerers_resubmit_only_runs_in_doubt(tmp_path: Path) -> None:
    """Only submissions that were in flight at a kill, or not yet recorded, are repeated: the documented gap."""
    with deploy(tmp_path) as deployment:
        deployment.emulator.set_faults(submission_seconds=0.5)
        run_id = deployment.airflow.trigger("started", {"seconds": 20})
        kills = 6
        for turn in range(kills):
            count = 5 + 10 * turn
            deployment.wait_until(lambda count=count: len(deployment.emulator.runs()) >= count, f"{count} submissions")
            deployment.processes.kill(TRIGGERERS[turn % 2])
            deployment.airflow.start_component(TRIGGERERS[turn % 2])
        deployment.wait_until(
            lambda: deployment.airflow.state("started", run_id) == "success", "the DAG run to succeed"
        )
        submitted = Counter(run["payload"]["data"] for run in deployment.emulator.runs())
        tries = deployment.query("SELECT max(try_number), count(*) FROM task_instance WHERE dag_id = 'started'")
        again = submitted - Counter(set(submitted))
        for data in again:
            log = deployment.airflow.log("started", run_id, f"run_{data.rpartition(' ')[2]}")
            assert log.count("it is unknown whether the platform accepted it") >= again[data]
    Console().print(
        f"60 runs started by triggers, {kills} kills: {again.total()} submissions repeated, each reported in its log"
    )
    assert tries == [(1, 60)], "no task was retried"
    assert len(submitted) == 60
    assert again.total() <= kills * MAX_CONCURRENT_SUBMISSIONS


@pytest.mark.parametrize(("kind", "rows", "kills"), [("model", 4800, 20), ("agent", 500, 6)])
def test_a_batch_survives_kills_at_every_stage(tmp_path: Path, kind: str, rows: int, kills: int) -> None:
    """Kills its worker while it reads the input or writes the results, and its triggerer in between, at random."""
    dag_id, rows, kills = f"batch_{kind}", rows // SHARE, max(3, kills // SHARE)
    # Runs of different durations, so that submissions are in flight at every moment and not in waves.
    inputs = [{"data": f"row {n}", "delay": 2 + n % 7 / 3} for n in range(rows)]
    (tmp_path / "input.jsonl").write_text("".join(json.dumps(row) + "\n" for row in inputs))
    with deploy(tmp_path, later=TRIGGERERS[1:]) as deployment:
        deployment.emulator.set_faults(submission_seconds=0.2)  # so that some are in flight at each kill
        places = {"input": f"file://{tmp_path}/input.jsonl", "result_path": f"file://{tmp_path}/results"}
        run_id = deployment.airflow.trigger(dag_id, places)
        killed: Counter[str] = Counter()
        while killed.total() < kills:
            # About half of the kills hit each of them. Without a limit nearly all would hit the worker on a slow
            # machine, where the task rarely defers between two kills.
            states = {"running": "worker", "deferred": "triggerer"}
            wanted = tuple(state for state, process in states.items() if killed[process] <= kills // 2)
            killed.update(kill_at_random(deployment, dag_id, run_id, (*wanted, "success")))
        deployment.wait_until(lambda: deployment.airflow.state(dag_id, run_id) == "success", "the DAG run to succeed")
        manifest = deployment.airflow.xcoms(dag_id, run_id, "batch")["return_value"]
        payloads = [run["payload"] for run in deployment.emulator.runs()]
    submitted = Counter(payload["query"]["input"] if kind == "agent" else payload["data"] for payload in payloads)
    lines = (tmp_path / "results" / "results.jsonl").read_text().splitlines()
    found = Counter(json.loads(line)["data"] for line in lines)
    again = submitted - Counter(set(submitted))
    orphaned = Counter(f"row {key - 1}" for key in manifest["orphaned"])
    Console().print(
        f"A batch of {rows} rows of the {kind}, killed {kills} times ({killed['worker']} workers,"
        f" {killed['triggerer']} triggerers): {len(found)} results, {found.total() - len(found)} duplicates;"
        f" {submitted.total()} submissions, {orphaned.total()} rows in doubt, as the manifest states"
    )
    assert found == Counter({f"row {n}": 1 for n in range(rows)}), "one result per row"
    assert (manifest["rows"], manifest["succeeded"]) == (rows, rows)
    assert set(submitted) == set(found)
    assert again <= orphaned


def test_the_page_accounts_for_every_run(tmp_path: Path) -> None:
    """With failed runs, retries, and killed workers and triggerers, all but the runs of orphaned submissions."""
    runs, rows, kills = 360 // SHARE, 100 // SHARE, max(3, 10 // SHARE)
    (tmp_path / "input.jsonl").write_text(
        "".join(json.dumps({"data": f"row {n}", "delay": 5}) + "\n" for n in range(rows))
    )
    places = {"input": f"file://{tmp_path}/input.jsonl", "result_path": f"file://{tmp_path}/results"}
    with deploy(tmp_path) as deployment:
        deployment.emulator.set_faults(submission_seconds=0.2)  # so that some are in flight at each kill
        run_ids = {
            "spending": deployment.airflow.trigger("spending", {"runs": runs}),
            "batch_model": deployment.airflow.trigger("batch_model", places),
        }
        in_flight = 0
        for turn in range(kills):
            count = (turn + 1) * runs // (kills + 1)
            deployment.wait_until(lambda count=count: len(deployment.emulator.runs()) >= count, f"{count} submissions")
            in_flight += count_in_flight(deployment)
            if turn % 2:
                deployment.processes.kill(TRIGGERERS[turn // 2 % 2])
                deployment.airflow.start_component(TRIGGERERS[turn // 2 % 2])
            else:
                kill_a_worker(deployment)
        deployment.wait_until(
            lambda: all(deployment.airflow.state(*dag_run) in ("success", "failed") for dag_run in run_ids.items()),
            "the DAG runs to finish",
            1500,
        )
        page = deployment.airflow.usage()
        manifest = deployment.airflow.xcoms("batch_model", run_ids["batch_model"], "batch")["return_value"]
        submitted = deployment.emulator.runs()
    known = [run for run in submitted if run["polled_at"]]  # nothing polls a run whose poll URL was lost
    account, metrics = credits_of(known), deployment.stats.credits()
    outcomes = page["totals"]["outcomes"]
    orphaned = outcomes.get("orphaned", 0) + len(manifest["orphaned"])
    Console().print(
        f"{len(submitted)} runs, {kills} kills: {page['totals']['credits']} credits on the page, {account} on the"
        f" account without {len(submitted) - len(known)} orphaned runs; {orphaned} are named as such"
        f" ({outcomes}). Metrics: {metrics} credits; {in_flight} runs were in flight at the kills"
    )
    assert Decimal(page["totals"]["credits"]) == account
    assert len(submitted) - len(known) <= orphaned
    assert abs(metrics - account) <= in_flight * max(Decimal(str(run["used_credits"])) for run in known)
    assert outcomes["failed"] >= runs // 10


def credits_of(runs: list[dict[str, Any]]) -> Decimal:
    return sum((Decimal(str(run["used_credits"])) for run in runs), Decimal(0))


def count_in_flight(deployment: Deployment) -> int:
    """Return the number of runs whose task or row has no result yet."""
    open_states = "('scheduled', 'queued', 'running', 'deferred')"
    tasks = f"SELECT count(*) FROM task_instance WHERE task_id LIKE 'spend%' AND state IN {open_states}"
    rows = [run for run in deployment.emulator.runs() if str(run["payload"].get("data")).startswith("row ")]
    return int(deployment.query(tasks)[0][0]) + sum(run["used_credits"] is None for run in rows)


def kill_a_worker(deployment: Deployment) -> None:
    """Kill the process of a task that runs a model, if there is one."""
    found = deployment.query("SELECT pid FROM task_instance WHERE state = 'running' AND task_id LIKE 'spend%'")
    for (pid,) in random.sample(found, min(1, len(found))):
        with suppress(psutil.NoSuchProcess, TypeError):
            psutil.Process(pid).kill()


def kill_at_random(deployment: Deployment, dag_id: str, run_id: str, states: tuple[str, ...]) -> list[str]:
    """Kill the worker or triggerer that runs the batch, at a random time, and return which was killed, if any.

    :param states: states of its task to wait for; one that has succeeded is cleared.
    """

    def running_process() -> tuple[str, int | None, int | None] | None:
        ((state, pid, triggerer),) = deployment.query(
            "SELECT i.state, i.pid, t.triggerer_id FROM task_instance i LEFT JOIN trigger t ON t.id = i.trigger_id"
            " WHERE i.task_id = 'batch'"
        )
        process = {"running": pid, "deferred": triggerer, "success": True}.get(state)
        return (state, pid, triggerer) if state in states and process else None

    found = deployment.wait_until(running_process, f"a batch that is {' or '.join(states)}", every=0.05)
    if found[0] == "success":
        deployment.wait_until(lambda: deployment.airflow.state(dag_id, run_id) == "success", "the DAG run to succeed")
        cleared = {"dry_run": False, "dag_run_id": run_id, "task_ids": ["batch"], "only_failed": False}
        deployment.airflow.call("POST", f"/dags/{dag_id}/clearTaskInstances", json=cleared)
        return []
    time.sleep(random.uniform(0, 1.2 if found[0] == "running" else 6))  # at any time in this state
    if running_process() != found:
        return []
    if found[0] == "deferred":
        deployment.processes.kill(TRIGGERERS[0])
        deployment.airflow.start_component(TRIGGERERS[0])
        return ["triggerer"]
    with suppress(psutil.NoSuchProcess):
        task = psutil.Process(found[1])
        for process in [task, *([task.parent()] if random.random() < 0.5 else [])]:
            process.kill()
        return ["worker"]
    return []
