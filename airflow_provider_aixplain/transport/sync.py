"""Carries requests over ``requests``, for workers and scripts."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, NewConnectionError

from airflow_provider_aixplain import __version__
from airflow_provider_aixplain.protocol.values import printable
from airflow_provider_aixplain.protocol.wire import Answer, Credential, NoAnswer, OpenAnswer, Request
from airflow_provider_aixplain.transport.platform import MAX_REDIRECTS, Platform

PIECE = 64 * 1024
"""Bytes of a stream that are read at once, if so many have arrived."""

_NEVER_SENT = (
    NewConnectionError,
    requests.ConnectTimeout,
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
        self.verify = platform.verify
        self.auth = self._authorize
        self.max_redirects = MAX_REDIRECTS
        for scheme in ("https://", "http://"):
            self.mount(scheme, HTTPAdapter(max_retries=0))

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


def send(session: PlatformSession, request: Request, timeout: float | None = None) -> Answer | NoAnswer:
    """Send a request once.

    :param session: carries the key.
    :param request: what to send.
    :param timeout: seconds to wait for the platform; default: as the Connection says.
    :raises AixplainUntrustedUrl: if the request would take the key or a file to a foreign origin.
    """
    try:
        with _exchange(session, request, timeout) as response:
            body = response.content
    except _TROUBLE as error:
        return _no_answer(session, request, error)
    return _answer(session, response, body)


def open_answer(
    session: PlatformSession, request: Request, timeout: float | None = None
) -> OpenAnswer | Answer | NoAnswer:
    """Send a request once, and leave a successful answer open, to be read as it arrives.

    :param session: carries the key.
    :param request: what to send.
    :param timeout: seconds that the platform may be silent, at the beginning and in between; default: as the Connection
        says.
    :raises AixplainUntrustedUrl: if the request would take the key to a foreign origin.
    """
    try:
        response = _exchange(session, request, timeout)
        if not response.ok:
            with response:
                return _answer(session, response, response.content)
    except _TROUBLE as error:
        return _no_answer(session, request, error)
    content_type = response.headers.get("Content-Type", "").lower()
    return OpenAnswer(content_type, _arriving(session, request, response), response.close, session.platform.redact)


_TROUBLE = (requests.RequestException, HTTPError, OSError)


def _exchange(session: PlatformSession, request: Request, timeout: float | None) -> requests.Response:
    platform = session.platform
    return session.request(
        request.method,
        request.url,
        data=request.body,
        headers=platform.headers(request),
        auth=lambda prepared: prepared,  # the headers say it all; the session's is for a user's own requests
        timeout=timeout or platform.timeout,
        allow_redirects=request.method == "GET",
        proxies={"http": platform.proxy, "https": platform.proxy} if platform.proxy else None,
        verify=platform.verify,  # said here too: a CA bundle of the environment would override the session's False
        stream=True,
    )


def _answer(session: PlatformSession, response: requests.Response, body: bytes) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, session.platform.redact(body), headers)


def _no_answer(session: PlatformSession, request: Request, error: Exception) -> NoAnswer:
    return NoAnswer(_told(session, request, error), sent=not _never_sent(error))


def _told(session: PlatformSession, request: Request, error: Exception) -> str:
    """Return an error as text, without secrets: the query of a URL that needs no key is one."""
    text = session.platform.hide(f"{type(error).__name__}: {error}")
    query = urlsplit(request.url).query
    return printable(text.replace(query, "***") if query and request.credential is Credential.NONE else text)


def _arriving(session: PlatformSession, request: Request, response: requests.Response) -> Iterator[bytes]:
    try:
        # read1 gives what is there; requests' own iterators wait until a piece is full.
        while piece := response.raw.read1(PIECE, decode_content=True):
            yield piece
    except _TROUBLE as error:
        raise ConnectionError(_told(session, request, error)) from None
    finally:
        response.close()


def _never_sent(error: BaseException | None) -> bool:
    """Whether a request failed before anything of it left: no name, no connection, no TLS, no valid URL."""
    while error is not None:
        if isinstance(error, _NEVER_SENT) or (isinstance(error, ssl.SSLError) and error.reason in _HANDSHAKE):
            return True
        error = error.__context__
    return False
