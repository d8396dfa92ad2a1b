"""What the log states of a wait, blocking and in an event loop."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_aixplain.client.account import Platform
from airflow_provider_aixplain.client.aio import MAX_RESPONSE_BYTES, AsyncClient
from airflow_provider_aixplain.protocol.wait import Outcome, Wait
from tests.support.scripted import Handler, serve


def wait_blocking(client: AsyncClient, url: str) -> Outcome:
    return client.wait_for_run(url, Wait(0.2, timeout=60), "Row 7")


def wait_in_event_loop(client: AsyncClient, url: str) -> Outcome:
    return asyncio.run(client.await_run(url, Wait(0.2, timeout=60), name="Row 7"))


@pytest.mark.parametrize("way", [wait_blocking, wait_in_event_loop])
def test_the_first_failed_poll_and_the_recovery_are_warnings(
    way: Callable[[AsyncClient, str], Outcome], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    answers = [(503, b""), (503, b""), (200, b'{"completed": false}'), (200, b'{"completed": true}')]

    def answer(http: Handler) -> None:
        http.answer(*answers[len(server.asked) - 1])

    with serve(answer) as server:
        assert way(AsyncClient(Platform("key", backend_url=server.url)), f"{server.url}/run").status == "success"
    lines = [
        (record.levelno, record.getMessage()) for record in caplog.records if "poll" in record.getMessage().lower()
    ]
    assert [level for level, _ in lines] == [logging.WARNING, logging.WARNING]
    assert lines[0][1].startswith("Row 7: Poll failed after 0 s, polling continues: HTTP 503")
    assert lines[1][1].startswith("Row 7: Polling works again after ")
    assert lines[1][1].endswith(" s; failed polls: 2")


def test_a_callback_receives_failed_polls_instead_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    failures: list[str] = []

    def answer(http: Handler) -> None:
        http.answer(*((503, b"") if len(server.asked) == 1 else (200, b'{"completed": true}')))

    with serve(answer) as server:
        client = AsyncClient(Platform("key", backend_url=server.url))
        wait = Wait(0.2, timeout=60)
        asyncio.run(client.await_run(f"{server.url}/run", wait, name="Row 7", on_failed_poll=failures.append))
    assert [failure.partition(" (")[0] for failure in failures] == ["Row 7: HTTP 503"]
    assert not [record for record in caplog.records if "Row 7" in record.getMessage()]


def step(name: str, output: str) -> dict[str, Any]:
    return {"id": name, "agent": {"name": "Analyst"}, "task": name, "output": output}


def answering(*answers: dict[str, Any]) -> Any:
    """A server that gives these answers to polls, and no other."""
    return serve(lambda http: http.answer(200, json.dumps(answers[len(http.seen.asked) - 1]).encode()))


@pytest.mark.parametrize("way", [wait_blocking, wait_in_event_loop])
def test_the_steps_of_an_agent_are_logged_once(
    way: Callable[[AsyncClient, str], Outcome], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    steps = [step("find", "yes"), step("rate", ""), step("sum up", "yes")]
    answers = [{"completed": False, "data": {"steps": steps[:2]}}] * 2 + [{"completed": True, "data": {"steps": steps}}]
    with answering(*answers) as server:
        assert way(AsyncClient(Platform("key", backend_url=server.url)), f"{server.url}/run").status == "success"
    lines = [record.getMessage() for record in caplog.records if "Step" in record.getMessage()]
    assert lines == [
        "Row 7: Step 1: Analyst: find",
        "Row 7: Step 2: Analyst: rate",
        "Row 7: Step 3: Analyst: sum up",
    ]


def test_the_steps_of_a_batch_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with answering({"completed": True, "data": {"steps": [step("find", "yes")]}}) as server:
        client = AsyncClient(Platform("key", backend_url=server.url))
        asyncio.run(client.await_run(f"{server.url}/run", Wait(0.2, timeout=60), on_failed_poll=print))
    assert not [record for record in caplog.records if "Step" in record.getMessage()]


def test_only_a_finished_run_has_its_large_response_read_completely() -> None:
    """Without a size limit, as in a batch. The beginning of its answer shows first that the run has finished."""
    unfinished = {"data": {"steps": [step("find", "x" * 3 * MAX_RESPONSE_BYTES)]}, "completed": False}
    finished = {**unfinished, "completed": True}
    for limit in (None, MAX_RESPONSE_BYTES):
        with answering(unfinished, unfinished, finished, finished) as server:
            client = AsyncClient(Platform("key", backend_url=server.url))
            response = asyncio.run(client.apoll(f"{server.url}/run", max_size=limit))
            assert response.data == {"steps": [{"id": "find", "agent": {"name": "Analyst"}}]}
            outcome = asyncio.run(client.await_run(f"{server.url}/run", Wait(0.2, timeout=60), max_size=limit))
        assert outcome.is_too_large == (limit is not None)
        assert outcome.response is not None
        assert outcome.response.data == (finished["data"] if limit is None else "")
        assert len(server.asked) == (4 if limit is None else 3)
