"""Carries requests over ``aiohttp``, for triggers: one session per event loop and credential."""

from __future__ import annotations

import asyncio
import math
import ssl
import time
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass
from weakref import WeakKeyDictionary

import aiohttp
from yarl import URL

from airflow_provider_aixplain import __version__
from airflow_provider_aixplain.exceptions import AixplainConfigurationError
from airflow_provider_aixplain.protocol.values import printable
from airflow_provider_aixplain.protocol.wire import Answer, NoAnswer, Request
from airflow_provider_aixplain.transport.connections import Connections, NotConnected, Reply
from airflow_provider_aixplain.transport.once import Once
from airflow_provider_aixplain.transport.platform import MAX_REDIRECTS, SHORTEST_REQUEST, Platform, origin

MAX_CONNECTIONS = 256
"""Requests of one account at a time in one event loop; of those that hang, so many do not stop the others."""

USER_AGENT = f"airflow-provider-aixplain/{__version__} asyncio"

LONGEST_HEADER = 65536
"""Bytes of a header's line; what http.client takes too."""


@dataclass(eq=False)
class Shared:
    """What all who send on behalf of one account share in an event loop.

    :param platform: the account.
    :param connections: for GETs without a proxy.
    :param session: for all other requests.
    :param proxies: the environment's proxy for each origin; reading the environment takes longer than a poll.
    :param users: how many hold it.
    :param is_retired: whether nobody is to hold it who does not do so already.
    """

    platform: Platform
    connections: Connections
    session: aiohttp.ClientSession
    proxies: dict[str, str | None] = field(default_factory=dict)
    users: int = 0
    is_retired: bool = False

    def proxy(self, url: str) -> str | None:
        """Return the URL of the proxy that the environment names for a URL."""
        of = origin(url)
        if of not in self.proxies:
            self.proxies[of] = _environment_proxy(url)
        return self.proxies[of]

    def retire(self) -> None:
        """Let those who come from now on share another one."""
        if not self.is_retired:
            self.is_retired = True
            del _sessions[asyncio.get_running_loop()][self.platform]

    async def let_go(self) -> None:
        """Hold it no longer; the last one closes it."""
        self.users -= 1
        if not self.users:
            self.retire()
            self.connections.close()
            await self.session.close()


_sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Platform, Once[Shared]]] = WeakKeyDictionary()


class Lease:
    """Holds the session that all users of one account share in this event loop; the last one closes it.

    Connections and names are so looked up once for all runs that a triggerer waits for.
    """

    def __init__(self) -> None:
        self._shared: Shared | None = None

    async def __aenter__(self) -> Lease:
        """Return the lease; it holds nothing yet."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let go of the session."""
        held, self._shared = self._shared, None
        if held:
            await held.let_go()

    async def shared(self, platform: Platform) -> Shared:
        """Return the session of an account, and hold it from now on, instead of another one.

        :raises AixplainConfigurationError: if the account's CA file cannot be read.
        """
        held = self._shared
        if held and not held.is_retired and held.platform == platform:
            return held
        while (shared := await _find(platform)).is_retired:
            pass
        shared.users += 1
        self._shared = shared
        if held:
            await held.let_go()
        return shared


async def _find(platform: Platform) -> Shared:
    sessions = _sessions.setdefault(asyncio.get_running_loop(), {})
    _, shared = await sessions.setdefault(platform, Once()).get(lambda: _open(platform), -math.inf)
    return shared


async def _open(platform: Platform) -> Shared:
    tls = await _tls(platform)
    return Shared(platform, Connections(tls, MAX_CONNECTIONS), _new_session(tls))


async def send(
    shared: Shared,
    platform: Platform,
    request: Request,
    timeout: float | None = None,
    most: int | None = None,
) -> Answer | NoAnswer:
    """Send a request once.

    :param timeout: seconds for the whole exchange; default: as the Connection says.
    :param most: bytes of the answer that are read, if the Connection does not say less; default: as it says.
    :raises AixplainUntrustedUrl: if the request would take the key to a foreign origin.
    """
    limit = platform.timeout if timeout is None else timeout
    most = platform.max_answer if most is None else min(most, platform.max_answer)
    deadline = time.monotonic() + limit
    try:
        for _ in range(1 + MAX_REDIRECTS):
            reply = await _exchange(shared, platform, request, deadline, most)
            target = platform.redirect(request.method, request.url, reply.status_code, reply.headers.get("location"))
            if target is None:
                break
            request = replace(request, url=target)
    except asyncio.TimeoutError as error:
        return NoAnswer(f"not within {limit:g} s", sent=not _never_sent(error))
    except (aiohttp.ClientError, OSError, ValueError) as error:
        is_refused = isinstance(error, aiohttp.ClientSSLError) or isinstance(error.__cause__, ssl.SSLError)
        if is_refused and isinstance(platform.verify, str):
            shared.retire()  # its CA file may be mended; a new session reads it again
        return NoAnswer(printable(platform.hide(f"{type(error).__name__}: {error}")), sent=not _never_sent(error))
    body = platform.redact(bytes(reply.body[:most]))
    return Answer(reply.status_code, body, reply.headers, is_cut=len(reply.body) > most)


async def _exchange(shared: Shared, platform: Platform, request: Request, deadline: float, most: int) -> Reply:
    """Send a request, follow nothing, and return the answer."""
    headers = {"User-Agent": USER_AGENT, **platform.headers(request)}
    proxy = platform.proxy or shared.proxy(request.url)
    if request.method == "GET" and not proxy:
        return await shared.connections.get(request.url, headers, deadline, most)
    async with shared.session.request(
        request.method,
        URL(request.url, encoded=True),
        data=request.body,
        headers=headers,
        timeout=aiohttp.ClientTimeout(total=max(deadline - time.monotonic(), SHORTEST_REQUEST)),
        allow_redirects=False,
        proxy=proxy,
    ) as response:
        reply = Reply(response.status, {name.lower(): value for name, value in response.headers.items()})
        async for piece in response.content.iter_any():
            reply.body += piece
            if len(reply.body) > most:
                response.close()
                break
    return reply


async def _tls(platform: Platform) -> ssl.SSLContext:
    """Return how to verify certificates."""
    cafile = platform.verify if isinstance(platform.verify, str) else None
    try:
        # Reading a CA file takes milliseconds in which no other trigger would run.
        context = await asyncio.to_thread(ssl.create_default_context, cafile=cafile)
    except OSError as error:
        raise AixplainConfigurationError(
            f"The Connection's verify is {platform.verify!r}, which cannot be read as a CA file: {error}."
        ) from None
    if not platform.verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _new_session(tls: ssl.SSLContext) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls, limit=MAX_CONNECTIONS),
        max_line_size=LONGEST_HEADER,
        max_field_size=LONGEST_HEADER,
        cookie_jar=aiohttp.DummyCookieJar(),  # nothing of one run may travel with another
        # The environment's proxies are found above: aiohttp would bring the credentials of a netrc file along.
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
    kinds = (NotConnected, aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)
    return isinstance(error, kinds)
