"""An account: its endpoints and credential, and the origins that may receive the credential."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from html.entities import html5
from typing import Any
from urllib.parse import urljoin, urlsplit

from airflow_provider_aixplain.exceptions import AixplainConfigurationError, AixplainUntrustedUrl
from airflow_provider_aixplain.protocol import wire
from airflow_provider_aixplain.protocol.assets import Asset
from airflow_provider_aixplain.protocol.upload import MIB, is_store
from airflow_provider_aixplain.protocol.values import to_printable

PUBLIC_BACKEND_URL = "https://platform-api.aixplain.com"
PUBLIC_WEB_URL = "https://platform.aixplain.com"
PUBLIC_MODELS_RUN_URL = "https://models.aixplain.com/api/v1/execute"
KEY_HEADERS = {"team": "x-api-key", "personal": "x-aixplain-key"}
REQUEST_TIMEOUT = 60.0
MIN_SECRET_LENGTH = 16
REDIRECTS = (301, 302, 303, 307, 308)
MAX_REDIRECTS = 5
MAX_TIMEOUT = 86400.0
"""The longest time limit of a request, in seconds: the request of a direct run may wait for the run's result."""

MIN_TIMEOUT = 0.1
"""The shortest time limit of a request, in seconds: HTTP clients read 0 as no limit."""

MAX_ANSWER_MIB = 256
DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Platform:
    """An account on a platform: endpoints, credential and network settings.

    :param api_key: the key. It is sent to trusted origins only, and never shown.
    :param key_header: the header that carries the key.
    :param backend_url: the base URL of the backend.
    :param models_run_url: the execution URL, without a model's id.
    :param web_url: the site with the pages of models and agents.
    :param trusted_origins: further origins that poll URLs may have.
    :param verify: whether to verify TLS certificates, or the path of a CA file.
    :param timeout: the time limit of a request, in seconds.
    :param max_answer: the size limit of an answer, in bytes.
    :param proxy: the URL of a proxy; default: that of the environment.
    """

    api_key: str = field(repr=False)
    key_header: str = KEY_HEADERS["team"]
    backend_url: str = PUBLIC_BACKEND_URL
    models_run_url: str = PUBLIC_MODELS_RUN_URL
    web_url: str = PUBLIC_WEB_URL
    trusted_origins: frozenset[str] = frozenset()
    verify: bool | str = True
    timeout: float = REQUEST_TIMEOUT
    max_answer: int = MAX_ANSWER_MIB * MIB
    proxy: str | None = field(default=None, repr=False)

    def page_url(self, asset: Asset) -> str:
        """Return the URL of the page of a model or an agent."""
        return f"{self.web_url}/{asset.page_path}"

    def trusts(self, url: str) -> bool:
        """Return whether a URL may receive the key: its origin is an endpoint's, or in ``trusted_origins``."""
        try:
            return parse_origin(url) in self._origins
        except ValueError:
            return False

    @cached_property
    def _origins(self) -> frozenset[str]:
        return frozenset({parse_origin(self.backend_url), parse_origin(self.models_run_url), *self.trusted_origins})

    def check_trusted(self, url: str) -> None:
        """Raise :class:`AixplainUntrustedUrl` if the URL may not receive the key."""
        if not self.trusts(url):
            raise self._untrusted(url, "receive the key")

    def trusts_with_files(self, url: str) -> bool:
        """Return whether files may be sent to a URL, and read from it.

        They may if the URL is in one of the platform's stores, or may receive the key. An agent's answer contains the
        URLs of downloads. Text from outside can have chosen them, and a URL can name a host in the worker's network.
        """
        try:
            scheme, _, host = parse_origin(url).rpartition(":")[0].partition("://")
        except ValueError:
            return False
        return self.trusts(url) or (scheme == "https" and is_store(host))

    def redact(self, text: str) -> str:
        """Return a text without the key: an answer may repeat it, and logs and XComs must not hold it."""
        if any(mark in text for mark in "\\%&"):  # otherwise the key can only occur literally
            return self._key_pattern.sub("***", text)
        return text.replace(self.api_key, "***") if self._is_secret else text

    def redact_all(self, text: str) -> str:
        """Return a text without the key and without the proxy's credentials."""
        return hide_userinfo(self.redact(text))

    @property
    def _is_secret(self) -> bool:
        """Whether the key is long enough to be one: a placeholder can occur in any text."""
        return len(self.api_key) >= MIN_SECRET_LENGTH

    @cached_property
    def _key_pattern(self) -> re.Pattern[str]:
        """Matches the key in the spellings of JSON, Python, URLs and HTML, also mixed and nested."""
        return re.compile("".join(map(_spellings, self.api_key)) if self._is_secret else "(?!)")

    def redirect(
        self, method: str, url: str, status_code: int, location: str | None, *, is_presigned: bool = False
    ) -> str | None:
        """Return the URL to redirect to, or None: only GET and HEAD are redirected, and only to trusted origins.

        :param is_presigned: whether the request carries no key, and transfers a file.
        """
        if method not in ("GET", "HEAD") or status_code not in REDIRECTS or not location:
            return None
        try:
            target = urljoin(url, location)
        except ValueError:
            return None
        return target if (self.trusts_with_files if is_presigned else self.trusts)(target) else None

    def headers(self, request: wire.Request) -> dict[str, str]:
        """Return the headers of a request, with the credential.

        :raises AixplainUntrustedUrl: if the request would send the key or a file to an untrusted origin, or read a file
            from one.
        :raises AixplainConfigurationError: if there is no key.
        """
        headers = {"Content-Type": request.content_type} if request.content_type else {}
        if request.credential is wire.Credential.NONE:
            if not self.trusts_with_files(request.url):
                raise self._untrusted(_origin_or_placeholder(request.url), "receive or send files")
            return headers
        self.check_trusted(request.url)
        if not self.api_key:
            raise AixplainConfigurationError("No API key: pass it as api_key, or set TEAM_API_KEY or AIXPLAIN_API_KEY.")
        if request.credential is wire.Credential.AUTHORIZATION:
            return {"Authorization": f"Token {self.api_key}", **headers}
        return {self.key_header: self.api_key, **headers}

    def _untrusted(self, url: str, what: str) -> AixplainUntrustedUrl:
        return AixplainUntrustedUrl(
            f"An untrusted origin may not {what}. If it belongs to your platform, add it to trusted_origins in the"
            f" extra of the Connection: {to_printable(url)!r}"
        )


