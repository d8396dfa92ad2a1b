"""Helpers for tests of batches."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_aixplain.batch.batch import Batch
from airflow_provider_aixplain.batch.engine import Engine, Limits
from airflow_provider_aixplain.batch.ledger import AttemptEvent, Header, Ledger
from airflow_provider_aixplain.batch.results import make_result
from airflow_provider_aixplain.hooks.aixplain import AixplainHook
from airflow_provider_aixplain.inputs.rows import Row
from airflow_provider_aixplain.protocol.assets import Asset
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus
from airflow_provider_aixplain.triggers.batch import AixplainBatchTrigger
from tests.support.deployment import Emulator, wait_until
from tests.support.services import ATTACH

ENGINES = """
import asyncio, os, signal, sys
from airflow_provider_aixplain.batch import engine
from airflow_provider_aixplain.batch.batch import Batch
from airflow_provider_aixplain.hooks.aixplain import AixplainHook
from airflow_provider_aixplain.protocol.assets import Asset
from airflow_provider_aixplain.transport import aio
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
            batch = Batch(uri)
            limits = engine.Limits(20, wait_time=0.2)
            asyncio.run(engine.Engine(AixplainHook(), Asset("model", "echo"), batch, batch.read().batch, limits).run())
        finally:
            os._exit(0)
    print(pid, flush=True)
"""
"""Forks a process with an engine for each line: importing Airflow takes seconds."""


class Engines:
    """Processes that run a batch, each of which claims it.

    :param times: seconds: ``IN_FLIGHT_MARGIN``, ``INTENT_LIFETIME`` and ``WATCH_INTERVAL``.
    """

    def __init__(self, batch: Batch, *times: str) -> None:
        command = [sys.executable, "-c", ENGINES, str(batch), ATTACH, *times]
        env = {**os.environ, "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR"}
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._parent = subprocess.Popen(command, env=env, text=True, **pipes)
        self.pids: list[int] = []

    def start(self) -> int:
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write("\n")
        self._parent.stdin.flush()
        self.pids.append(int(self._parent.stdout.readline()))
        return self.pids[-1]

    @staticmethod
    def wait(pid: int) -> None:
        """Wait for the end of a process."""
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the end of a process", 60, every=0.02)

    def __enter__(self) -> Engines:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._parent.kill()
        self._parent.communicate()


def rows_of(texts: list[str], **fields: Any) -> list[Row]:
    return [Row(index + 1, json.dumps({"data": text, **fields})) for index, text in enumerate(texts)]


def header_of(rows: int) -> Callable[[str], Header]:
    return lambda batch: Header(batch, "f", rows, 0, [], "2026-01-01T00:00:00+00:00")


def begin_batch(place: str, texts: list[str], **fields: Any) -> Batch:
    batch = Batch(place)
    batch.read()
    batch.begin(iter(rows_of(texts, **fields)), header_of(len(texts)))
    return batch


def reopen(batch: Batch) -> Batch:
    """Return the batch as another process reads it."""
    found = Batch(str(batch))
    found.read()
    return found


def id_of(batch: Batch) -> str:
    return reopen(batch).header.batch


def ledger_of(batch: Batch) -> Ledger:
    return reopen(batch).ledger


def engine_of(batch: Batch, conn_id: str = "aixplain_default", model_id: str = "echo", **limits: Any) -> Engine:
    """An engine with its own view of the batch, like one in another process."""
    settings = Limits(**{"wait_time": 0.2, **limits})
    return Engine(AixplainHook(conn_id), Asset("model", model_id), Batch(str(batch)), id_of(batch), settings)


def run(batch: Batch, conn_id: str = "aixplain_default", model_id: str = "echo", **limits: Any) -> Engine:
    engine = engine_of(batch, conn_id, model_id, **limits)
    asyncio.run(engine.run())
    return engine


def trigger_of(batch: Batch, **limits: Any) -> AixplainBatchTrigger:
    """A trigger as a triggerer creates it."""
    trigger = AixplainBatchTrigger(str(batch), id_of(batch), "echo", "aixplain_default", limits)
    return AixplainBatchTrigger(**json.loads(json.dumps(trigger.serialize()[1])))


async def until(condition: Callable[[], Any]) -> None:
    while not condition():  # noqa: ASYNC110 # there is no event to wait for
        await asyncio.sleep(0.01)


def delete(batch: Batch, what: str) -> None:
    if not batch.store.is_file_system:
        batch.store._path.fs.rm(batch.store._full(what), recursive=True)
    else:
        path = Path(str(batch).removeprefix("file://")) / what
        path.rename(path.with_name("deleted"))


def submitted(emulator: Emulator, tag: str) -> Counter[str]:
    texts = (str(run["payload"].get("data")) for run in emulator.runs())
    return Counter(text for text in texts if text.startswith(tag))


def results(batch: Batch) -> list[dict[str, Any]]:
    """Publish the results as a worker does at the end, and return them."""
    finisher = Batch(str(batch))
    finisher.claim(id_of(batch), "a worker that finishes")
    finisher.publish_results()
    with finisher.store.open("results.jsonl") as file:
        found = [json.loads(line) for line in file]
    assert len({result["row"] for result in found}) == len(found), "each row exactly once"
    assert len(found) == finisher.ledger.totals.done
    return found


def event(batch: Batch, row: int, attempt: float, what: AttemptEvent, **fields: Any) -> dict[str, Any]:
    return {"event": what.value, "batch": id_of(batch), "row": row, "attempt": attempt, **fields}


def commit_event(batch: Batch, row: int, attempt: float, what: AttemptEvent, **fields: Any) -> None:
    """Commit an event as an engine does."""
    reopen(batch).log.append([event(batch, row, attempt, what, **fields)], fenced=False)


def result_record(
    batch: str, row: int, attempt: float, error: str = "", *, credits: float = 0, **flags: bool
) -> dict[str, Any]:
    status = ResponseStatus.FAILED if error else ResponseStatus.SUCCESS
    response = ModelResponse(status, data="x", used_credits=credits)
    result = make_result(row, Row(row + 1, ""), attempt, response, error, Asset(), is_known=True)
    return {"event": "result", "batch": batch, **result, **flags}


def requeue_failed(batch: Batch) -> int:
    """Requeue failed rows, as a worker that resumes the batch does."""
    worker = reopen(batch)
    worker.resume()
    return worker.requeue_failed()


class FailingCalls:
    """Makes some calls of a method fail.

    :param times: the numbers of the calls that fail, from 1.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: Any, name: str, times: set[int]) -> None:
        self.calls = 0
        method = getattr(kind, name)

        def fail_or_call(*args: Any, **named: Any) -> Any:
            self.calls += 1
            if self.calls in times:
                raise OSError("503 SlowDown")
            return method(*args, **named)

        monkeypatch.setattr(kind, name, fail_or_call)
