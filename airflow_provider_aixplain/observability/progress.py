"""How far a batch is, for a log that people read and for metrics."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_aixplain.exceptions import AixplainError, to_event
from airflow_provider_aixplain.observability.metrics import PREFIX

if TYPE_CHECKING:
    from airflow_provider_aixplain.batch.engine import Engine

LOOK_EVERY = 1.0
"""Seconds between looks at how far a batch is."""

FIRST = 10.0
LONGEST = 300.0


class Report:
    """Tells how far a batch is: in the log at intervals that double from 10 seconds to five minutes, and as metrics.

    :param model_id: the model's.
    :param stats: returns Airflow's Stats.
    """

    def __init__(self, model_id: str, stats: Callable[[], Any]) -> None:
        self._tags = {"model_id": model_id}
        self._stats = stats
        self._began = time.monotonic()
        self._done_before: int | None = None
        self._next = FIRST

    def due(self, engine: Engine, *, is_over: bool) -> str | None:
        """Return what to tell the log now, if anything.

        :param is_over: whether nothing more will happen.
        """
        totals, rows = engine.ledger.totals, len(engine.ledger.done)
        if self._done_before is None and rows:
            self._done_before = totals.done
        elapsed = time.monotonic() - self._began
        with suppress(Exception):  # whatever is wrong with metrics, it ends no batch
            stats = self._stats()
            for name, value in (("done", totals.done), ("failed", totals.failed), ("in_flight", engine.in_flight)):
                stats.gauge(f"{PREFIX}.batch.{name}", value, tags=self._tags)
            stats.gauge(f"{PREFIX}.batch.credits", totals.credits, tags=self._tags)
        if elapsed < self._next and not is_over:
            return None
        self._next = elapsed + min(max(elapsed, FIRST), LONGEST)
        rate = (totals.done - (self._done_before or 0)) / elapsed if elapsed else 0.0
        left = f", about {(rows - totals.done) / rate:.0f} s left" if rate and not is_over else ""
        return (
            f"{totals.done} of {rows} rows done, {totals.failed} of them failed, {engine.in_flight} in flight;"
            f" {rate:.1f} a second, {totals.credits:.6g} credits so far{left}"
        )


async def run_with_progress(
    engine: Engine, running: asyncio.Future[None], log: Any, stats: Callable[[], Any]
) -> dict[str, Any] | None:
    """Tell how far a batch is, until it is over.

    :param running: the engine's run.
    :param log: where to.
    :param stats: returns Airflow's Stats.
    :return: the error that has ended it, as :func:`~airflow_provider_aixplain.exceptions.to_event` tells it; or None.
    """
    report = Report(engine.model_id, stats)
    while True:
        done, _ = await asyncio.wait({running}, timeout=LOOK_EVERY)
        if line := engine.trouble.report(math.inf if done else time.monotonic()):
            log.warning("%s", line)
        if told := report.due(engine, is_over=bool(done)):
            log.info("%s", told)
        if done:
            error = running.exception()
            if error is None:
                return None
            if isinstance(error, AixplainError):
                return to_event(error)
            raise error


def warn_of_open_runs(engine: Engine, log: Any) -> None:
    """Log how many runs of a batch are in flight when this process stops waiting for them, if any."""
    if engine.open_runs:
        log.warning(
            "This process no longer waits for the batch. In flight and billed, as the platform cannot cancel a run: %d."
            " Unless another process resumes the batch, clear the task to get their results, which costs nothing more."
            " They are recorded at %s",
            engine.open_runs,
            engine.place,
        )
