"""Batches as these tests need them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_aixplain.batch.engine import Engine, Limits
from airflow_provider_aixplain.batch.journal import ObjectJournal
from airflow_provider_aixplain.batch.rows import Row
from airflow_provider_aixplain.batch.state import Header, Progress, State, result_of
from airflow_provider_aixplain.hooks.aixplain import AixplainHook
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus
from airflow_provider_aixplain.triggers.batch import AixplainBatchTrigger
from tests.airflow.deployment import Emulator

KILLED = """
import asyncio, json, sys
from airflow_provider_aixplain.batch.engine import Engine, Limits
from airflow_provider_aixplain.batch.state import State
from airflow_provider_aixplain.hooks.aixplain import AixplainHook
from airflow_provider_aixplain.batch import engine
if sys.argv[3:]:
    engine.LAG = float(sys.argv[3])
if sys.argv[1].startswith("s3:"):
    exec(sys.argv[2])
state = State(sys.argv[1])
print("ready", flush=True)
asyncio.run(Engine(AixplainHook(), "echo", state, state.header().batch, Limits(20, wait_time=0.2)).run())
"""


def rows_of(texts: list[str], **fields: Any) -> list[Row]:
    return [Row(index + 1, json.dumps({"data": text, **fields})) for index, text in enumerate(texts)]


def about(rows: int) -> Callable[[str, int], Header]:
    return lambda batch, number: Header("f", rows, 0, [], "2026-01-01T00:00:00+00:00", batch, number)


def begun(place: str, texts: list[str], **fields: Any) -> State:
    state = State(place)
    state.begin(iter(rows_of(texts, **fields)), about(len(texts)), state.header())
    return state


def header_of(state: State) -> Header:
    header = state.header()
    assert header is not None
    return header


def batch_of(state: State) -> str:
    return header_of(state).batch


def progress_of(state: State) -> Progress:
    return state.progress(header_of(state))


def run(state: State, conn_id: str = "aixplain_default", model_id: str = "echo", **limits: Any) -> Engine:
    engine = Engine(AixplainHook(conn_id), model_id, state, batch_of(state), Limits(**{"wait_time": 0.2, **limits}))
    asyncio.run(engine.run())
    return engine


def engine_of(state: State, conn_id: str = "aixplain_default", model_id: str = "echo", **limits: Any) -> Engine:
    told = {"wait_time": 0.2, **limits}
    return Engine(AixplainHook(conn_id), model_id, State(str(state)), batch_of(state), Limits(**told))


def trigger_of(state: State, **limits: Any) -> AixplainBatchTrigger:
    return AixplainBatchTrigger(str(state), batch_of(state), "echo", "aixplain_default", limits)


def submitted(emulator: Emulator, tag: str) -> Counter[str]:
    texts = (str(run["payload"].get("data")) for run in emulator.runs())
    return Counter(text for text in texts if text.startswith(tag))


def results(state: State) -> list[dict[str, Any]]:
    """What is published in the end. In a folder that is no other than before."""
    if not isinstance(state.results, ObjectJournal):
        own = [result for result in state.results.read() if result["batch"] == batch_of(state)]
        assert own == list(state.ended(header_of(state), progress_of(state)))
    return published(state)


def published(state: State) -> list[dict[str, Any]]:
    """What is published in the end. There may be more before: of two who polled one run, or late ones."""
    finisher = State(str(state))
    finisher.publish(finisher.claim(batch_of(state), "a worker that finishes"))
    with finisher.storage.open("results.jsonl") as file:
        found = [json.loads(line) for line in file]
    assert len({result["row"] for result in found}) == len(found), "each row exactly once"
    return found


def note(state: State, row: int, attempt: float, what: str, **told: Any) -> None:
    """As an engine does."""
    record = {"batch": batch_of(state), "row": row, "attempt": attempt, "is": what, **told}
    state.submissions.append([record])


def end(
    state: State,
    row: int,
    attempt: float,
    error: str = "",
    *,
    credits: float = 0,
    is_known: bool = True,
    may_succeed: bool = True,
) -> None:
    """Write a result, as an engine does, whoever has taken over."""
    status = ResponseStatus.FAILED if error else ResponseStatus.SUCCESS
    response = ModelResponse(status, data="x", used_credits=credits)
    result = result_of(row, row + 1, attempt, response, error, may_succeed=may_succeed, is_known=is_known)
    state.results.append([{"batch": batch_of(state), **result}])


def forget_failed(state: State) -> int:
    """As a worker does that takes over."""
    worker = State(str(state))
    return worker.forget_failed(worker.claim(batch_of(state), "a worker"))


class Trouble:
    """A method that raises when it is called for some time, and then does what it did."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: type, name: str, times: set[int]) -> None:
        self.calls = 0
        method = getattr(kind, name)

        def troubled(*args: Any) -> Any:
            self.calls += 1
            if self.calls in times:
                raise OSError("503 SlowDown")
            return method(*args)

        monkeypatch.setattr(kind, name, troubled)
