"""Where the platform lives, which credential it takes, and which origins may receive it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from html.entities import html5
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from airflow_provider_aixplain.exceptions import AixplainConfigurationError, AixplainUntrustedUrl
from airflow_provider_aixplain.protocol import wire
from airflow_provider_aixplain.protocol.upload import STORE_DOMAINS
from airflow_provider_aixplain.protocol.values import to_printable

PUBLIC_BACKEND_URL = "https://platform-api.aixplain.com"
PUBLIC_WEB_URL = "https://platform.aixplain.com"
PUBLIC_MODELS_RUN_URL = "https://models.aixplain.com/api/v1/execute"
KEY_HEADERS = {"team": "x-api-key", "personal": "x-aixplain-key"}
REQUEST_TIMEOUT = 60.0
SHORTEST_SECRET = 16
REDIRECTS = (301, 302, 303, 307, 308)
MAX_REDIRECTS = 5
MAX_TIMEOUT = 86400.0
"""Seconds that any request may take, such as a run that is answered with its result; sockets count to some 49 days."""

MIN_TIMEOUT = 0.1
"""Seconds that any request gets, however late it is: for HTTP clients none at all is no limit."""

MIB = 1024 * 1024
MAX_ANSWER_MIB = 256
DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Platform:
    """One account on one platform: endpoints, credential, and how to reach them.

    :param api_key: the key. It is sent to trusted origins only and shown nowhere.
    :param key_header: the header that carries the key.
    :param backend_url: base URL of the backend.
    :param models_run_url: the execution URL, without a model's id.
    :param web_url: the site where people find the models.
    :param trusted_origins: further origins that poll URLs may name.
    :param verify: whether to verify TLS certificates, or the path of a CA file.
    :param timeout: the longest time one request may take, in seconds.
    :param max_answer: the largest answer that is read, in bytes.
    :param proxy: URL of a proxy; without it the environment decides.
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

    def model_page(self, model_id: str) -> str:
        """Return the URL of the page that tells people of a model."""
        return f"{self.web_url}/discover/model/{quote(model_id, safe='')}"

    def limit(self, budget: float | None) -> float:
        """Return the seconds that a request may take.

        :param budget: the seconds that are left for it, if that is known.
        """
        return self.timeout if budget is None else min(budget, self.timeout)

    def trusts(self, url: str) -> bool:
        """Whether the key may go to this URL: its origin is that of an endpoint or in the allow-list."""
        try:
            return parse_origin(url) in self._origins
        except ValueError:
            return False

    @cached_property
    def _origins(self) -> frozenset[str]:
        return frozenset({parse_origin(self.backend_url), parse_origin(self.models_run_url), *self.trusted_origins})

    def check(self, url: str) -> None:
        """:raises AixplainUntrustedUrl: if the key may not go to this URL."""
        if not self.trusts(url):
            raise self._untrusted(url, "receive the key")

    def accepts_uploads(self, url: str) -> bool:
        """Whether a file may be put there: on one of the platform's stores, or an origin that may have the key too."""
        try:
            scheme, _, host = parse_origin(url).rpartition(":")[0].partition("://")
        except ValueError:
            return False
        return self.trusts(url) or (
            scheme == "https" and f".{host}".endswith(tuple(f".{store}" for store in STORE_DOMAINS))
        )

    def redact(self, text: str) -> str:
        """Return a text without the key: an answer that repeats the key must not put it into logs and XComs."""
        if any(mark in text for mark in "\\%&"):
            return self._key_pattern.sub("***", text)
        return text.replace(self.api_key, "***") if self._is_secret else text

    def redact_text(self, text: str) -> str:
        """Return a text about this platform without the key and the proxy's credentials."""
        return hide_userinfo(self.redact(text))

    @property
    def _is_secret(self) -> bool:
        """Whether the key is a real one: a short one is a placeholder, which can occur in any text."""
        return len(self.api_key) >= SHORTEST_SECRET

    @cached_property
    def _key_pattern(self) -> re.Pattern[str]:
        """Matches the key in the spellings of JSON, Python, URLs and HTML, also mixed and nested."""
        return re.compile("".join(map(_spellings, self.api_key)) if self._is_secret else "(?!)")

    def redirect(self, method: str, url: str, status_code: int, location: str | None) -> str | None:
        """Return where to follow an answer to, or None: only a GET is repeated, and only for a trusted origin."""
        if method not in ("GET", "HEAD") or status_code not in REDIRECTS or not location:
            return None
        try:
            target = urljoin(url, location)
        except ValueError:
            return None
        return target if self.trusts(target) else None

    def headers(self, request: wire.Request) -> dict[str, str]:
        """Return the headers of a request, the credential among them.

        :raises AixplainUntrustedUrl: if the request would take the key or a file to a foreign origin.
        :raises AixplainConfigurationError: if there is no key.
        """
        headers = {"Content-Type": request.content_type}
        if request.credential is wire.Credential.NONE:
            if not self.accepts_uploads(request.url):
                raise self._untrusted(_shown_origin(request.url), "receive files")
            return headers
        self.check(request.url)
        if not self.api_key:
            raise AixplainConfigurationError("No API key: pass it as api_key, or set TEAM_API_KEY or AIXPLAIN_API_KEY.")
        if request.credential is wire.Credential.AUTHORIZATION:
            return {"Authorization": f"Token {self.api_key}", **headers}
        return {self.key_header: self.api_key, **headers}

    def _untrusted(self, url: str, what: str) -> AixplainUntrustedUrl:
        return AixplainUntrustedUrl(
            f"{to_printable(url)!r} is not on an origin that may {what}. If it belongs to your platform, add its"
            " origin to trusted_origins in the extra of the Connection."
        )


