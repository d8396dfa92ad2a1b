"""Carries requests over ``aiohttp``, for triggers: one session per event loop and credential."""

from __future__ import annotations

import asyncio
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
from airflow_provider_aixplain.transport.platform import MAX_REDIRECTS, SHORTEST_REQUEST, Platform, origin

MAX_CONNECTIONS = 256
"""Requests of one account at a time in one event loop; of those that hang, so many do not stop the others."""

LONGEST_HEADER = 65536
"""Bytes of a header's line; what http.client takes too."""


@dataclass(eq=False)
class Shared:
    """A session that all who send on behalf of one account share in an event loop.

    :param session: keeps connections, TLS sessions and names.
    :param proxies: the environment's proxy for each origin; reading the environment takes longer than a poll.
    :param users: how many hold it.
    """

    session: aiohttp.ClientSession
    proxies: dict[str, str | None] = field(default_factory=dict)
    users: int = 0

    def proxy(self, url: str) -> str | None:
        """Return the URL of the proxy that the environment names for a URL."""
        of = origin(url)
        if of not in self.proxies:
            self.proxies[of] = _environment_proxy(url)
        return self.proxies[of]


_sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Platform, Shared]] = WeakKeyDictionary()


class Lease:
    """Holds the session that all users of one account share in this event loop; the last one closes it.

    Connections, TLS sessions and names are so looked up once for all runs that a triggerer waits for.
    """

    def __init__(self) -> None:
        self._shared: Shared | None = None

    async def __aenter__(self) -> Lease:
        """Return the lease; it holds nothing yet."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let go of the session."""
        held, self._shared = self._shared, None
        await _let_go(held)

    async def shared(self, platform: Platform) -> Shared:
        """Return the session of an account, and hold it from now on, instead of another one.

        :raises AixplainConfigurationError: if the account's CA file cannot be read.
        """
        sessions = _sessions.setdefault(asyncio.get_running_loop(), {})
        if platform not in sessions:
            tls = await _tls(platform)
            if platform not in sessions:  # another user may have come first meanwhile
                sessions[platform] = Shared(_new_session(tls))
        shared, held = sessions[platform], self._shared
        if shared is not held:
            shared.users += 1
            self._shared = shared
            await _let_go(held)
        return shared


async def _let_go(shared: Shared | None) -> None:
    if shared is None:
        return
    shared.users -= 1
    if not shared.users:
        _retire(shared.session)
        await shared.session.close()


def _retire(session: aiohttp.ClientSession) -> None:
    """Let nobody hold a session from now on who does not do so already."""
    sessions = _sessions[asyncio.get_running_loop()]
    for platform in [platform for platform, shared in sessions.items() if shared.session is session]:
        del sessions[platform]


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
            credential = platform.headers(request)
            async with shared.session.request(
                request.method,
                URL(request.url, encoded=True),
                data=request.body,
                headers=credential,
                timeout=aiohttp.ClientTimeout(total=max(deadline - time.monotonic(), SHORTEST_REQUEST)),
                allow_redirects=False,
                proxy=platform.proxy or shared.proxy(request.url),
            ) as response:
                body = await _read(response, most)
            headers = {name.lower(): value for name, value in response.headers.items()}
            target = platform.redirect(request.method, request.url, response.status, headers.get("location"))
            if target is None:
                break
            request = replace(request, url=target)
    except asyncio.TimeoutError as error:
        return NoAnswer(f"not within {limit:g} s", sent=not _never_sent(error))
    except (aiohttp.ClientError, OSError, ValueError) as error:
        if isinstance(error, aiohttp.ClientSSLError) and isinstance(platform.verify, str):
            _retire(shared.session)  # its CA file may be mended; a new session reads it again
        return NoAnswer(printable(platform.hide(f"{type(error).__name__}: {error}")), sent=not _never_sent(error))
    return Answer(response.status, platform.redact(body[:most]), headers, is_cut=len(body) > most)


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    """Return a body; of one that is larger than it may be, somewhat more than that."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > most:
            response.close()
            break
    return bytes(body)


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
        connector=aiohttp.TCPConnector(ssl=tls, limit=MAX_CONNECTIONS),
        max_line_size=LONGEST_HEADER,
        max_field_size=LONGEST_HEADER,
        headers={"User-Agent": f"airflow-provider-aixplain/{__version__} aiohttp/{aiohttp.__version__}"},
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
    return isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL))
