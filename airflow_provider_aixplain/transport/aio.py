"""Carries requests over ``aiohttp``, for triggers: one session per event loop and credential."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urljoin
from weakref import WeakKeyDictionary

import aiohttp
from yarl import URL

from airflow_provider_aixplain import __version__
from airflow_provider_aixplain.model.wire import Answer, NoAnswer, Request, printable
from airflow_provider_aixplain.transport.platform import Platform

MAX_REDIRECTS = 5


@dataclass
class _Shared:
    session: aiohttp.ClientSession
    users: int = 0


_sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Platform, _Shared]] = WeakKeyDictionary()


@asynccontextmanager
async def open_session(platform: Platform) -> AsyncIterator[aiohttp.ClientSession]:
    """Hold the session that all users of one account share in this event loop; the last one closes it.

    Connections, TLS sessions and names are so looked up once for all runs that a triggerer waits for.
    """
    sessions = _sessions.setdefault(asyncio.get_running_loop(), {})
    if platform not in sessions:
        sessions[platform] = _Shared(await _new_session(platform))
    shared = sessions[platform]
    shared.users += 1
    try:
        yield shared.session
    finally:
        shared.users -= 1
        if not shared.users:
            del sessions[platform]
            await shared.session.close()


async def send(
    session: aiohttp.ClientSession, platform: Platform, request: Request, timeout: float | None = None
) -> Answer | NoAnswer:
    """Send a request once.

    :param timeout: seconds for the whole exchange; default: as the Connection says.
    :raises AixplainUntrustedUrl: if the request would take the key to a foreign origin.
    """
    limit = aiohttp.ClientTimeout(total=min(platform.timeout, timeout) if timeout else platform.timeout)
    try:
        for _ in range(MAX_REDIRECTS):
            async with session.request(
                request.method,
                URL(request.url, encoded=True),
                data=request.body,
                headers=platform.headers(request),
                timeout=limit,
                allow_redirects=False,
                proxy=platform.proxy,
            ) as response:
                body = await response.read()
            headers = {name.lower(): value for name, value in response.headers.items()}
            target = urljoin(request.url, headers.get("location", request.url))
            if request.method != "GET" or not 300 <= response.status <= 399 or not platform.trusts(target):
                break
            request = Request("GET", target)
    except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError) as error:
        return NoAnswer(printable(f"{type(error).__name__}: {error}"), sent=not _never_sent(error))
    return Answer(response.status, platform.redact(body), headers)


async def _new_session(platform: Platform) -> aiohttp.ClientSession:
    verify: ssl.SSLContext | bool = platform.verify if isinstance(platform.verify, bool) else True
    if isinstance(platform.verify, str):
        # Reading a CA file takes milliseconds in which no other trigger would run.
        verify = await asyncio.to_thread(ssl.create_default_context, cafile=platform.verify)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=verify),
        headers={"User-Agent": f"airflow-provider-aixplain/{__version__} aiohttp/{aiohttp.__version__}"},
        trust_env=True,
    )


def _never_sent(error: BaseException) -> bool:
    """Whether the request failed before anything of it left: no name, no connection, no TLS, no valid URL."""
    return isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL))
