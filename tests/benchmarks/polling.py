"""Cost of a poll: 1,000 runs, each polled 20 times in one event loop, by this trigger and by those of other providers.

Each contender has a process and a server of its own. Its runs start evenly within one interval, as in reality.
The bare loop is the lower bound: it sends and reads bytes on this provider's schedule, over as many connections.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from airflow_provider_aixplain.protocol.schedule import Backoff
from tests.benchmarks.results import report
from tests.support.certificate import write_certificate

POOL = 256
INTERVAL = 1.4
"""Seconds between two polls of the other providers. So 20 polls take as long as on this provider's schedule, since the
cost of a poll depends on how often the process wakes up."""


async def bare(url: str, runs: range, polls: int) -> None:
    """Send and read bytes."""
    scheme, _, address = url.partition("://")
    host, _, port = address.partition(":")
    tls = ssl.create_default_context() if scheme == "https" else None
    backoff = Backoff(0.5)
    places, free = asyncio.Semaphore(POOL), list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]()

    async def wait(run: int) -> None:
        await asyncio.sleep(INTERVAL * runs.index(run) / len(runs))
        request = f"GET /api/v1/data/{run} HTTP/1.1\r\nHost: {address}\r\nx-api-key: {'k' * 32}\r\n\r\n".encode()
        begun = time.monotonic()
        await asyncio.sleep(backoff.first_delay(0, random.random()))
        for _ in range(polls):
            async with places:
                reader, writer = free.pop() if free else await asyncio.open_connection(host, int(port), ssl=tls)
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
                json.loads(await reader.readexactly(length))
                free.append((reader, writer))
            elapsed = time.monotonic() - begun
            await asyncio.sleep(backoff.delay(elapsed, random.random()))

    await asyncio.gather(*(wait(run) for run in runs))
    for _, writer in free:
        writer.close()


def triggers(make: Callable[[int], Any]) -> Callable[[str, range, int], Awaitable[None]]:
    """Return a contender that runs a trigger for each run until its event."""

    async def contender(url: str, runs: range, polls: int) -> None:
        async def wait(run: int) -> None:
            await asyncio.sleep(INTERVAL * runs.index(run) / len(runs))
            await anext(aiter(make(run).run()))

        await asyncio.gather(*(wait(run) for run in runs))

    return contender


def ours(url: str) -> Any:
    from airflow_provider_aixplain.triggers.aixplain import AixplainModelRunTrigger

    _connection("aixplain_default", "aixplain", url, password="k" * 32)
    return triggers(
        lambda run: AixplainModelRunTrigger(f"{url}/api/v1/data/{run}", end_from_trigger=True, do_xcom_push=False)
    )


def dbt_cloud(url: str) -> Any:
    from airflow.providers.dbt.cloud.triggers.dbt import DbtCloudRunJobTrigger

    _connection("dbt", "dbt_cloud", "", host=url.partition("://")[2], login="1", password="k" * 32)
    return triggers(lambda run: DbtCloudRunJobTrigger("dbt", run, time.time() + 1e4, INTERVAL, 1))


def databricks(url: str) -> Any:
    from airflow.providers.databricks.triggers.databricks import DatabricksExecutionTrigger

    _connection("databricks", "databricks", "", host=url.partition("://")[2], password="k" * 32)
    return triggers(lambda run: DatabricksExecutionTrigger(run, "databricks", polling_period_seconds=INTERVAL))


def http_sensor(url: str) -> Any:
    from airflow.providers.http.triggers.http import HttpSensorTrigger

    _connection("http", "http", url)
    return triggers(lambda run: HttpSensorTrigger(f"sensed/{run}", "http", poke_interval=INTERVAL))


CONTENDERS: dict[str, Callable[[str], Any]] = {
    "bare asyncio loop": lambda url: bare,
    "AixplainModelRunTrigger": ours,
    "HttpSensor": http_sensor,
    "DbtCloudRunJobTrigger": dbt_cloud,
    "DatabricksExecutionTrigger": databricks,
}
TLS_ONLY = ("DbtCloudRunJobTrigger", "DatabricksExecutionTrigger")


def _connection(conn_id: str, conn_type: str, url: str, **fields: str) -> None:
    connection = {"conn_type": conn_type, **({"host": url} if url else {}), **fields}
    os.environ[f"AIRFLOW_CONN_{conn_id.upper()}"] = json.dumps(connection)


def contend(name: str, url: str, runs: int, polls: int) -> float:
    """Return the CPU seconds that this process needs for all polls, without imports."""
    run = CONTENDERS[name](url)
    asyncio.run(run(url, range(runs, runs + 1), polls))  # warm-up
    before = time.process_time()
    asyncio.run(run(url, range(runs), polls))
    return time.process_time() - before


@contextmanager
def server(polls: int, certificate: Path | None) -> Iterator[str]:
    """Start a server on which each run finishes after a number of polls, and yield its URL."""
    arguments = [str(polls), *([str(certificate)] if certificate else [])]
    command = [sys.executable, "-m", "tests.benchmarks.poll_server", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"{'https' if certificate else 'http'}://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def measure(name: str, runs: int, polls: int, certificate: Path | None) -> dict[str, Any]:
    """Measure a contender in a new process."""
    with server(polls, certificate) as url:
        arguments = json.dumps([name, url, runs, polls])
        env = {**os.environ, "AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL"}
        if certificate:
            env["SSL_CERT_FILE"] = env["REQUESTS_CA_BUNDLE"] = str(certificate)
        command = [sys.executable, "-m", "tests.benchmarks.polling", "--contend", arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900)
        if done.returncode:
            raise RuntimeError(done.stderr[-3000:])
        counted = counts(url, certificate)
    assert counted["polls"] >= (runs + 1) * polls, "a trigger gave up"
    return {
        "transport": "TLS" if certificate else "plain",
        "trigger": name,
        "polls": counted["polls"],
        "CPU per poll, µs": 1e6 * float(done.stdout.split()[-1]) / counted["polls"],
        "connections opened": counted["opened"] - 1,
        "concurrent": counted["most"],
    }


def counts(url: str, certificate: Path | None) -> dict[str, int]:
    """Return the server's counts of polls and connections."""
    import requests

    return dict(requests.get(f"{url}/counts", verify=str(certificate) if certificate else True, timeout=10).json())


def main() -> None:
    """Measure all contenders and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="number of runs (default: %(default)s)")
    parser.add_argument("--polls", type=int, default=20, help="polls of each run (default: %(default)s)")
    parser.add_argument("--contend", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contend:
        print(contend(*json.loads(arguments.contend)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        certificate = write_certificate(Path(folder) / "server.pem")
        for transport in (None, certificate):
            names = [name for name in CONTENDERS if transport or name not in TLS_ONLY]
            measured = [measure(name, arguments.runs, arguments.polls, transport) for name in names]
            for row in measured:
                row["to the bare loop"] = row["CPU per poll, µs"] / measured[0]["CPU per poll, µs"]
            rows += measured
    report("polling", f"{arguments.runs} runs polled {arguments.polls} times each in one event loop", rows)


if __name__ == "__main__":
    main()
