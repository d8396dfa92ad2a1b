"""Sends requests with ``aiohttp``, for triggers: one session per event loop and account."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial

import aiohttp
from urllib3.exceptions import HTTPError
from yarl import URL

from airflow_provider_aixplain import __version__
from airflow_provider_aixplain.client.account import MAX_REDIRECTS, MIN_TIMEOUT, Platform, parse_origin
from airflow_provider_aixplain.loop_local import LoopCache
from airflow_provider_aixplain.protocol.excerpt import Excerpt
from airflow_provider_aixplain.protocol.values import to_printable
from airflow_provider_aixplain.protocol.wire import Answer, NoResponse, Request
from airflow_provider_aixplain.transport.decoding import ACCEPTED_CODINGS, Decoder
from airflow_provider_aixplain.transport.environment import Route, find_route, quote_url
from airflow_provider_aixplain.transport.guard import guard_connections

MAX_CONNECTIONS = 256
"""Concurrent requests of one account in one event loop."""

KEEPALIVE = 15.0
"""Seconds for which an idle connection is kept: shorter than servers and proxies usually keep theirs."""

MAX_HEADER = 65536
"""The size limit of a header line, in bytes, as in ``http.client``."""

HEADERS = {
    "User-Agent": f"airflow-provider-aixplain/{__version__} aiohttp/{aiohttp.__version__}",
    "Accept-Encoding": ACCEPTED_CODINGS,
}

_NETWORK_ERRORS = (aiohttp.ClientError, HTTPError, OSError, ValueError)


@dataclass(eq=False)
class PooledSession:
    """The session of an account in an event loop, shared by its leases.

    :param platform: the account.
    :param session: sends the requests.
    :param routes: by origin; a cache, as computing a route takes longer than a poll.
    :param leases: the number of leases.
    :param is_invalid: whether new leases open another session.
    """

    platform: Platform
    session: aiohttp.ClientSession
    routes: dict[str, Route] = field(default_factory=dict)
    leases: int = 0
    is_invalid: bool = False

    def route(self, url: str) -> Route:
        """Return the route to a URL."""
        origin = parse_origin(url)
        if origin not in self.routes:
            self.routes[origin] = find_route(self.platform, url)
        return self.routes[origin]

    def invalidate(self) -> None:
        """Make new leases open another session."""
        if not self.is_invalid:
            self.is_invalid = True
            sessions.discard(self.platform)

    async def release(self) -> None:
        """Remove one lease; the last one closes the session."""
        self.leases -= 1
        if not self.leases:
            self.invalidate()
            await self.session.close()


sessions: LoopCache[Platform, PooledSession] = LoopCache()


class Lease:
    """Keeps an account's session in this event loop open; the last lease closes it.

    All runs that a triggerer waits for share the session's connections and resolved host names.
    """

    def __init__(self) -> None:
        self._pooled: PooledSession | None = None

    async def __aenter__(self) -> Lease:
        """Return the lease; it has no session yet."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Release the session."""
        pooled, self._pooled = self._pooled, None
        if pooled:
            await pooled.release()

    async def session(self, platform: Platform) -> PooledSession:
        """Return the session of an account, and keep it open; a session that this lease kept before is released.

        :raises AixplainConfigurationError: if the account's CA certificates cannot be read.
        """
        previous = self._pooled
        if previous and not previous.is_invalid and previous.platform == platform:
            return previous
        while True:
            _, pooled = await sessions.get(platform, partial(_open, platform))
            if not pooled.is_invalid:
                break
        pooled.leases += 1
        self._pooled = pooled
        if previous:
            await previous.release()
        return pooled

    async def send(
        self, platform: Platform, request: Request, timeout: float | None = None, max_size: int | None = None
    ) -> Answer | NoResponse:
        """Send a request of an account once; see :func:`send`."""
        return await send(await self.session(platform), request, timeout, max_size)


async def _open(platform: Platform) -> PooledSession:
    route = find_route(platform, platform.backend_url)
    tls = await asyncio.to_thread(route.tls_context)  # reading a CA file would block other triggers
    connector = aiohttp.TCPConnector(ssl=tls, limit=MAX_CONNECTIONS, keepalive_timeout=KEEPALIVE)
    session = aiohttp.ClientSession(
        connector=guard_connections(connector),
        auto_decompress=False,  # before aiohttp 3.14 its own decoders use unbounded memory
        max_line_size=MAX_HEADER,
        max_field_size=MAX_HEADER,
        cookie_jar=aiohttp.DummyCookieJar(),  # a cookie of one run must not be sent with the requests of another
        trust_env=False,  # find_route reads the environment; aiohttp would add the credentials of a netrc file
    )
    return PooledSession(platform, session, {parse_origin(platform.backend_url): route})


