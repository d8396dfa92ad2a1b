"""Helpers for tests of batches."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_aixplain.batch.batch import Batch
from airflow_provider_aixplain.batch.commit_log import Record
from airflow_provider_aixplain.batch.engine import Engine, Limits
from airflow_provider_aixplain.batch.ledger import AttemptEvent, Header, Ledger, RowState
from airflow_provider_aixplain.batch.results import make_result
from airflow_provider_aixplain.hooks.aixplain import AixplainHook
from airflow_provider_aixplain.inputs.rows import Row
from airflow_provider_aixplain.protocol.assets import Asset
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus
from airflow_provider_aixplain.triggers.batch import AixplainBatchTrigger
from tests.support.deployment import Emulator, wait_until
from tests.support.services import ATTACH

ENGINES = """
import os, signal, sys
from airflow_provider_aixplain.batch import engine
from airflow_provider_aixplain.transport import aio
from tests.unit.batch.batches import Batch, run
uri, attach, *times = sys.argv[1:]
if times:
    engine.IN_FLIGHT_MARGIN, engine.INTENT_LIFETIME, engine.WATCH_INTERVAL = map(float, times)
if uri.startswith("s3:"):
    exec(attach)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    pid = os.fork()
    if not pid:
        os.dup2(2, 1)
        try:
            run(Batch(uri), max_in_flight=20)
        finally:
            os._exit(0)
    print(pid, flush=True)
"""
"""Forks a process with an engine for each line: importing Airflow takes seconds."""


@contextmanager
def engines_of(batch: Batch, *times: str) -> Iterator[Callable[[], int]]:
    """Return a function that starts a process, which claims and runs a batch. At the end, all are awaited.

    :param times: seconds: ``IN_FLIGHT_MARGIN``, ``INTENT_LIFETIME`` and ``WATCH_INTERVAL``.
    """
    command = [sys.executable, "-c", ENGINES, str(batch), ATTACH, *times]
    env = {**os.environ, "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR"}
    with Popen(command, env=env, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, text=True, start_new_session=True) as parent:
        pids: list[int] = []

        def start() -> int:
            print(file=parent.stdin, flush=True)
            assert parent.stdout is not None
            pids.append(int(parent.stdout.readline()))
            return pids[-1]

        try:
            yield start
            wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the end of processes", 300)
        finally:
            os.killpg(parent.pid, signal.SIGKILL)


def make_header(batch: str = "b", rows: int = 1) -> Header:
    return Header(batch, "f", rows, 0, [], "2026-01-01T00:00:00+00:00")


def begin_batch(place: str, texts: list[str], **fields: Any) -> Batch:
    batch = Batch(place)
    batch.read()
    rows = [Row(number, json.dumps({"data": text, **fields})) for number, text in enumerate(texts, start=1)]
    batch.begin(rows, partial(make_header, rows=len(rows)))
    return batch


def reopen(batch: Batch) -> Batch:
    """Return the batch as another process reads it."""
    found = Batch(str(batch))
    found.read()
    return found


def engine_of(batch: Batch, conn_id: str = "aixplain_default", **limits: Any) -> Engine:
    """An engine with its own view of the batch, like one in another process."""
    settings = Limits(**{"wait_time": 0.2, **limits})
    batch_id = reopen(batch).header.batch
    return Engine(AixplainHook(conn_id), Asset("model", "echo"), Batch(str(batch)), batch_id, settings)


def run(batch: Batch, conn_id: str = "aixplain_default", **limits: Any) -> Engine:
    engine = engine_of(batch, conn_id, **limits)
    asyncio.run(engine.run())
    return engine


def outcomes(engine: Engine) -> Counter[str]:
    """Return the runs that an engine has counted in its metrics, by outcome."""
    counts: Counter[str] = Counter()

    def incr(name: str, count: int, tags: dict[str, str]) -> None:
        counts.update({tags["outcome"]: count} if name == "aixplain.runs" else {})

    engine.metrics.send(None, lambda: SimpleNamespace(incr=incr, timing=lambda *_, **__: None))
    return counts


def trigger_of(batch: Batch, **limits: Any) -> AixplainBatchTrigger:
    """A trigger as a triggerer creates it."""
    trigger = AixplainBatchTrigger(str(batch), batch.header.batch, "echo", "aixplain_default", limits)
    return AixplainBatchTrigger(**json.loads(json.dumps(trigger.serialize()[1])))


def delete(batch: Batch, what: str) -> None:
    fs, path = batch.store._path.fs, batch.store._full(what)
    if batch.store.is_file_system:  # which cannot remove a folder while other processes write into it
        fs.mv(path, batch.store._full("deleted"))
    else:
        fs.rm(path, recursive=True)


def submitted(emulator: Emulator, tag: str) -> Counter[str]:
    texts = (str(run["payload"].get("data")) for run in emulator.runs())
    return Counter(text for text in texts if text.startswith(tag))


def results(batch: Batch) -> list[dict[str, Any]]:
    """Publish the results as a worker does at the end, and return them."""
    finisher = reopen(batch)
    finisher.claim(finisher.header.batch, "a worker that finishes")
    finisher.publish_results()
    with finisher.store.open("results.jsonl") as file:
        found = list(map(json.loads, file))
    assert len({result["row"] for result in found}) == len(found), "each row exactly once"
    assert len(found) == finisher.ledger.totals.done
    return found


def attempt_record(row: int, attempt: float, event: AttemptEvent, **fields: Any) -> Record:
    return {"event": event.value, "batch": "b", "row": row, "attempt": attempt, **fields}


def result_record(row: int, attempt: float, error: str = "", **fields: Any) -> Record:
    """The result of an attempt that has cost a credit."""
    status = ResponseStatus.FAILED if error else ResponseStatus.SUCCESS
    response = ModelResponse(status, data="x", used_credits=1)
    result = make_result(row, Row(row + 1, ""), attempt, response, error, Asset(), is_known=True)
    return {"event": "result", "batch": "b", **result, **fields}


def state_of(ledger: Ledger, row: int) -> RowState:
    state = ledger.state("b", row)
    assert state is not None
    return state


def requeue_failed(batch: Batch) -> int:
    """Requeue failed rows, as a worker that resumes the batch does."""
    worker = reopen(batch)
    worker.resume()
    return worker.requeue_failed()


def fail_calls(
    monkeypatch: pytest.MonkeyPatch, kind: Any, name: str, times: Container[int], error: OSError | None = None
) -> list[int]:
    """Make some calls of a method fail.

    :param times: the numbers of the calls that fail, from 1.
    :param error: default: an error of object storage.
    :return: the numbers of all calls so far.
    """
    calls, method = list[int](), getattr(kind, name)

    def fail_or_call(*args: Any, **named: Any) -> Any:
        calls.append(len(calls) + 1)
        if calls[-1] in times:
            raise error or OSError("503 SlowDown")
        return method(*args, **named)

    monkeypatch.setattr(kind, name, fail_or_call)
    return calls
