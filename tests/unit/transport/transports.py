"""Both transports behind one signature, so that a test runs over each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from airflow_provider_aixplain.client.account import Platform
from airflow_provider_aixplain.protocol.wire import Answer, NoResponse, Request
from airflow_provider_aixplain.transport import aio, sync

KEY = "k3y-that-nobody-sees"
Send = Callable[..., Any]


def platform(url: str, **fields: Any) -> Platform:
    """An account on a server."""
    return Platform(api_key=KEY, backend_url=url, models_run_url=f"{url}/api/v1/execute", **fields)


def send_sync(platform: Platform, request: Request, timeout: float | None = None) -> Answer | NoResponse:
    """Send a request with the transport of workers."""
    with sync.PlatformSession(platform) as session:
        return sync.send(session, request, timeout)


def send_aio(platform: Platform, request: Request, timeout: float | None = None) -> Answer | NoResponse:
    """Send a request with the transport of triggers."""

    async def send() -> Answer | NoResponse:
        async with aio.Lease() as lease:
            return await aio.send(await lease.session(platform), request, timeout)

    return asyncio.run(send())
