"""Carries requests over ``aiohttp``, for triggers: one session per event loop and credential."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass
from weakref import WeakKeyDictionary

import aiohttp
from yarl import URL

from airflow_provider_aixplain import __version__
from airflow_provider_aixplain.exceptions import AixplainConfigurationError
from airflow_provider_aixplain.protocol.values import printable
from airflow_provider_aixplain.protocol.wire import Answer, NoAnswer, Request
from airflow_provider_aixplain.transport.platform import MAX_REDIRECTS, Platform


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
        tls = await _tls(platform)
        if platform not in sessions:  # another trigger may have come first meanwhile
            sessions[platform] = _Shared(_new_session(tls))
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
    limit = platform.timeout if timeout is None else timeout
    try:
        for _ in range(1 + MAX_REDIRECTS):
            credential = platform.headers(request)
            async with session.request(
                request.method,
                URL(request.url, encoded=True),
                data=request.body,
                headers=credential,
                timeout=aiohttp.ClientTimeout(total=limit),
                allow_redirects=False,
                proxy=platform.proxy or _environment_proxy(request.url),
            ) as response:
                body = await response.read()
            headers = {name.lower(): value for name, value in response.headers.items()}
            target = platform.redirect(request.method, request.url, response.status, headers.get("location"))
            if target is None:
                break
            request = Request(request.method, target)
    except asyncio.TimeoutError as error:
        return NoAnswer(f"not within {limit:g} s", sent=not _never_sent(error))
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return NoAnswer(printable(platform.hide(f"{type(error).__name__}: {error}")), sent=not _never_sent(error))
    return Answer(response.status, platform.redact(body), headers)


async def _tls(platform: Platform) -> ssl.SSLContext | bool:
    """Return how to verify certificates, as aiohttp takes it."""
    if isinstance(platform.verify, bool):
        return platform.verify
    try:
        # Reading a CA file takes milliseconds in which no other trigger would run.
        return await asyncio.to_thread(ssl.create_default_context, cafile=platform.verify)
    except OSError as error:
        raise AixplainConfigurationError(
            f"The Connection's verify is {platform.verify!r}, which cannot be read as a CA file: {error}."
        ) from None


def _new_session(tls: ssl.SSLContext | bool) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls),
        headers={"User-Agent": f"airflow-provider-aixplain/{__version__} aiohttp/{aiohttp.__version__}"},
        # The environment's proxies are found below: aiohttp would bring the credentials of a netrc file along.
        trust_env=False,
    )


def _environment_proxy(url: str) -> str | None:
    parts = urlsplit(url)
    if proxy_bypass(parts.hostname or ""):
        return None
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def _never_sent(error: BaseException) -> bool:
    """Whether the request failed before anything of it left: no name, no connection, no TLS, no valid URL."""
    return isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL))
