"""Carries requests over ``requests``, for workers and scripts."""

from __future__ import annotations

import http.client
import io
import logging
import math
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, NewConnectionError

from airflow_provider_aixplain import __version__
from airflow_provider_aixplain.protocol.values import printable
from airflow_provider_aixplain.protocol.wire import Answer, Credential, NoAnswer, OpenAnswer, Request
from airflow_provider_aixplain.transport.platform import MAX_REDIRECTS, SHORTEST_REQUEST, Platform

PIECE = 64 * 1024
"""Bytes of a stream that are read at once, if so many have arrived."""

_NEVER_SENT = (
    NewConnectionError,
    requests.ConnectTimeout,
    requests.exceptions.InvalidHeader,
    requests.exceptions.InvalidURL,
)
# TLS can also fail in the middle of an exchange; these reasons are of its beginning.
_HANDSHAKE = ("CERTIFICATE_VERIFY_FAILED", "UNSUPPORTED_PROTOCOL", "WRONG_VERSION_NUMBER")


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

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a prepared request, or follow a redirect, in what is left of the time."""
        if (deadline := _deadline.get()) < math.inf:
            kwargs["timeout"] = min(kwargs.get("timeout") or math.inf, _left(deadline))
        return super().send(request, **kwargs)

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
    try:
        with _exchange(session, request, min(silence, timeout), time.monotonic() + timeout) as response:
            return _read(session, response)
    except _TROUBLE as error:
        return _no_answer(session, request, error)


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
    deadline = time.monotonic() + (math.inf if timeout is None else timeout)
    try:
        response = _exchange(session, request, silence, deadline)
        if not 200 <= response.status_code <= 299:
            with response:
                return _read(session, response)
    except _TROUBLE as error:
        return _no_answer(session, request, error)
    return OpenAnswer(
        status_code=response.status_code,
        content_type=response.headers.get("Content-Type", "").lower(),
        body=_arriving(session, request, response, deadline),
        close=response.close,
        redact=session.platform.redact,
    )


_TROUBLE = (requests.RequestException, HTTPError, OSError)


def _exchange(session: PlatformSession, request: Request, timeout: float, deadline: float) -> requests.Response:
    """Send a request, and return its answer once the headers have come.

    :param timeout: seconds of silence.
    :param deadline: when the answer must have been read to its end, by the monotonic clock.
    """
    secret = urlsplit(request.url).query if request.credential is Credential.NONE else ""
    with _set(_secret, secret), _set(_deadline, deadline):
        return session.request(
            request.method,
            request.url,
            data=request.body,
            headers=session.platform.headers(request),
            auth=lambda prepared: prepared,  # the headers say it all; the session's is for a user's own requests
            timeout=timeout,
            allow_redirects=request.method == "GET",
            stream=True,
        )


_secret: ContextVar[str] = ContextVar("_secret", default="")


class _SecretFilter(logging.Filter):
    """Keeps a URL that is a permission by itself out of urllib3's log."""

    def filter(self, record: logging.LogRecord) -> bool:
        if secret := _secret.get():
            record.msg, record.args = record.getMessage().replace(secret, "***"), ()
        return True


logging.getLogger("urllib3.connectionpool").addFilter(_SecretFilter())


_deadline: ContextVar[float] = ContextVar("_deadline", default=math.inf)


@contextmanager
def _set(variable: ContextVar[Any], value: Any) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), SHORTEST_REQUEST)


class _Until(io.RawIOBase):
    """Reads a socket until a deadline, however slowly the bytes drip; a socket's own timeout is for each of them."""

    def __init__(self, raw: Any, connection: socket.socket, deadline: float) -> None:
        self._raw = raw
        self._connection = connection
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if time.monotonic() > self._deadline:
            raise TimeoutError("the time for it was up before it was over")
        silence = self._connection.gettimeout()
        self._connection.settimeout(min(silence or math.inf, _left(self._deadline)))
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
        if (deadline := _deadline.get()) < math.inf:
            self.fp = io.BufferedReader(_Until(self.fp.detach(), sock, deadline))


class _Connection(HTTPConnection):
    response_class = _Response


class _TlsConnection(HTTPSConnection):
    response_class = _Response


class _Adapter(HTTPAdapter):
    """Makes connections whose answers end with the deadline of their request."""

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        own: dict[Any, Any] = {HTTPConnection: _Connection, HTTPSConnection: _TlsConnection}
        pool.ConnectionCls = own.get(pool.ConnectionCls, pool.ConnectionCls)
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


def _no_answer(session: PlatformSession, request: Request, error: Exception) -> NoAnswer:
    return NoAnswer(_told(session, request, error), sent=not _never_sent(error))


def _told(session: PlatformSession, request: Request, error: Exception) -> str:
    """Return an error as text, without secrets: the query of a URL that needs no key is one."""
    text = session.platform.hide(f"{type(error).__name__}: {error}")
    query = urlsplit(request.url).query
    return printable(text.replace(query, "***") if query and request.credential is Credential.NONE else text)


def _arriving(
    session: PlatformSession, request: Request, response: requests.Response, deadline: float
) -> Iterator[bytes]:
    arrived = 0
    try:
        for piece in _pieces(response):
            arrived += len(piece)
            if arrived > session.platform.max_answer:
                raise ConnectionError(
                    f"it is larger than the {session.platform.max_answer} bytes that are read at most"
                )
            yield piece
    except _TROUBLE as error:
        if time.monotonic() > deadline:
            raise TimeoutError("the time for it was up before it was over") from None
        raise ConnectionError(_told(session, request, error)) from None
    finally:
        response.close()


def _pieces(response: requests.Response) -> Iterator[bytes]:
    # read1 gives what is there; requests' own iterators wait until a piece is full.
    while piece := response.raw.read1(PIECE, decode_content=True):
        yield piece


def _never_sent(error: BaseException | None) -> bool:
    """Whether a request failed before anything of it left: no name, no connection, no TLS, no valid URL."""
    while error is not None:
        if isinstance(error, _NEVER_SENT) or (isinstance(error, ssl.SSLError) and error.reason in _HANDSHAKE):
            return True
        error = error.__context__
    return False
