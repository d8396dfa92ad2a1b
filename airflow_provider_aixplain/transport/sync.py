"""Carries requests over ``requests``, for workers and scripts."""

from __future__ import annotations

import ssl

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import NewConnectionError

from airflow_provider_aixplain import __version__
from airflow_provider_aixplain.model.wire import Answer, NoAnswer, Request, printable
from airflow_provider_aixplain.transport.platform import MAX_REDIRECTS, Platform

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
        if self.platform.trusts(request.url or ""):
            request.headers[self.platform.key_header] = self.platform.api_key
        return request


def send(session: PlatformSession, request: Request, timeout: float | None = None) -> Answer | NoAnswer:
    """Send a request once.

    :param session: carries the key.
    :param request: what to send.
    :param timeout: seconds to wait for the platform; default: as the Connection says.
    :raises AixplainUntrustedUrl: if the request would take the key to a foreign origin.
    """
    platform = session.platform
    try:
        response = session.request(
            request.method,
            request.url,
            data=request.body,
            headers=platform.headers(request),
            timeout=min(platform.timeout, timeout) if timeout else platform.timeout,
            allow_redirects=request.method == "GET",
            proxies={"http": platform.proxy, "https": platform.proxy} if platform.proxy else None,
            verify=platform.verify,  # said here too: a CA bundle of the environment would override the session's False
        )
    except (requests.RequestException, OSError) as error:
        return NoAnswer(printable(platform.hide(f"{type(error).__name__}: {error}")), sent=not _never_sent(error))
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, platform.redact(response.content), headers)


def _never_sent(error: BaseException | None) -> bool:
    """Whether a request failed before anything of it left: no name, no connection, no TLS, no valid URL."""
    while error is not None:
        if isinstance(error, _NEVER_SENT) or (isinstance(error, ssl.SSLError) and error.reason in _HANDSHAKE):
            return True
        error = error.__context__
    return False
