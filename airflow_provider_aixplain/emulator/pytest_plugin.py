"""Fixtures for your own tests.

A ``conftest.py`` asks for them: ``pytest_plugins = ["airflow_provider_aixplain.emulator.pytest_plugin"]``. Tasks and
hooks then talk to an emulator on this machine, with no account, no network and no bill.
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

    :param url: where it listens.
    :param app: what answers there.
    """

    def __init__(self, url: str, app: web.Application) -> None:
        self.url = url
        self._app = app

    @property
    def connection(self) -> str:
        """An Airflow Connection to it, as the JSON that an ``AIRFLOW_CONN_…`` variable takes."""
        return connection_to(self.url)

    @property
    def runs(self) -> list[dict[str, Any]]:
        """The runs that were submitted, oldest first: ``id``, ``model_id``, ``payload``, ``submitted_at``, ``over_at``
        and ``polled_at``, times in seconds since the epoch."""
        return self._app[JOURNAL]()


@pytest.fixture(scope="session")
def aixplain_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AixplainEmulator]:
    """An emulator of aiXplain for the whole session, whose runs take a tenth of a second.

    Its models: ``sentiment`` and ``language`` (with the extra ``emulator``), ``echo``, ``fail`` and ``tuned``. A
    parameter ``delay`` of a run sets how many seconds it takes.
    """
    app = create_app(seconds=0.1, folder=tmp_path_factory.mktemp("aixplain-emulator"))
    with socket.create_server(("127.0.0.1", 0)) as server, _serving(app, server):
        yield AixplainEmulator(f"http://127.0.0.1:{server.getsockname()[1]}", app)


@pytest.fixture
def aixplain_connection(aixplain_emulator: AixplainEmulator, monkeypatch: pytest.MonkeyPatch) -> AixplainEmulator:
    """The Connection ``aixplain_default`` to the emulator, for one test."""
    monkeypatch.setenv("AIRFLOW_CONN_AIXPLAIN_DEFAULT", aixplain_emulator.connection)
    return aixplain_emulator


@contextmanager
def _serving(app: web.Application, server: socket.socket) -> Iterator[None]:
    """Serve in a thread, as a test that waits for an answer blocks its own."""
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
