"""Where the platform lives, which credential it takes, and which origins may receive it."""

from __future__ import annotations

import ipaddress
import math
import os
import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property, lru_cache
from html.entities import html5
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin, urlsplit

from airflow_provider_aixplain.exceptions import AixplainConfigurationError, AixplainUntrustedUrl
from airflow_provider_aixplain.protocol import wire
from airflow_provider_aixplain.protocol.upload import STORES
from airflow_provider_aixplain.protocol.values import parse, printable

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

PUBLIC_BACKEND_URL = "https://platform-api.aixplain.com"
PUBLIC_WEB_URL = "https://platform.aixplain.com"
PUBLIC_MODELS_RUN_URL = "https://models.aixplain.com/api/v1/execute"
KEY_HEADERS = {"team": "x-api-key", "personal": "x-aixplain-key"}
REQUEST_TIMEOUT = 60.0
SHORTEST_SECRET = 16
REDIRECTS = (301, 302, 303, 307, 308)
MAX_REDIRECTS = 5
LONGEST_REQUEST = 86400.0
"""Seconds that any request may take, such as a run that is answered with its result; sockets count to some 49 days."""

SHORTEST_REQUEST = 0.1
"""Seconds that any request gets, however late it is: for HTTP clients none at all is no limit."""

MIB = 1024 * 1024
MAX_ANSWER_MIB = 256
DEFAULT_PORTS = {"http": 80, "https": 443}
EXTRA_KEYS = (
    *("models_run_url", "key_type", "api_key_type", "trusted_origins", "timeout", "max_answer_mib"),
    *("proxy", "verify", "allow_insecure", "web_url"),
)
"""What the extra of a Connection may hold."""

_USERINFO = re.compile(r"(?<=//)\S+@")


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

    @classmethod
    def from_connection(cls, connection: Connection) -> Platform:
        """Read an Airflow Connection of type ``aixplain``.

        :raises AixplainConfigurationError: naming the Connection, the field and the remedy.
        """
        return _ConnectionReader(connection).read()

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
            return origin(url) in self._origins
        except ValueError:
            return False

    @cached_property
    def _origins(self) -> frozenset[str]:
        return frozenset({origin(self.backend_url), origin(self.models_run_url), *self.trusted_origins})

    def check(self, url: str) -> None:
        """:raises AixplainUntrustedUrl: if the key may not go to this URL."""
        if not self.trusts(url):
            raise self._untrusted(url, "receive the key")

    def stores(self, url: str) -> bool:
        """Whether a file may be put there: on one of the platform's stores, or an origin that may have the key too."""
        try:
            scheme, _, host = origin(url).rpartition(":")[0].partition("://")
        except ValueError:
            return False
        return self.trusts(url) or (scheme == "https" and f".{host}".endswith(tuple(f".{store}" for store in STORES)))

    def redact(self, text: str) -> str:
        """Return a text without the key: a platform that repeats it must not bring it into logs and XComs."""
        if any(mark in text for mark in "\\%&"):
            return self._key_pattern.sub("***", text)
        return text.replace(self.api_key, "***") if self._is_secret else text

    def hide(self, text: str) -> str:
        """Return a text about this platform without the key and the proxy's credentials."""
        return hide_userinfo(self.redact(text))

    @property
    def _is_secret(self) -> bool:
        """Whether the key is one: a short one is a placeholder, and may stand in any text."""
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
            if not self.stores(request.url):
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
            f"{printable(url)!r} is not on an origin that may {what}. If it belongs to your platform, add its"
            " origin to trusted_origins in the extra of the Connection."
        )


def hide_userinfo(text: str) -> str:
    """Return a text without the user names and passwords of the URLs in it.

    All up to the last ``@`` of a URL is hidden: passwords are often not percent-encoded as they should be.
    """
    return _USERINFO.sub("***@", text)


def checked_proxy(url: str) -> str:
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
        return origin(url)
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


def origin(url: str) -> str:
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


def endpoint(url: Any, *, allow_insecure: bool = False) -> str:
    """Return an endpoint's URL, without a slash at its end.

    :raises ValueError: if it can be none; the message names the remedy.
    """
    try:
        origin(url)
    except ValueError as error:
        raise ValueError(f"{error}; write it like https://platform.example.com") from None
    if "?" in url or "#" in url:
        raise ValueError("with a query or fragment it is no endpoint; give the URL without it")
    if urlsplit(url).scheme == "http" and not is_loopback(url) and not allow_insecure:
        raise ValueError(
            "it would send the key unencrypted; use https, or set allow_insecure to true in a Connection's extra"
        )
    return f"{url}".rstrip("/")


def checked_key(key: Any) -> str:
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