async def send(
    pooled: PooledSession, request: Request, timeout: float | None = None, max_size: int | None = None
) -> Answer | NoResponse:
    """Send a request once.

    :param pooled: the account's session.
    :param timeout: seconds for the whole exchange; default and maximum: the Connection's.
    :param max_size: the size limit of the answer, in bytes; default and maximum: the Connection's. An answer between
        the two limits is read to its end, if that is needed for its excerpt.
    :raises AixplainUntrustedUrl: if the request would send the key to an untrusted origin.
    :raises AixplainConfigurationError: if the proxy or the CA certificates cannot be used.
    """
    platform = pooled.platform
    limit = platform.timeout if timeout is None else min(timeout, platform.timeout)
    max_size = platform.max_answer if max_size is None else min(max_size, platform.max_answer)
    deadline = time.monotonic() + limit
    exchange = _Exchange(pooled, request, max_size)
    try:
        for _ in range(1 + MAX_REDIRECTS):
            answer = await exchange.run(deadline)
            location = answer.headers.get("location")
            target = platform.redirect(request.method, exchange.request.url, answer.status_code, location)
            if target is None:
                break
            exchange.request = replace(request, url=target)
        return answer
    except asyncio.TimeoutError:
        return NoResponse(f"timed out after {limit:g} s", exchange.is_sent)
    except Exception as error:
        # A raised error means that nothing was sent; once the body has been sent, any error is returned as an outcome.
        is_submitted = request.body is not None and exchange.is_sent
        if not is_submitted and not isinstance(error, _NETWORK_ERRORS):
            raise
        if isinstance(error, aiohttp.ClientSSLError) and pooled.route(exchange.request.url).has_own_ca:
            pooled.invalidate()  # a new session reads the CA file again, which may have been fixed
        return NoResponse(to_printable(platform.redact_all(f"{type(error).__name__}: {error}")), exchange.is_sent)


@lru_cache(8192)  # for the poll URLs of all runs that a triggerer waits for
def _encode_url(url: str) -> URL:
    return URL(quote_url(url), encoded=True)


@dataclass
class _Exchange:
    """The exchange of one request and its answer.

    :param pooled: the account's session.
    :param request: what to send.
    :param max_size: the size limit of the decoded answer, in bytes.
    :param is_sent: whether the platform may have received the request. A submission has no effect without its body.
    """

    pooled: PooledSession
    request: Request
    max_size: int
    is_sent: bool = False

    async def run(self, deadline: float) -> Answer:
        """Send the request and return the answer, cut at the size limit. Redirects are not followed.

        :param deadline: by the monotonic clock, for the whole exchange.
        """
        request, platform = self.request, self.pooled.platform
        headers = {**HEADERS, **platform.headers(request)}
        if isinstance(request.body, bytes):
            headers["Content-Length"] = str(len(request.body))
        else:
            self.is_sent = True
        async with self.pooled.session.request(
            request.method,
            _encode_url(request.url),
            data=self._body(request.body) if isinstance(request.body, bytes) else None,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=max(deadline - time.monotonic(), MIN_TIMEOUT)),
            allow_redirects=False,
            proxy=self.pooled.route(request.url).proxy,
        ) as response:
            body, excerpt = await self._read(response)
        return Answer(
            response.status,
            bytes(body[: self.max_size]),
            response.headers,
            is_cut=len(body) > self.max_size,
            redact=platform.redact,
            received_at=time.time(),
            excerpt=excerpt.text if excerpt else b"",
        )

    async def _read(self, response: aiohttp.ClientResponse) -> tuple[bytearray, Excerpt | None]:
        """Return the body of an answer; or its beginning, which is longer than the size limit, and its excerpt."""
        body, excerpt = bytearray(), None
        decoder = Decoder(response.headers.get("content-encoding", ""))
        limit = self.pooled.platform.max_answer if 200 <= response.status <= 299 else 0
        try:
            async for chunk in response.content.iter_any():
                for piece in decoder.decode(chunk):
                    if excerpt is None:
                        body += piece
                        if len(body) <= self.max_size:
                            continue
                        excerpt = Excerpt(bytes(body[: self.max_size]), limit)
                        piece = bytes(body[self.max_size :])
                    excerpt.add(piece)
                    await asyncio.sleep(0)  # other triggers get their turn
                    if excerpt.is_done:
                        response.close()
                        return body, excerpt
        except asyncio.TimeoutError:
            if excerpt is None:
                raise
            excerpt = None  # a worker has more time to read it
        return body, excerpt

    async def _body(self, body: bytes) -> AsyncIterator[bytes]:
        # aiohttp reads the body after it has connected and sent the headers.
        self.is_sent = True
        yield body