def hide_userinfo(text: str) -> str:
    """Return a text without the user names and passwords of the URLs in it.

    All up to the last ``@`` of a URL is hidden: passwords are often not percent-encoded as they should be.
    """
    # In linear time: a server writes some of these texts, and a pattern of the whole would stop a triggerer.
    return re.sub(r"\S+", _without_userinfo, text)


def _without_userinfo(word: re.Match[str]) -> str:
    text = word[0]
    start, end = text.find("//") + 2, text.rfind("@")
    return f"{text[:start]}***{text[end:]}" if 2 <= start < end else text


def validate_proxy(url: str) -> str:
    """Return the URL of an HTTP proxy.

    :raises ValueError: if it is none that triggers can use; the message names the remedy, and no password.
    """
    parts = urlsplit(url) if isinstance(url, str) and url.isprintable() else urlsplit("")
    try:
        is_url = parts.scheme in DEFAULT_PORTS and bool(parts.hostname) and parts.port != 0 and "@" not in parts.path
    except ValueError:
        is_url = False
    if not is_url:
        raise ValueError(
            "is no URL of an HTTP proxy; write it like http://proxy.example.com:3128, with special characters of a"
            " password percent-encoded"
        )
    return url


def _shown_origin(url: str) -> str:
    """Return the origin of a URL that is a permission by itself, for people."""
    try:
        return parse_origin(url)
    except ValueError:
        return "a URL that cannot be read"


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
    """Return ``scheme://host:port`` of a URL, in lower case and with the port always named.

    :raises ValueError: if it is no absolute http(s) URL, or is written in a way that parsers read differently.
    """
    if not isinstance(url, str) or not url.isprintable() or any(c in url for c in " \\"):
        raise ValueError("it is not a URL")
    return _origin(url)


@lru_cache(8192)  # the poll URLs of all runs that a triggerer may wait for
def _origin(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        raise ValueError("it is not a URL that starts with https:// or http:// and names a host")
    if "@" in parts.netloc:
        raise ValueError("it holds a user name or password")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if not host.isascii():
        raise ValueError("its host is not written in ASCII (xn--...)")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("its port is no number from 0 to 65535") from None
    if parts.netloc.lower() not in (host, f"{host}:{port}"):
        raise ValueError("its host and port are written in a way that not everybody reads alike")
    return f"{parts.scheme}://{host}:{port or DEFAULT_PORTS[parts.scheme]}"


def validate_endpoint(url: Any, *, allow_insecure: bool = False) -> str:
    """Return an endpoint's URL, without a slash at its end.

    :raises ValueError: if it can be none; the message names the remedy.
    """
    try:
        parse_origin(url)
    except ValueError as error:
        raise ValueError(f"{error}; write it like https://platform.example.com") from None
    if "?" in url or "#" in url:
        raise ValueError("with a query or fragment it is no endpoint; give the URL without it")
    if urlsplit(url).scheme == "http" and not is_loopback(url) and not allow_insecure:
        raise ValueError(
            "it would send the key unencrypted; use https, or set allow_insecure to true in a Connection's extra"
        )
    return f"{url}".rstrip("/")


def validate_key(key: Any) -> str:
    """Return a key without the white space that copying and files add to its ends; empty if there is none.

    :raises ValueError: if it can be none; the message does not hold it.
    """
    if not isinstance(key, str):
        raise ValueError(f"is a {type(key).__name__}; give the key as text")
    stripped = key.strip()
    if not stripped.isascii() or not stripped.isprintable():
        raise ValueError("holds characters that no API key has; copy the key again")
    return stripped


def is_loopback(url: str) -> bool:
    """Whether a URL names this machine: ``localhost`` or a loopback address."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
