"""Sends requests with ``requests``, for workers and scripts."""

from __future__ import annotations

import io
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import requests
from urllib3.exceptions import HTTPError

from airflow_provider_aixplain import __version__
from airflow_provider_aixplain.client.account import MAX_REDIRECTS, MIN_TIMEOUT, Platform, parse_origin
from airflow_provider_aixplain.protocol.values import to_printable
from airflow_provider_aixplain.protocol.wire import Answer, AnswerTooLarge, Credential, NoResponse, OpenAnswer, Request
from airflow_provider_aixplain.transport.decoding import ACCEPTED_CODINGS, iter_decompressed
from airflow_provider_aixplain.transport.environment import find_route

log = logging.getLogger(__name__)

_NETWORK_ERRORS = (requests.RequestException, HTTPError, OSError)


class PlatformSession(requests.Session):
    """A session that sends the key to trusted origins only, follows redirects to them only, and does not retry.

    :param platform: the account.
    """

    def __init__(self, platform: Platform) -> None:
        super().__init__()
        self.platform = platform
        self.trust_env = False  # find_route reads the environment; requests would add the credentials of a netrc file
        self.headers["User-Agent"] = f"airflow-provider-aixplain/{__version__} requests/{requests.__version__}"
        self.headers["Accept-Encoding"] = ACCEPTED_CODINGS
        self.auth = self._authorize
        self.max_redirects = MAX_REDIRECTS

    def request(self, method: str | bytes, url: str | bytes, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        """Send a request with the account's time limit and route as defaults.

        :raises AixplainConfigurationError: if triggers do not support the proxy, or the CA certificates do not exist.
        """
        route = find_route(self.platform, url if isinstance(url, str) else url.decode())
        kwargs = {"timeout": self.platform.timeout, "verify": route.verify, "proxies": route.proxies, **kwargs}
        return super().request(method, url, **kwargs)

    def close(self) -> None:
        """Close all idle connections at once, which ``urllib3`` leaves to the garbage collector."""
        adapter: Any
        for adapter in self.adapters.values():
            for manager in (adapter.poolmanager, *adapter.proxy_manager.values()):
                for key in manager.pools.keys():  # noqa: SIM118 # it has no iterator
                    manager.pools[key].close()
        super().close()

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return the URL to redirect to, or None if the request and the key must not be sent there."""
        location = resp.headers.get("Location")
        return self.platform.redirect(resp.request.method or "", resp.url, resp.status_code, location)

    def resolve_redirects(self, *args: Any, yield_requests: bool = False, **kwargs: Any) -> Iterator[Any]:
        """Return the answers of redirects that are followed.

        ``Response.next`` is always None: for it, ``requests`` calls this with ``yield_requests`` even if redirects are
        not followed, and would read the whole body of the redirect, without a limit.
        """
        return iter(()) if yield_requests else super().resolve_redirects(*args, **kwargs)

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Add the key to a redirected request."""
        self._authorize(prepared_request)

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        # A session header would be sent to every host.
        if self.platform.trusts(request.url or "") and "Authorization" not in request.headers:
            request.headers[self.platform.key_header] = self.platform.api_key
        return request


def send(
    session: PlatformSession, request: Request, timeout: float | None = None, silence: float = math.inf
) -> Answer | NoResponse:
    """Send a request once.

    :param session: the account's session.
    :param request: what to send.
    :param timeout: seconds for the whole exchange; default: the Connection's.
    :param silence: the longest pause between two bytes from the platform, in seconds; default: ``timeout``.
    :raises AixplainUntrustedUrl: if the request would send the key or a file to an untrusted origin.
    :raises AixplainConfigurationError: if triggers do not support the proxy, or the CA certificates do not exist.
    """
    timeout = session.platform.timeout if timeout is None else timeout
    exchange = _Exchange(session, request, min(silence, timeout), time.monotonic() + timeout)
    try:
        with exchange.begin() as response:
            return exchange.read(response)
    except _NETWORK_ERRORS as error:
        return exchange.no_response(error)


def open_answer(
    session: PlatformSession, request: Request, silence: float, timeout: float | None = None
) -> OpenAnswer | Answer | NoResponse:
    """Send a request once, and return a successful answer before its body has arrived.

    :param session: the account's session.
    :param request: what to send.
    :param silence: the longest pause between two bytes from the platform, in seconds.
    :param timeout: seconds for the whole exchange; default: no limit.
    :raises AixplainUntrustedUrl: if the request would send the key to an untrusted origin, or read a file from one.
    """
    exchange = _Exchange(session, request, silence, time.monotonic() + (math.inf if timeout is None else timeout))
    try:
        response = exchange.begin()
        if not 200 <= response.status_code <= 299:
            with response:
                return exchange.read(response)
    except _NETWORK_ERRORS as error:
        return exchange.no_response(error)
    return OpenAnswer(
        status_code=response.status_code,
        content_type=response.headers.get("Content-Type", "").lower(),
        body=exchange.iter_body(response),
        close=response.close,
        redact=session.platform.redact,
    )


class _Body(io.BytesIO):
    """A request body that records whether it was sent, and can be withheld.

    ``http.client`` reads it after it has connected and sent the headers.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._lock = threading.Lock()
        self._is_withheld = self._is_sent = False

    def read(self, size: int | None = -1) -> bytes:
        with self._lock:
            if self._is_withheld:
                raise TimeoutError("the request timed out before it was sent")
            self._is_sent = True
        return super().read(size)

    def withhold(self) -> bool:
        """Prevent the body from being sent from now on, and return whether it was sent."""
        with self._lock:
            self._is_withheld = True
            return self._is_sent


@dataclass
class _Exchange:
    """The exchange of one request and its answer.

    :param session: the account's session.
    :param request: what to send.
    :param silence: the longest pause between two bytes from the platform, in seconds.
    :param deadline: when the whole answer must have arrived, by the monotonic clock.
    """

    session: PlatformSession
    request: Request
    silence: float
    deadline: float

    def __post_init__(self) -> None:
        body = self.request.body
        self._body = _Body(body) if isinstance(body, bytes) else body

    def begin(self) -> requests.Response:
        """Send the request, follow redirects, and return the answer once its headers have arrived.

        It is sent in a thread, as ``requests`` limits the time of each read of a socket, and not of the exchange.
        """
        try:
            return _call_within(self._seconds_left, self._send)
        except BaseException:  # also that of an execution_timeout: the thread must not send later
            self._withhold()
            raise

    def read(self, response: requests.Response) -> Answer:
        """Return an answer with its body, cut at the size limit."""
        platform = self.session.platform
        body = bytearray()
        for piece in self._pieces(response):
            body += piece
            if len(body) > platform.max_answer:
                break
        headers = {name.lower(): value for name, value in response.headers.items()}
        is_cut = len(body) > platform.max_answer
        whole = bytes(body[: platform.max_answer])
        return Answer(response.status_code, whole, headers, is_cut, platform.redact, received_at=time.time())

    def iter_body(self, response: requests.Response) -> Iterator[bytes]:
        """Return the pieces of an answer as they arrive.

        :raises ConnectionError: if the answer is cut; :class:`AnswerTooLarge` if it exceeds the size limit.
        :raises TimeoutError: if it takes too long.
        """
        limit = self.session.platform.max_answer
        size = 0
        try:
            for piece in self._pieces(response):
                size += len(piece)
                if size > limit:
                    raise AnswerTooLarge(f"it exceeds the limit of {limit} bytes")
                yield piece
        except (TimeoutError, AnswerTooLarge):
            raise
        except _NETWORK_ERRORS as error:
            raise ConnectionError(self._reason(error)) from None
        finally:
            response.close()

    def no_response(self, error: Exception) -> NoResponse:
        """Return the outcome of a request without an answer."""
        return NoResponse(self._reason(error), self._withhold())

    def _withhold(self) -> bool:
        """Prevent the body from being sent, and return whether it was: without its body a submission has no effect."""
        return self._body.withhold() if isinstance(self._body, _Body) else True

    @property
    def _seconds_left(self) -> float:
        return max(self.deadline - time.monotonic(), MIN_TIMEOUT)

    def _send(self) -> requests.Response:
        platform, request = self.session.platform, self.request
        is_presigned = request.credential is Credential.NONE
        _is_presigned.set(is_presigned)
        for followed in range(1 + MAX_REDIRECTS):
            response = self.session.request(
                request.method,
                request.url,
                data=self._body,
                headers=platform.headers(request),
                auth=_no_auth,
                timeout=min(self.silence, self._seconds_left),
                allow_redirects=False,
                stream=True,
            )
            log.debug("%s %s: HTTP %d", request.method, parse_origin(request.url), response.status_code)
            location = response.headers.get("Location")
            status_code = response.status_code
            target = platform.redirect(request.method, request.url, status_code, location, is_presigned=is_presigned)
            if target is None or followed == MAX_REDIRECTS:
                break
            response.close()
            request = replace(request, url=target)
        return response

    def _pieces(self, response: requests.Response) -> Iterator[bytes]:
        timer = threading.Timer(min(self._seconds_left, threading.TIMEOUT_MAX), _interrupt, (response,))
        timer.daemon = True
        timer.start()
        try:
            for piece in iter_decompressed(response.raw):
                self._check_deadline()
                yield piece
            self._check_deadline()  # an interrupted answer may look complete
        except (HTTPError, OSError):
            self._check_deadline()
            raise
        finally:
            timer.cancel()

    def _check_deadline(self) -> None:
        if time.monotonic() >= self.deadline:
            raise TimeoutError("it timed out")

    def _reason(self, error: BaseException) -> str:
        """Return an error as text, without secrets: the URL of a transfer is presigned."""
        cause = _root_cause(error)
        text = f"{type(error).__name__}: {cause}"
        if self.request.credential is Credential.NONE:
            detail = getattr(cause, "strerror", None) or type(cause).__name__
            text = f"{type(error).__name__}: {detail}: {parse_origin(self.request.url)}"
        return to_printable(self.session.platform.redact_all(text))


def _no_auth(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
    """Add no credential: the headers have it. ``_authorize`` is for the requests of :meth:`AixplainHook.get_conn`."""
    return prepared


def _interrupt(response: requests.Response) -> None:
    """Interrupt another thread's read of an answer."""
    with suppress(Exception):  # the answer may be complete by now
        response.raw.shutdown()


def _root_cause(error: BaseException) -> BaseException:
    """Return the innermost cause of an error: the messages of ``requests`` and ``urllib3`` contain whole URLs."""
    inner = getattr(error, "reason", None) or next((arg for arg in error.args if isinstance(arg, BaseException)), None)
    return _root_cause(inner) if isinstance(inner, BaseException) else error


def _call_within(seconds: float, call: Callable[[], requests.Response]) -> requests.Response:
    """Return the response of a call, within a time limit; a response that arrives later is closed.

    :raises TimeoutError: after the time limit.
    """
    future: futures.Future[requests.Response] = futures.Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    def close(late: futures.Future[requests.Response]) -> None:
        if late.exception() is None:
            late.result().close()

    threading.Thread(target=run, name="aixplain-request", daemon=True).start()
    try:
        return future.result(min(seconds, threading.TIMEOUT_MAX))
    except BaseException as error:
        future.add_done_callback(close)
        if isinstance(error, futures.TimeoutError) and not future.done():
            raise TimeoutError(f"timed out after {seconds:g} s") from None
        raise


_is_presigned: ContextVar[bool] = ContextVar("_is_presigned", default=False)
"""Whether the URL of the request that this thread sends is presigned."""


class _PresignedUrlFilter(logging.Filter):
    """Keeps presigned URLs out of the log of urllib3."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not _is_presigned.get()


for _name in ("urllib3.connection", "urllib3.connectionpool", "urllib3.util.retry"):
    logging.getLogger(_name).addFilter(_PresignedUrlFilter())
