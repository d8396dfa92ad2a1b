"""Pytest fixtures for users of the provider.

Enable them in ``conftest.py``: ``pytest_plugins = ["airflow_provider_aixplain.emulator.pytest_plugin"]``. Tasks and
hooks then use an emulator on this machine, without an account, a network or a bill.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiohttp import web

from airflow_provider_aixplain.emulator.server import JOURNAL, connection_to, create_app

START_TIMEOUT = 30.0


class AixplainEmulator:
    """A running emulator.

    :param url: its base URL.
    :param app: its application.
    """

    def __init__(self, url: str, app: web.Application) -> None:
        self.url = url
        self._app = app

    @property
    def connection(self) -> str:
        """An Airflow Connection to it, as JSON for an ``AIRFLOW_CONN_…`` variable."""
        return connection_to(self.url)

    @property
    def runs(self) -> list[dict[str, Any]]:
        """The submitted runs, oldest first: ``id``, ``model_id``, ``agent_id``, ``session_id``, ``payload``,
        ``submitted_at``, ``finishes_at`` and ``polled_at``. Times are seconds since the epoch. ``model_id`` is None for
        runs of agents, ``agent_id`` and ``session_id`` for runs of models."""
        return self._app[JOURNAL]()


@pytest.fixture(scope="session")
def aixplain_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AixplainEmulator]:
    """An emulator for the whole session, whose runs take 0.1 s.

    The models are ``sentiment`` and ``language`` (both need the extra ``emulator``), ``echo``, ``fail`` and ``tuned``.
    The agents are ``review-analyst``, ``echo-agent`` and ``review-team``. The parameter, or variable of a query,
    ``delay`` sets the seconds that a run takes.
    """
    app = create_app(seconds=0.1, folder=tmp_path_factory.mktemp("aixplain-emulator"))
    with socket.create_server(("127.0.0.1", 0)) as server, _serving(app, server):
        yield AixplainEmulator(f"http://127.0.0.1:{server.getsockname()[1]}", app)


@pytest.fixture
def aixplain_connection(aixplain_emulator: AixplainEmulator, monkeypatch: pytest.MonkeyPatch) -> AixplainEmulator:
    """The emulator, with a Connection ``aixplain_default`` to it for one test."""
    monkeypatch.setenv("AIRFLOW_CONN_AIXPLAIN_DEFAULT", aixplain_emulator.connection)
    return aixplain_emulator


@contextmanager
def _serving(app: web.Application, server: socket.socket) -> Iterator[None]:
    """Serve in a separate thread, because a test that waits for a response blocks its thread."""
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(app, access_log=None)

    async def start() -> None:
        await runner.setup()
        await web.SockSite(runner, server).start()

    thread = threading.Thread(target=loop.run_forever, name="aixplain-emulator", daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(start(), loop).result(START_TIMEOUT)
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(START_TIMEOUT)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(START_TIMEOUT)
        loop.close()
