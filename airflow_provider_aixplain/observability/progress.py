"""Reports the progress of a batch in the task log, as metrics and in the usage record."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pendulum

from airflow_provider_aixplain.exceptions import AixplainError, to_event
from airflow_provider_aixplain.observability.metrics import clean_tag, to_millionths
from airflow_provider_aixplain.protocol.usage import RunUsage

if TYPE_CHECKING:
    from airflow_provider_aixplain.batch.engine import Engine
    from airflow_provider_aixplain.batch.ledger import Ledger

UPDATE_INTERVAL = 0.25
"""Seconds between two updates of the metrics. A process that is killed loses what it has counted since the last one."""

USAGE_INTERVAL = 10.0
"""Seconds between two updates of the usage record. Each of them is a request to Airflow."""

FIRST_INTERVAL = 10.0
LONGEST_INTERVAL = 300.0


class ProgressReporter:
    """Logs the progress of a batch at intervals that double from 10 seconds to five minutes, and updates its metrics.

    :param engine: runs the batch.
    :param task: the task instance, for the tags of the metrics.
    :param stats: returns Airflow's Stats.
    """

    def __init__(self, engine: Engine, task: Any, stats: Callable[[], Any]) -> None:
        self._engine = engine
        self._task = task
        self._stats = stats
        self._started_at = time.monotonic()
        self._done_before: int | None = None
        self._next = FIRST_INTERVAL

    def report(self, *, is_finished: bool) -> str | None:
        """Update the metrics, and return the line to log now, if any.

        :param is_finished: whether this is the last report.
        """
        totals, rows, in_flight = self._engine.ledger.totals, len(self._engine.ledger.done), self._engine.in_flight
        if self._done_before is None and rows:
            self._done_before = totals.done
        send_metrics(self._engine, self._task, self._stats)
        elapsed = time.monotonic() - self._started_at
        if elapsed < self._next and not is_finished:
            return None
        self._next = elapsed + min(max(elapsed, FIRST_INTERVAL), LONGEST_INTERVAL)
        rate = (totals.done - (self._done_before or 0)) / elapsed if elapsed else 0.0
        left = f", about {(rows - totals.done) / rate:.0f} s left" if rate and not is_finished else ""
        return (
            f"{totals.done} of {rows} rows done, {totals.failed} of them failed, {in_flight} in flight;"
            f" {rate:.1f} per second, {totals.credits:.6g} credits so far{left}"
        )


def send_metrics(engine: Engine, task: Any, stats: Callable[[], Any]) -> None:
    """Send the metrics of the runs that have ended since the last call, and update the gauges of the batch.

    :param task: the task instance, for the tags of the metrics.
    :param stats: returns Airflow's Stats.
    """
    totals, asset, batch = engine.ledger.totals, engine.asset, engine.ledger.batch
    gauges = {
        "batch.done": totals.done,
        "batch.failed": totals.failed,
        "batch.in_flight": engine.in_flight,
        "batch.credits": round(to_millionths(Decimal(repr(totals.credits)))),
    }
    # Not the id of the DAG run: Airflow drops it from StatsD unless configured otherwise.
    tags = (asset.id_name, clean_tag(asset.id)), ("batch_id", batch)
    engine.metrics.send(task, stats, gauges if batch else None, tags)  # without a batch id, none was read yet


def batch_usage(ledger: Ledger, in_flight: int = 0, *, is_finished: bool = False) -> RunUsage:
    """Return what a batch has cost so far.

    :param in_flight: the number of rows that are being processed.
    :param is_finished: whether no process runs the batch any more.
    """
    totals, header = ledger.totals, ledger.header
    return RunUsage(
        id=ledger.batch,
        runs={"success": totals.succeeded, "failed": totals.failed},
        credits=max(Decimal(0), Decimal(repr(totals.credits))),
        tokens=totals.tokens,
        batch={
            "rows": len(ledger.done),
            "done": totals.done,
            "failed": totals.failed,
            "in_flight": in_flight,
            "started_at": header.started_at if header else None,
            "updated_at": pendulum.now("UTC").isoformat(),
            "is_finished": is_finished,
        },
    )


async def run_with_progress(
    engine: Engine,
    log: Any,
    task: Any,
    stats: Callable[[], Any],
    publish: Callable[[RunUsage], Awaitable[None]],
) -> dict[str, Any] | None:
    """Run a batch, and report its progress until it has finished. If this call is cancelled, the batch is stopped.

    The engine gets a thread and an event loop of its own: a triggerer that stops, or the ``execution_timeout`` of a
    task on a worker, cancels all tasks in the event loop of this call.

    :param log: the task log.
    :param task: the task instance, for the tags of the metrics.
    :param stats: returns Airflow's Stats.
    :param publish: updates the usage record of the task instance. Its errors are only logged.
    :return: the error of the batch, as :func:`~airflow_provider_aixplain.exceptions.to_event` returns it; or None.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="aixplain-batch")
    running = asyncio.wrap_future(thread.submit(asyncio.run, engine.run()))
    thread.shutdown(wait=False)
    try:
        return await _report_progress(engine, running, log, ProgressReporter(engine, task, stats), publish)
    finally:
        # Submissions in flight are paid for: their answers are awaited and committed.
        engine.stop()
        while not running.done():
            with suppress(asyncio.CancelledError, Exception):
                await asyncio.shield(running)
        send_metrics(engine, task, stats)


async def _report_progress(
    engine: Engine,
    running: asyncio.Future[None],
    log: Any,
    reporter: ProgressReporter,
    publish: Callable[[RunUsage], Awaitable[None]],
) -> dict[str, Any] | None:
    next_usage = time.monotonic()
    while True:
        done, _ = await asyncio.wait({running}, timeout=UPDATE_INTERVAL)
        if line := engine.failures.report(math.inf if done else time.monotonic()):
            log.warning("%s", line)
        if line := reporter.report(is_finished=bool(done)):
            log.info("%s", line)
        if engine.ledger.header and time.monotonic() >= next_usage and not done:
            next_usage = time.monotonic() + USAGE_INTERVAL
            try:
                await publish(batch_usage(engine.ledger, engine.in_flight))
            except Exception as problem:
                log.warning("The cost so far could not be recorded: %s: %s", type(problem).__name__, problem)
        if done:
            error = running.exception()
            if error is not None and not isinstance(error, AixplainError):
                raise error
            return to_event(error) if error else None


def warn_of_open_runs(engine: Engine, log: Any) -> None:
    """Log how many runs of a batch are in flight when this process stops waiting for them, if any."""
    if engine.open_runs:
        log.warning(
            "This process stops waiting for the batch. Runs in flight, which are billed because the platform cannot"
            " cancel them: %d. Unless another process resumes the batch, clear the task to get their results at no"
            " further cost. They are recorded at %s",
            engine.open_runs,
            engine.batch,
        )
