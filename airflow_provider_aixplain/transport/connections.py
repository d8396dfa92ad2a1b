"""Carries GETs over connections of its own, for triggers: nearly all that a triggerer sends are polls.

A general HTTP client takes several times as long for one (``make bench`` shows it), and a triggerer has one core for
all its runs. Here is only what a poll needs, over ``asyncio``, with the parser that ``uvicorn`` and Node.js use
(``httptools``); proxies and submissions are left to ``aiohttp``.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
import zlib
from collections import defaultdict, deque
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import aiohappyeyeballs
import httptools

from airflow_provider_aixplain.transport.once import Once
from airflow_provider_aixplain.transport.platform import DEFAULT_PORTS

IDLE = 15.0
"""Seconds after which an unused connection is not used again: servers, and what stands before them, close theirs."""

NAMES_FRESH = 10.0
"""Seconds for which a name that was looked up is not looked up again."""

LONGEST_HEAD = 65536
"""Bytes of an answer's headers, all told."""

_GZIP_OR_DEFLATE = 32 + zlib.MAX_WBITS
_WRITTEN_AS_IT_IS = "!#$%&'()*+,/:;=?@[]~"
T = TypeVar("T")
Place = tuple[str, str, int]
"""A scheme, a host and a port."""


class NotConnected(OSError):
    """No name, no connection or no TLS came about, or not in time: nothing was sent. The cause says which."""


class _Closed(ConnectionError):
    """A connection ended before anything of an answer came: where it was used before, the server had closed it."""


@dataclass
class Reply:
    """An answer.

    :param status_code: as HTTP has it.
    :param headers: by name, in lower case.
    :param body: decoded; of one that is larger than it may be, somewhat more than that.
    """

    status_code: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)


class Connections:
    """The connections of one account in an event loop.

    :param tls: how to verify certificates.
    :param most: exchanges at a time.
    """

    def __init__(self, tls: ssl.SSLContext, most: int) -> None:
        self._tls = tls
        self._slots = asyncio.Semaphore(most)
        self._idle: defaultdict[Place, deque[_Connection]] = defaultdict(deque)
        self._names: defaultdict[tuple[str, int], Once[list[Any]]] = defaultdict(Once)

    async def get(self, url: str, headers: Mapping[str, str], deadline: float, most: int) -> Reply:
        """Send a GET, once more if a kept connection turns out to be closed.

        :param deadline: by the monotonic clock, for the whole exchange.
        :param most: bytes of the body after which the rest is not read.
        :raises NotConnected: if nothing was sent.
        :raises TimeoutError: if the answer was not there in time.
        :raises ConnectionError: if none came, or one that is no HTTP.
        """
        place, first_lines = _asked(url)
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        request = f"{first_lines}Accept-Encoding: gzip\r\n{lines}\r\n".encode()
        if self._slots.locked():
            await _connected(self._slots.acquire(), deadline)
        else:
            await self._slots.acquire()
        try:
            if kept := self._kept(place):
                try:
                    return await self._exchange(place, kept, request, deadline, most)
                except _Closed:
                    pass
            new = await _connected(self._open(*place), deadline)
            return await self._exchange(place, new, request, deadline, most)
        finally:
            self._slots.release()

    async def _exchange(
        self, place: Place, connection: _Connection, request: bytes, deadline: float, most: int
    ) -> Reply:
        reply = await connection.get(request, deadline, most)
        if connection.is_open:
            self._idle[place].append(connection)
        return reply

    def close(self) -> None:
        """End all connections that nobody uses."""
        for connections in self._idle.values():
            for connection in connections:
                connection.abort()
        self._idle.clear()

    def _kept(self, place: Place) -> _Connection | None:
        """Return the connection that was used last: the others may so become idle for long enough to be closed."""
        idle = self._idle[place]
        while idle and (not idle[0].is_open or idle[0].idle_since < time.monotonic() - IDLE):
            idle.popleft().abort()
        while idle:
            connection = idle.pop()
            if connection.is_open:
                return connection
        return None

    async def _open(self, scheme: str, host: str, port: int) -> _Connection:
        loop = asyncio.get_running_loop()
        _, addresses = await self._names[host, port].get(
            lambda: loop.getaddrinfo(host, port, type=socket.SOCK_STREAM), time.monotonic() - NAMES_FRESH
        )
        connected = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=0.25)
        tls: dict[str, Any] = {"ssl": self._tls, "server_hostname": host} if scheme == "https" else {}
        try:
            _, connection = await loop.create_connection(_Connection, sock=connected, **tls)
        except BaseException:
            connected.close()
            raise
        return connection


