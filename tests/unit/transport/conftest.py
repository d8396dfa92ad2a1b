"""Runs a test over both transports."""

from __future__ import annotations

import pytest

from tests.unit.transport.transports import Send, send_aio, send_sync


@pytest.fixture(params=[send_sync, send_aio], ids=["requests", "aiohttp"])
def send(request: pytest.FixtureRequest) -> Send:
    """One of the transports."""
    transport: Send = request.param
    return transport
