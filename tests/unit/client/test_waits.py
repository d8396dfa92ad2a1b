"""What the log states of a wait, blocking and in an event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from airflow_provider_aixplain.client.account import Platform
from airflow_provider_aixplain.client.aio import AsyncClient
from airflow_provider_aixplain.protocol.wait import Outcome, Wait
from tests.support.scripted import Handler, serve


def wait_blocking(client: AsyncClient, url: str) -> Outcome:
    return client.wait_for_run(url, Wait(0.2, timeout=60), "Row 7")


def wait_in_event_loop(client: AsyncClient, url: str) -> Outcome:
    return asyncio.run(client.await_run(url, Wait(0.2, timeout=60), name="Row 7"))


@pytest.mark.parametrize("way", [wait_blocking, wait_in_event_loop])
def test_the_first_failed_poll_and_the_recovery_are_logged_as_warnings(
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


def test_failed_polls_are_reported_to_a_callback_instead_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
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