def hide_userinfo(text: str) -> str:
    """Return a text without the user names and passwords of its URLs.

    Everything up to the last ``@`` of a URL is hidden: passwords are often not percent-encoded.
    """
    # The time must be linear, as servers write some of these texts: a pattern for whole URLs could block a triggerer.
    return re.sub(r"\S+", _without_userinfo, text)


def _without_userinfo(match: re.Match[str]) -> str:
    text = match[0]
    start, end = text.find("//") + 2, text.rfind("@")
    return f"{text[:start]}***{text[end:]}" if 2 <= start < end else text


def validate_proxy(url: str) -> str:
    """Return the URL of an HTTP proxy.

    :raises ValueError: if it is not one that triggers can use; the message names the remedy, and no password.
    """
    parts = urlsplit(url) if isinstance(url, str) and url.isprintable() else urlsplit("")
    try:
        is_url = parts.scheme in DEFAULT_PORTS and bool(parts.hostname) and parts.port != 0 and "@" not in parts.path
    except ValueError:
        is_url = False
    if not is_url:
        raise ValueError(
            "is not the URL of an HTTP proxy; write it like http://proxy.example.com:3128, with special characters of a"
            " password percent-encoded"
        )
    return url


def _origin_or_placeholder(url: str) -> str:
    """Return the origin of a presigned URL, for an error: the rest of the URL is a secret."""
    try:
        return parse_origin(url)
    except ValueError:
        return "an invalid URL"


@lru_cache
def _spellings(character: str) -> str:
    """Return a pattern for a character as JSON, Python, URLs and HTML may write it, up to three times nested."""
    code = f"{ord(character):02x}"
    names = "".join(f"|{name.rstrip(';')};?" for name, value in html5.items() if value == character)
    return (
        rf"(?:\\{{0,7}}{re.escape(character)}|\\{{1,7}}(?:u00|x)(?i:{code})|%(?:25){{0,3}}(?i:{code})"
        rf"|&(?:amp;){{0,3}}(?:\#0{{0,6}}{ord(character)};?|\#[xX]0{{0,6}}(?i:{code});?{names}))"
    )


def parse_origin(url: str) -> str:
    """Return ``scheme://host:port`` of a URL, in lower case and always with the port.

    :raises ValueError: if it is not an absolute http(s) URL, or if URL parsers disagree about it.
    """
    if not isinstance(url, str) or not url.isprintable() or any(c in url for c in " \\"):
        raise ValueError("it is not a URL")
    return _origin(url)


@lru_cache(8192)  # for the poll URLs of all runs that a triggerer waits for
def _origin(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        raise ValueError("it is not a URL that starts with https:// or http:// and has a host")
    if "@" in parts.netloc:
        raise ValueError("it contains a user name or password")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if not host.isascii():
        raise ValueError("its host is not in ASCII (xn--...)")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("its port is not a number from 0 to 65535") from None
    if parts.netloc.lower() not in (host, f"{host}:{port}"):
        raise ValueError("its host and port are ambiguous")
    return f"{parts.scheme}://{host}:{port or DEFAULT_PORTS[parts.scheme]}"


def validate_endpoint(url: Any, *, allow_insecure: bool = False) -> str:
    """Return the URL of an endpoint, without trailing slashes.

    :raises ValueError: if it is not one; the message names the remedy.
    """
    try:
        parse_origin(url)
    except ValueError as error:
        raise ValueError(f"{error}; write it like https://platform.example.com") from None
    if "?" in url or "#" in url:
        raise ValueError("it has a query or a fragment; give the URL without it")
    if urlsplit(url).scheme == "http" and not is_loopback(url) and not allow_insecure:
        raise ValueError(
            "it would send the key unencrypted; use https, or set allow_insecure to true in a Connection's extra"
        )
    return f"{url}".rstrip("/")


def validate_key(key: Any) -> str:
    """Return a key without surrounding whitespace; empty if there is none.

    :raises ValueError: if it cannot be a key; the message does not contain it.
    """
    if not isinstance(key, str):
        raise ValueError(f"is a {type(key).__name__}; give the key as a string")
    stripped = key.strip()
    if not stripped.isascii() or not stripped.isprintable():
        raise ValueError("contains characters that no API key has; copy the key again")
    return stripped


def is_loopback(url: str) -> bool:
    """Return whether a URL names this machine: ``localhost`` or a loopback address."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
