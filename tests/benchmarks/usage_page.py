"""The page aiXplain in a real API server: time of its requests and memory, with a year of runs in the database."""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psutil
import requests
from sqlalchemy import create_engine
from sqlalchemy.engine import Engine

from tests.benchmarks.results import report
from tests.support.deployment import Airflow, Processes
from tests.support.services import Postgres
from tests.support.usage import add_dags

DAGS, TASKS, DAYS = 50, 4, 365
MODELS = [f"model-{number}" for number in range(20)]
AGENTS = [f"agent-{number}" for number in range(5)]
OTHERS = [
    *("status", "data", "return_value", "completed", "error_code", "error_message", "used_credits", "run_time"),
    *("usage", "url", "model_id", "aixplain_submission", "_link_AixplainAssetLink"),
]
"""The keys of the other XComs of a task."""

DATA = json.dumps("The quick brown fox jumps over the lazy dog. " * 6)


def make_record(chance: random.Random, index: int) -> dict[str, Any]:
    """Return a usage record as the operators write it: a task runs mostly the same asset."""
    is_agent, outcome = index % TASKS == 0, "failed" if chance.random() < 0.03 else "success"
    assets = AGENTS if is_agent else MODELS
    asset = chance.choice(assets) if chance.random() < 0.05 else assets[index % (DAGS * TASKS) % len(assets)]
    return {
        "agent_id" if is_agent else "model_id": asset,
        "page": f"https://platform.aixplain.com/discover/{'agent' if is_agent else 'model'}/{asset}",
        "runs": {outcome: 1} if chance.random() < 0.97 else {outcome: 1, "timeout": 1},
        "credits": f"{chance.lognormvariate(-5, 1.5):.12f}",
        "tokens": chance.randrange(2000),
        "run_time": round(chance.lognormvariate(1, 1), 3),
        "wait_time": round(chance.lognormvariate(1.3, 1), 3),
        "last": {"url": f"https://models.aixplain.com/api/v1/data/{uuid.UUID(int=chance.getrandbits(128))}"},
    }