class _ConnectionReader:
    """Reads the fields of a Connection, and names the one that cannot work."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.extra = self.read_extra()

    def read_extra(self) -> dict[str, Any]:
        """Return the extra. Airflow itself drops one that it cannot read, and so the endpoints that it names."""
        text = (self.connection.extra or "").strip()
        extra = parse(text) if text else {}
        if not isinstance(extra, dict):
            raise self.wrong("extra", "is no JSON object", 'write it like {"timeout": 60}')
        for key in extra:
            if key not in EXTRA_KEYS:
                near = get_close_matches(str(key), EXTRA_KEYS, n=1)
                remedy = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(EXTRA_KEYS)}"
                raise self.wrong("extra", f"has the unknown key {key!r:.100}", remedy)
        return dict(self.connection.extra_dejson)  # which also masks its secrets in logs

    def read(self) -> Platform:
        try:
            key = checked_key(self.connection.password or "")
        except ValueError as error:
            raise self.told("password", str(error)) from None
        if not key:
            raise self.wrong("password", "is empty", "put the API key there")
        # The form's name for it: Airflow shows no value whose name holds api_key, not even that it is a choice of two.
        name = "key_type" if self.extra.get("key_type") else "api_key_type"
        key_type = self.extra.get(name) or "team"
        if not isinstance(key_type, str) or key_type not in KEY_HEADERS:
            raise self.wrong(name, f"is {key_type!r}", f"use one of {', '.join(KEY_HEADERS)}")
        host = self.host()
        return Platform(
            api_key=key,
            key_header=KEY_HEADERS[key_type],
            backend_url=self.url("host", host) if host else PUBLIC_BACKEND_URL,
            models_run_url=self.url(
                "models_run_url",
                self.extra.get("models_run_url") or (f"{host}/api/v1/execute" if host else PUBLIC_MODELS_RUN_URL),
            ),
            web_url=self.url("web_url", self.extra.get("web_url") or PUBLIC_WEB_URL),
            trusted_origins=frozenset(origin(self.url("trusted_origins", url)) for url in self.trusted_origins()),
            verify=self.verify(),
            timeout=self.number("timeout", REQUEST_TIMEOUT, LONGEST_REQUEST, "the seconds that one request may take"),
            max_answer=int(
                MIB * self.number("max_answer_mib", MAX_ANSWER_MIB, 1024**2, "the MiB that an answer may have")
            ),
            proxy=self.proxy(),
        )

    def wrong(self, name: str, problem: str, remedy: str) -> AixplainConfigurationError:
        return self.told(name, f"{problem}; {remedy}")

    def told(self, name: str, what: str) -> AixplainConfigurationError:
        return AixplainConfigurationError(f"Connection {self.connection.conn_id!r}: {name} {what}.")

    def host(self) -> str:
        """The base URL: a whole URL in host, or host with the scheme in schema (default https), and a port."""
        host = (self.connection.host or "").strip()
        if not host:
            return ""
        url = (host if "://" in host else f"{self.connection.schema or 'https'}://{host}").rstrip("/")
        if not self.connection.port:
            return url
        scheme, _, rest = url.partition("://")
        netloc, slash, path = rest.partition("/")
        if re.search(r":\d+$", netloc):
            return url  # it says so itself
        return f"{scheme}://{netloc}:{self.connection.port}{slash}{path}"

    def url(self, name: str, url: Any) -> str:
        try:
            return endpoint(url, allow_insecure=self.flag("allow_insecure"))
        except ValueError as error:
            raise self.told(name, f"is {printable(hide_userinfo(str(url)))!r}: {error}") from None

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.extra.get(name, default)
        value = value.strip().lower() if isinstance(value, str) else value
        if value in ("", None):
            return default
        if value not in (True, False, "true", "false"):
            raise self.wrong(name, f"is {value!r}", "use true or false")
        return value in (True, "true")

    def verify(self) -> bool | str:
        value = self.extra.get("verify")
        if not isinstance(value, str) or value.strip().lower() in ("", "true", "false"):
            return self.flag("verify", default=True)
        if not os.path.isfile(value):
            raise self.wrong("verify", f"is {value!r}, and there is no such file here", "name a CA file, or use true")
        return value

    def proxy(self) -> str | None:
        value = self.extra.get("proxy")
        if value in (None, ""):
            return None
        try:
            return checked_proxy(value)
        except ValueError as error:
            raise self.told("proxy", str(error)) from None

    def number(self, name: str, default: float, most: float, what: str) -> float:
        value = self.extra.get(name)
        if value in (None, ""):
            return default
        try:
            told = float(value)
        except (TypeError, ValueError, OverflowError):
            told = math.nan
        if isinstance(value, bool) or not 0 < told <= most:
            raise self.wrong(name, f"is {value!r}", f"give {what}, such as {default:g}")
        return told

    def trusted_origins(self) -> list[Any]:
        """A list, or text that holds one: separated by commas, as forms give it, or as JSON or Python write it."""
        value = self.extra.get("trusted_origins") or []
        if isinstance(value, str):
            text = value.strip()
            text = text[1:-1] if text.startswith("[") and text.endswith("]") else text
            value = [part for told in text.split(",") if (part := told.strip(" \t\r\n'\""))]
        if not isinstance(value, list):
            raise self.wrong("trusted_origins", "is no list", 'write it like ["https://files.example.com"]')
        return value
