"""Carries requests over ``requests``, for workers and scripts."""

from __future__ import annotations

import http.client
import io
import logging
import math
import socket
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from airflow_provider_aixplain import __version__
from airflow_provider_aixplain.protocol.values import printable
from airflow_provider_aixplain.protocol.wire import Answer, Credential, NoAnswer, OpenAnswer, Request
from airflow_provider_aixplain.transport.platform import MAX_REDIRECTS, SHORTEST_REQUEST, Platform

PIECE = 64 * 1024
"""Bytes of a stream that are read at once, if so many have arrived."""


class PlatformSession(requests.Session):
    """A session that gives the key to trusted origins only, follows no redirect away from them, and repeats nothing.

    :param platform: the account whose key it carries.
    """

    def __init__(self, platform: Platform) -> None:
        super().__init__()
        self.platform = platform
        self.headers["User-Agent"] = f"airflow-provider-aixplain/{__version__} requests/{requests.__version__}"
        self.auth = self._authorize
        self.max_redirects = MAX_REDIRECTS
        for scheme in ("https://", "http://"):
            self.mount(scheme, _Adapter(max_retries=0))

    def request(self, method: str | bytes, url: str | bytes, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        """Send a request with the account's TLS settings, time limit and proxy, unless it names others.

        With the request and not of the session: what the environment says would override the session's.
        """
        platform = self.platform
        kwargs.setdefault("timeout", platform.timeout)
        kwargs.setdefault("verify", platform.verify)
        if platform.proxy:
            kwargs.setdefault("proxies", {"http": platform.proxy, "https": platform.proxy})
        return super().request(method, url, **kwargs)

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return where to follow an answer to, or None if neither request nor key may follow."""
        location = resp.headers.get("Location")
        return self.platform.redirect(resp.request.method or "", resp.url, resp.status_code, location)

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Give the key to a redirected request as to any other, and no entry of a netrc file."""
        self._authorize(prepared_request)

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        # An auth callable, and no header of the session, so that neither the key nor a netrc entry goes to other hosts.
        if self.platform.trusts(request.url or "") and "Authorization" not in request.headers:
            request.headers[self.platform.key_header] = self.platform.api_key
        return request


def send(
    session: PlatformSession, request: Request, timeout: float | None = None, silence: float = math.inf
) -> Answer | NoAnswer:
    """Send a request once.

    :param session: carries the key.
    :param request: what to send.
    :param timeout: seconds for the answer; default: as the Connection says.
    :param silence: seconds that the platform may be silent meanwhile; default: all of them.
    :raises AixplainUntrustedUrl: if the request would take the key or a file to a foreign origin.
    """
    timeout = session.platform.timeout if timeout is None else timeout
    exchange = _Exchange(session, request, min(silence, timeout), time.monotonic() + timeout)
    try:
        with exchange.begin() as response:
            return _read(session, response)
    except _TROUBLE as error:
        return exchange.no_answer(error)


def open_answer(
    session: PlatformSession, request: Request, silence: float, timeout: float | None = None
) -> OpenAnswer | Answer | NoAnswer:
    """Send a request once, and leave a successful answer open, to be read as it arrives.

    :param session: carries the key.
    :param request: what to send.
    :param silence: seconds that the platform may be silent, at the beginning and in between.
    :param timeout: seconds for the whole exchange; default: any.
    :raises AixplainUntrustedUrl: if the request would take the key to a foreign origin.
    """
    exchange = _Exchange(session, request, silence, time.monotonic() + (math.inf if timeout is None else timeout))
    try:
        response = exchange.begin()
        if not 200 <= response.status_code <= 299:
            with response:
                return _read(session, response)
    except _TROUBLE as error:
        return exchange.no_answer(error)
    return OpenAnswer(
        status_code=response.status_code,
        content_type=response.headers.get("Content-Type", "").lower(),
        body=_arriving(exchange, response),
        close=response.close,
        redact=session.platform.redact,
    )


_TROUBLE = (requests.RequestException, HTTPError, OSError)


@dataclass
class _Exchange:
    """A request on its way.

    :param session: carries the key.
    :param request: what to send.
    :param silence: seconds that the platform may be silent.
    :param deadline: when the answer must have been read to its end, by the monotonic clock.
    :param sent: whether anything of the request has left; the connection says so.
    """

    session: PlatformSession
    request: Request
    silence: float
    deadline: float
    sent: bool = False

    def begin(self) -> requests.Response:
        """Send the request, and return its answer once the headers have come. Redirects are followed in its time."""
        platform, request = self.session.platform, self.request
        token = _current.set(self)
        try:
            for _ in range(1 + MAX_REDIRECTS):
                response = self.session.request(
                    request.method,
                    request.url,
                    data=request.body,
                    headers=platform.headers(request),
                    auth=_as_it_is,
                    timeout=min(self.silence, self.left),
                    allow_redirects=False,
                    stream=True,
                )
                location = response.headers.get("Location")
                target = platform.redirect(request.method, request.url, response.status_code, location)
                if target is None:
                    break
                response.close()
                request = replace(request, url=target)
        finally:
            _current.reset(token)
        return response

    @property
    def left(self) -> float:
        """The seconds until the deadline."""
        return max(self.deadline - time.monotonic(), SHORTEST_REQUEST)

    @property
    def secret(self) -> str:
        """The query of a URL that is a permission by itself."""
        return urlsplit(self.request.url).query if self.request.credential is Credential.NONE else ""

    def told(self, error: Exception) -> str:
        """Return an error as text, without secrets."""
        text = self.session.platform.hide(f"{type(error).__name__}: {error}")
        return printable(text.replace(self.secret, "***") if self.secret else text)

    def no_answer(self, error: Exception) -> NoAnswer:
        """Return what came of the request if no answer did."""
        return NoAnswer(self.told(error), self.sent)


def _as_it_is(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
    """Add no credential: the headers have it. What the session adds is for requests of a user's own."""
    return prepared


_current: ContextVar[_Exchange | None] = ContextVar("_current", default=None)


class _SecretFilter(logging.Filter):
    """Keeps a URL that is a permission by itself out of urllib3's log."""

    def filter(self, record: logging.LogRecord) -> bool:
        if (exchange := _current.get()) and exchange.secret:
            record.msg, record.args = record.getMessage().replace(exchange.secret, "***"), ()
        return True


logging.getLogger("urllib3.connectionpool").addFilter(_SecretFilter())


class _Until(io.RawIOBase):
    """Reads a socket until a deadline, however slowly the bytes drip; a socket's own timeout is for each of them."""

    def __init__(self, raw: Any, connection: socket.socket, exchange: _Exchange) -> None:
        self._raw = raw
        self._connection = connection
        self._exchange = exchange

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if time.monotonic() > self._exchange.deadline:
            raise TimeoutError("the time for it was up before it was over")
        silence = self._connection.gettimeout()
        self._connection.settimeout(min(silence or math.inf, self._exchange.left))
        try:
            read: int | None = self._raw.readinto(buffer)
            return read
        finally:
            self._connection.settimeout(silence)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """An answer whose headers and body are read until the deadline of its request."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        if exchange := _current.get():
            self.fp = io.BufferedReader(_Until(self.fp.detach(), sock, exchange))


class _Connection(HTTPConnection):
    """A connection that says when something of a request leaves. What a proxy is asked for is nothing of it."""

    response_class = _Response

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        if (exchange := _current.get()) and not (isinstance(data, bytes) and data.startswith(b"CONNECT ")):
            exchange.sent = True
        super().send(data)


class _TlsConnection(_Connection, HTTPSConnection):
    """The same over TLS."""


class _Adapter(HTTPAdapter):
    """Makes connections that keep the time of a request, and tell whether it was sent."""

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        own: dict[Any, Any] = {HTTPConnection: _Connection, HTTPSConnection: _TlsConnection}
        pool.ConnectionCls = own.get(pool.ConnectionCls, pool.ConnectionCls)
        if (exchange := _current.get()) and not issubclass(pool.ConnectionCls, _Connection):
            exchange.sent = True  # that of a SOCKS proxy does not tell
        return pool


def _read(session: PlatformSession, response: requests.Response) -> Answer:
    """Return an answer with its body; with the beginning of it, if it is larger than it may be."""
    most = session.platform.max_answer
    body = bytearray()
    for piece in _pieces(response):
        body += piece
        if len(body) > most:
            break
    headers = {name.lower(): value for name, value in response.headers.items()}
    is_cut = len(body) > most
    return Answer(response.status_code, session.platform.redact(bytes(body[:most])), headers, is_cut)


def _arriving(exchange: _Exchange, response: requests.Response) -> Iterator[bytes]:
    most = exchange.session.platform.max_answer
    arrived = 0
    try:
        for piece in _pieces(response):
            arrived += len(piece)
            if arrived > most:
                raise ConnectionError(f"it is larger than the {most} bytes that are read at most")
            yield piece
    except _TROUBLE as error:
        if time.monotonic() > exchange.deadline:
            raise TimeoutError("the time for it was up before it was over") from None
        raise ConnectionError(exchange.told(error)) from None
    finally:
        response.close()


def _pieces(response: requests.Response) -> Iterator[bytes]:
    # read1 gives what is there; requests' own iterators wait until a piece is full.
    while piece := response.raw.read1(PIECE, decode_content=True):
        yield piece