class Year:
    """The rows of a year of runs.

    :param runs: number of task instances, each with one run.
    """

    def __init__(self, runs: int) -> None:
        self.dag_runs = runs // TASKS
        now = datetime.now(timezone.utc)
        step = timedelta(days=DAYS) / self.dag_runs
        moments = (now - step * (self.dag_runs - index) for index in range(self.dag_runs))
        self.times = [f"{moment:%Y-%m-%d %H:%M:%S.%f}" for moment in moments]

    def tables(self) -> Iterator[tuple[str, list[str], Iterable[tuple[Any, ...]]]]:
        """Return name, columns and rows of each table."""
        dates = ["start_date", "end_date", "updated_at"]
        yield (
            "dag_run",
            ["id", "dag_id", "run_id", "run_type", "state", "run_after", *dates, "conf"],
            (
                (index + 1, *self._names(index), "scheduled", "success", at, at, at, at, "{}")
                for index, at in enumerate(self.times)
            ),
        )
        columns = ["id", "dag_id", "run_id", "task_id", "state", "pool", "pool_slots", *dates, "try_number"]
        yield (
            "task_instance",
            columns,
            (
                (
                    uuid.UUID(int=index + 1).hex,
                    *self._names(index // TASKS),
                    task,
                    "success",
                    "default_pool",
                    1,
                    at,
                    at,
                    at,
                    1,
                )
                for index, task, at in self._tasks()
            ),
        )
        yield "xcom", ["dag_run_id", "dag_id", "run_id", "task_id", "key", "value", "timestamp"], self._xcoms()
        columns = ["dag_run_id", "dag_id", "run_id", "task_id", "key", "value", "updated_at"]
        yield (
            "task_state_store",
            columns,
            (
                (index // TASKS + 1, *self._names(index // TASKS), task, "aixplain_submission", stored, at)
                for (index, task, at), record in zip(self._tasks(), self._records(), strict=True)
                for stored in [
                    json.dumps({"fingerprint": "f" * 64, "submitted_at": at, "poll_url": at, "usage": record})
                ]
            ),
        )

    def _names(self, index: int) -> tuple[str, str]:
        return f"dag_{index % DAGS:02}", f"scheduled__{self.times[index]}"

    def _tasks(self) -> Iterator[tuple[int, str, str]]:
        for index in range(self.dag_runs * TASKS):
            yield index, f"task_{index % TASKS}", self.times[index // TASKS]

    def _records(self) -> Iterator[dict[str, Any]]:
        chance = random.Random(1)
        for index in range(self.dag_runs * TASKS):
            yield make_record(chance, index)

    def _xcoms(self) -> Iterator[tuple[Any, ...]]:
        for (index, task, at), record in zip(self._tasks(), self._records(), strict=True):
            identity = (index // TASKS + 1, *self._names(index // TASKS), task)
            for key in OTHERS:
                yield *identity, key, DATA if key in ("data", "return_value") else '"some text"', at
            yield *identity, "aixplain_usage", json.dumps(record), at


class _Lines(io.TextIOBase):
    """A file of CSV lines that are made when they are read."""

    def __init__(self, rows: Iterable[tuple[Any, ...]]) -> None:
        self._rows = iter(rows)

    def read(self, size: int | None = -1) -> str:
        text = io.StringIO()
        csv.writer(text).writerows(row for _, row in zip(range(1000), self._rows, strict=False))
        return text.getvalue()


def load(engine: Engine, table: str, columns: list[str], rows: Iterable[tuple[Any, ...]]) -> None:
    """Insert rows in bulk, without checks of foreign keys."""
    raw = engine.raw_connection()
    cursor = raw.cursor()
    if engine.dialect.name == "postgresql":
        cursor.execute("SET session_replication_role = replica; SET TIME ZONE 'UTC'")
        # The size of a read is in characters here, and more lines than asked for are accepted.
        cursor.copy_expert(f"COPY {table} ({', '.join(columns)}) FROM STDIN WITH (FORMAT csv)", _Lines(rows))
    else:
        marks = ", ".join("?" * len(columns))
        cursor.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)
    raw.commit()
    raw.close()


class Page:
    """The page's requests to an API server."""

    def __init__(self, airflow: Airflow) -> None:
        self.url = airflow.url
        token = requests.get(f"{self.url}/auth/token", timeout=30).json()["access_token"]
        self.headers = {"Authorization": f"Bearer {token}"}
        self.process = psutil.Process(airflow.processes.running["api-server"].pid)

    def memory(self) -> float:
        """Return the memory of the API server's processes, in MB."""
        family = [self.process, *self.process.children(recursive=True)]
        return sum(one.memory_info().rss for one in family) / 1e6

    def cpu(self) -> float:
        """Return the CPU time of the API server's processes, in seconds: other load on the machine affects it less."""
        family = [self.process, *self.process.children(recursive=True)]
        return sum(sum(one.cpu_times()[:2]) for one in family)

    def measure(self, name: str, before: float, query: dict[str, Any]) -> dict[str, Any]:
        """Ask until all days are counted, then once more.

        :param before: memory before the first request, in MB.
        """
        first = [self._ask(query)]
        while not first[-1][0]["is_complete"] and len(first) < 500:
            first.append(self._ask(query))
        answer, seconds, cpu = self._ask(query)
        return {
            "request": name,
            "runs": answer["totals"]["runs"],
            "requests until complete": len(first),
            "the longest, s": max(one[1] for one in first),
            "together, s": sum(one[1] for one in first),
            "CPU, s": sum(one[2] for one in first),
            "afterwards, s": seconds,
            "CPU afterwards, s": cpu,
            "memory, + MB": self.memory() - before,
        }

    def _ask(self, query: dict[str, Any]) -> tuple[dict[str, Any], float, float]:
        begin, cpu = time.perf_counter(), self.cpu()
        response = requests.get(f"{self.url}/aixplain/api/usage", query, headers=self.headers, timeout=300)
        response.raise_for_status()
        return response.json(), time.perf_counter() - begin, self.cpu() - cpu


def main() -> None:
    """Fill a database, start an API server and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, help="number of runs (default: 1,000,000; on SQLite 100,000)")
    parser.add_argument("--sqlite", action="store_true", help="use SQLite instead of PostgreSQL")
    arguments = parser.parse_args()
    runs = arguments.runs or (100_000 if arguments.sqlite else 1_000_000)
    with tempfile.TemporaryDirectory() as folder, Processes(Path(folder) / "airflow") as processes:
        settings = {} if arguments.sqlite else {"database__sql_alchemy_conn": Postgres(processes).url}
        airflow = Airflow(processes, Path(folder), {}, settings=settings, components=("api-server",))
        airflow.start(without=("scheduler", "triggerer", "dag-processor"))
        engine = create_engine(processes.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
        add_dags(engine, *(f"dag_{number:02}" for number in range(DAGS)))
        begin = time.perf_counter()
        for table, columns, rows in Year(runs).tables():
            load(engine, table, columns, rows)
        if not arguments.sqlite:
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("VACUUM ANALYZE")
        print(f"{runs} runs inserted in {time.perf_counter() - begin:.0f} s")
        page = Page(airflow)
        requests.get(
            f"{airflow.url}/aixplain/api/usage?limit=0", headers=page.headers, timeout=60
        )  # imports its modules
        before = page.memory()
        year = str(datetime.now(timezone.utc).date() - timedelta(days=DAYS - 1))
        queries: dict[str, dict[str, Any]] = {
            "30 days": {},
            "a year": {"start": year},
            "a year by credits": {"start": year, "sort": "-credits"},
            "a year of a DAG": {"start": year, "dag_id": "dag_07", "group": "dag"},
        }
        measured = [page.measure(name, before, query) for name, query in queries.items()]
    database = "SQLite" if arguments.sqlite else "PostgreSQL"
    report("usage_page", f"The page with {runs} runs in a year, on {database}", measured)


if __name__ == "__main__":
    main()
