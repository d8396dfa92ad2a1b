"""When failures of a batch are reported, and where: in its task's log."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_aixplain import compat
from airflow_provider_aixplain.batch import retrying
from airflow_provider_aixplain.batch.batch import Batch
from airflow_provider_aixplain.batch.ledger import AttemptEvent
from airflow_provider_aixplain.exceptions import AixplainError
from airflow_provider_aixplain.observability import progress
from airflow_provider_aixplain.observability.failure_summary import LONGEST_INTERVAL, FailureSummary
from airflow_provider_aixplain.operators.batch import AixplainBatchRunOperator
from tests.support.deployment import Emulator
from tests.support.task_log import TaskLog
from tests.unit.batch import batches
from tests.unit.batch.batches import begin_batch, reopen, submitted, trigger_of

pytestmark = pytest.mark.usefixtures("connection")
TAGS = (f"t{os.getpid()}-{number}" for number in itertools.count())


class TestReports:
    def test_the_first_failure_is_reported_at_once(self) -> None:
        failures = FailureSummary()
        assert failures.report(100) is None
        failures.add("failed polls", "Row 7: HTTP 503")
        report = failures.report(100.5)
        assert report is not None
        assert "failed polls: 1 since" in report
        assert report.endswith("Row 7: HTTP 503")

    def test_later_ones_are_reported_together(self) -> None:
        failures = FailureSummary()
        failures.add("failed polls", "a")
        failures.report(0)
        for _ in range(3):
            failures.add("failed polls", "b")
        failures.add("storage errors", TimeoutError(), "s3://bucket/out: ")
        assert failures.report(9.9) is None
        report = failures.report(10)
        assert report is not None
        assert "failed polls: 3, storage errors: 1" in report
        assert report.endswith("s3://bucket/out: TimeoutError: ")

    def test_intervals_double_up_to_five_minutes(self) -> None:
        failures, reported = FailureSummary(), []
        for now in range(1000):
            failures.add("failed polls", "a")
            if failures.report(now):
                reported.append(now)
        assert reported == [0, 10, 30, 70, 150, 310, 610, 910]

    def test_after_a_quiet_interval_it_is_reported_at_once_again(self) -> None:
        failures = FailureSummary()
        for now in (0, 10, 30):
            failures.add("failed polls", "a")
            assert failures.report(now)
        assert failures.report(70) is None
        failures.add("failed polls", "a")
        assert failures.report(71)
        failures.add("failed polls", "a")
        assert failures.report(81)

    def test_a_message_from_outside_forges_no_line(self) -> None:
        failures = FailureSummary()
        failures.add("failed polls", "a\nERROR forged")
        assert "\n" not in str(failures.report(0))

    @given(st.lists(st.tuples(st.floats(0, 30), st.booleans()), max_size=50))
    def test_every_failure_is_reported_once(self, steps: list[tuple[float, bool]]) -> None:
        failures, now, counted = FailureSummary(), 0.0, 0
        reports = []
        for seconds, is_failure in steps:
            now += seconds
            if is_failure:
                failures.add("failed polls", "a")
                counted += 1
            reports.append(failures.report(now))
        reports.append(failures.report(now + LONGEST_INTERVAL))
        shown = [int(report.split("failed polls: ")[1].split()[0]) for report in reports if report]
        assert sum(shown) == counted


async def until(condition: Callable[[], Any]) -> None:
    while not condition():  # noqa: ASYNC110 # there is no event to wait for
        await asyncio.sleep(0.02)


def stopped_once(condition: Callable[[], Any], trigger: Any) -> None:
    """Run a trigger until a condition holds, and stop it as a triggerer does."""

    async def stop() -> None:
        task = asyncio.ensure_future(anext(trigger.run()))
        await until(condition)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(stop())


def test_failed_polls_are_in_the_tasks_log(tmp_path: Path, emulator: Emulator, task_log: TaskLog) -> None:
    batch = begin_batch(f"file://{tmp_path}/out", [next(TAGS)], delay=0.1)
    emulator.set_faults(rate=1, kinds=["garbage"])
    try:
        stopped_once(lambda: "failed polls: " in str(task_log), trigger_of(batch))
    finally:
        emulator.set_faults()
    (line,) = [line for line in task_log.lines() if line.startswith("The batch continues after failures")]
    assert "Last failure: Row 1: HTTP 200 with an answer" in line


def test_storage_errors_are_in_the_tasks_log(
    tmp_path: Path, task_log: TaskLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = begin_batch(f"file://{tmp_path}/out", [next(TAGS)], delay=0)
    monkeypatch.setattr(retrying, "RETRY_DELAY", 0.01)
    batches.fail_calls(monkeypatch, Batch, "claim", {1})
    asyncio.run(anext(trigger_of(batch).run()))
    (line,) = task_log.lines()
    assert "storage errors: 1" in line
    assert line.endswith(f"{batch}: OSError: 503 SlowDown")


def test_a_stopped_trigger_logs_how_many_runs_are_billed(tmp_path: Path, emulator: Emulator, task_log: TaskLog) -> None:
    tag = next(TAGS)
    batch = begin_batch(f"file://{tmp_path}/out", [f"{tag} {number}" for number in range(20)], delay=60)
    stopped_once(lambda: len(reopen(batch).ledger.rows(AttemptEvent.ACCEPTED)) == 4, trigger_of(batch, max_in_flight=4))
    (line,) = task_log.lines()
    assert "cannot cancel them: 4." in line
    assert line.endswith(f"recorded at {batch}")


def test_a_stopped_trigger_sends_all_that_it_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    def incr(name: str, count: int, tags: dict[str, str]) -> None:
        if name == "aixplain.runs":
            counted.append(count)

    stats = SimpleNamespace(incr=incr, timing=lambda *_, **__: None, gauge=lambda *_, **__: None)
    monkeypatch.setattr(compat, "triggerer_stats", lambda: stats)
    monkeypatch.setattr(progress, "UPDATE_INTERVAL", 3600)
    batch = begin_batch(f"file://{tmp_path}/out", [f"{next(TAGS)} {number}" for number in range(30)], delay=0.2)
    stopped_once(lambda: reopen(batch).ledger.totals.done >= 4, trigger_of(batch, max_in_flight=4))
    assert sum(counted) == reopen(batch).ledger.totals.succeeded >= 4


def test_a_trigger_that_has_finished_warns_of_nothing(tmp_path: Path, task_log: TaskLog) -> None:
    batch = begin_batch(f"file://{tmp_path}/out", [next(TAGS) for _ in range(5)], delay=0)
    asyncio.run(anext(trigger_of(batch).run()))
    assert task_log.lines() == []


def test_a_batch_killed_on_its_worker_submits_no_more(tmp_path: Path, emulator: Emulator, task_log: TaskLog) -> None:
    tag, place = next(TAGS), f"file://{tmp_path}/out"
    operator = AixplainBatchRunOperator(
        task_id="batch",
        model_id="echo",
        input=[f"{tag} {number}" for number in range(20)],
        parameters={"delay": 2},
        result_path=place,
        max_in_flight=3,
        deferrable=False,
    )
    context: Any = {}

    async def kill() -> None:
        await asyncio.wait_for(until(lambda: len(_accepted(tmp_path / "out")) == 3), 60)
        operator.on_kill()

    with ThreadPoolExecutor(1) as thread:
        killed = thread.submit(asyncio.run, kill())
        with pytest.raises(AixplainError, match="20 of 20 rows have no result"):
            operator.execute(context)
        killed.result()
    assert sum(submitted(emulator, tag).values()) == 3
    (line,) = [line for line in task_log.lines() if "Runs in flight" in line]
    assert "cancel them: 3." in line
    assert line.endswith(f"recorded at {place}")


def _accepted(path: Path) -> list[int]:
    return reopen(Batch(f"file://{path}")).ledger.rows(AttemptEvent.ACCEPTED) if (path / "log").is_dir() else []