@lru_cache(8192)  # the poll URLs of all runs that a triggerer may wait for
def _asked(url: str) -> tuple[Place, str]:
    """Return where a GET goes to, and its first two lines."""
    parts = urlsplit(url)
    target = quote(f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}", safe=_WRITTEN_AS_IT_IS)
    place = (parts.scheme, parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme])
    return place, f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n"


async def _connected(step: Awaitable[T], deadline: float) -> T:
    """Return what a step brings that comes before anything is sent.

    :raises NotConnected: if it fails, or not in time.
    """
    try:
        return await asyncio.wait_for(step, deadline - time.monotonic())
    except asyncio.TimeoutError as error:
        raise NotConnected("not in time") from error
    except (OSError, ValueError) as error:
        raise NotConnected(f"{type(error).__name__}: {error}") from error


class _Connection(asyncio.Protocol):
    """Carries one exchange after another."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._waiter: asyncio.Future[Reply] = self._loop.create_future()
        self._waiter.cancel()
        self._begin(0)
        self.is_open = False
        self.idle_since = 0.0

    def _begin(self, most: int) -> None:
        self._reply = Reply()
        self._most = most
        self._head_length = 0
        self._is_in_body = False
        self._decoder: Any = None

    async def get(self, request: bytes, deadline: float, most: int) -> Reply:
        """Send a request and return its answer. If the connection can carry another one, it is open afterwards."""
        self._begin(most)
        waiter = self._waiter = self._loop.create_future()
        timer = self._loop.call_at(deadline, self._fail, TimeoutError("not in time"))
        try:
            self._transport.write(request)
            reply: Reply = await waiter
        except BaseException:
            self.abort()
            raise
        finally:
            timer.cancel()
        self.idle_since = time.monotonic()
        return reply

    def abort(self) -> None:
        """End the connection."""
        self.is_open = False
        self._transport.abort()

    def _end(self) -> None:
        reply, self._reply = self._reply, Reply()  # whatever may follow is no part of it
        if not self._waiter.done():
            self._waiter.set_result(reply)

    def _fail(self, error: Exception) -> None:
        if not self._waiter.done():
            self._waiter.set_exception(error)

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # a stream's transport
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        self._head_length += 0 if self._is_in_body else len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(ConnectionError(f"no HTTP: {error.__context__ or error}"))
        if not self._is_in_body and self._head_length > LONGEST_HEAD:
            self._fail(ConnectionError(f"more than {LONGEST_HEAD} bytes of headers"))

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        if self._is_in_body and not self._reply.headers.keys() & {"content-length", "transfer-encoding"}:
            self._end()  # that it ends is how such an answer tells its length
        elif self._head_length:
            self._fail(ConnectionError(f"cut off amid the answer{f': {error}' if error else ''}"))
        else:
            self._fail(_Closed(f"closed without an answer{f': {error}' if error else ''}"))

    # What the parser calls

    def on_message_begin(self) -> None:
        if self._waiter.done():
            self.abort()  # an answer to nothing

    def on_header(self, name: bytes, value: bytes) -> None:
        self._reply.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._is_in_body = True
        self._reply.status_code = self._parser.get_status_code()
        encoding = self._reply.headers.get("content-encoding", "identity").lower()
        if encoding in ("gzip", "x-gzip", "deflate"):
            self._decoder = zlib.decompressobj(_GZIP_OR_DEFLATE)
        elif encoding != "identity":
            self._fail(ConnectionError(f"an answer in an encoding that was not asked for: {encoding!r}"))

    def on_body(self, data: bytes) -> None:
        body = self._reply.body
        if len(body) > self._most:
            return
        body += self._decoder.decompress(data, self._most + 1 - len(body)) if self._decoder else data
        if len(body) > self._most:
            self.abort()
            self._end()

    def on_message_complete(self) -> None:
        if self._reply.status_code < 200:
            self._begin(self._most)  # the answer is still to come
            return
        if not self._parser.should_keep_alive():
            self.abort()
        self._end()
