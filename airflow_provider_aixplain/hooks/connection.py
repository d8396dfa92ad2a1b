"""Reads Connections of type ``aixplain``, and refuses invalid ones."""

from __future__ import annotations

import math
import os
import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from airflow_provider_aixplain.client.account import (
    KEY_HEADERS,
    MAX_ANSWER_MIB,
    MAX_TIMEOUT,
    PUBLIC_BACKEND_URL,
    PUBLIC_MODELS_RUN_URL,
    PUBLIC_WEB_URL,
    REQUEST_TIMEOUT,
    Platform,
    hide_userinfo,
    parse_origin,
    validate_endpoint,
    validate_key,
    validate_proxy,
)
from airflow_provider_aixplain.exceptions import AixplainConfigurationError
from airflow_provider_aixplain.protocol.upload import MIB
from airflow_provider_aixplain.protocol.values import parse_json, to_printable

if TYPE_CHECKING:
    from airflow.sdk import Connection

EXTRA_KEYS = (
    *("models_run_url", "key_type", "api_key_type", "trusted_origins", "timeout", "max_answer_mib"),
    *("proxy", "verify", "allow_insecure", "web_url"),
)
"""The keys that the extra of a Connection may have."""


def read_connection(connection: Connection) -> Platform:
    """Return the account that a Connection describes.

    :raises AixplainConfigurationError: naming the Connection, the field and the remedy.
    """
    return _ConnectionReader(connection).read()


class _ConnectionReader:
    """Reads the fields of a Connection; an error names the field."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.extra = self.read_extra()

    def read_extra(self) -> dict[str, Any]:
        """Return the extra. It must be a JSON object: Airflow silently drops any other, and with it the endpoints."""
        text = (self.connection.extra or "").strip()
        extra = parse_json(text) if text else {}
        if not isinstance(extra, dict):
            raise self.invalid_field("extra", "is not a JSON object", 'write it like {"timeout": 60}')
        for key in extra:
            if key not in EXTRA_KEYS:
                near = get_close_matches(str(key), EXTRA_KEYS, n=1)
                remedy = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(EXTRA_KEYS)}"
                raise self.invalid_field("extra", f"has the unknown key {key!r:.100}", remedy)
        return dict(self.connection.extra_dejson)  # this also makes Airflow mask its secrets in logs

    def read(self) -> Platform:
        try:
            key = validate_key(self.connection.password or "")
        except ValueError as error:
            raise self.field_error("password", str(error)) from None
        if not key:
            raise self.invalid_field("password", "is empty", "put the API key there")
        # The form uses key_type: Airflow masks the value of any field whose name contains api_key.
        name = "key_type" if self.extra.get("key_type") else "api_key_type"
        key_type = self.extra.get(name) or "team"
        if not isinstance(key_type, str) or key_type not in KEY_HEADERS:
            raise self.invalid_field(name, f"is {key_type!r}", f"use one of {', '.join(KEY_HEADERS)}")
        backend = self.read_url("host", self.read_host() or PUBLIC_BACKEND_URL)
        is_public = parse_origin(backend) == parse_origin(PUBLIC_BACKEND_URL)  # also if host names it
        return Platform(
            api_key=key,
            key_header=KEY_HEADERS[key_type],
            backend_url=backend,
            models_run_url=self.read_url(
                "models_run_url",
                self.extra.get("models_run_url")
                or (PUBLIC_MODELS_RUN_URL if is_public else f"{backend}/api/v1/execute"),
            ),
            web_url=self.read_url("web_url", self.extra.get("web_url") or PUBLIC_WEB_URL),
            trusted_origins=frozenset(
                parse_origin(self.read_url("trusted_origins", url)) for url in self.read_trusted_origins()
            ),
            verify=self.read_verify(),
            timeout=self.read_number("timeout", REQUEST_TIMEOUT, MAX_TIMEOUT, "the time limit of a request in seconds"),
            max_answer=int(
                MIB * self.read_number("max_answer_mib", MAX_ANSWER_MIB, 1024**2, "the size limit of an answer in MiB")
            ),
            proxy=self.read_proxy(),
        )

    def invalid_field(self, name: str, problem: str, remedy: str) -> AixplainConfigurationError:
        return self.field_error(name, f"{problem}; {remedy}")

    def field_error(self, name: str, what: str) -> AixplainConfigurationError:
        return AixplainConfigurationError(f"Connection {self.connection.conn_id!r}: {name} {what}.")

    def read_host(self) -> str:
        """Return the base URL: host if it is a URL, otherwise schema (default: https) and host; and the port."""
        host = (self.connection.host or "").strip()
        if not host:
            return ""
        url = (host if "://" in host else f"{self.connection.schema or 'https'}://{host}").rstrip("/")
        if not self.connection.port:
            return url
        scheme, _, rest = url.partition("://")
        netloc, slash, path = rest.partition("/")
        if re.search(r":\d+$", netloc):
            return url  # the URL has a port
        return f"{scheme}://{netloc}:{self.connection.port}{slash}{path}"

    def read_url(self, name: str, url: Any) -> str:
        try:
            return validate_endpoint(url, allow_insecure=self.read_flag("allow_insecure"))
        except ValueError as error:
            raise self.field_error(name, f"is {to_printable(hide_userinfo(str(url)))!r}: {error}") from None

    def read_flag(self, name: str, default: bool = False) -> bool:
        value = self.extra.get(name, default)
        value = value.strip().lower() if isinstance(value, str) else value
        if value in ("", None):
            return default
        if value not in (True, False, "true", "false"):
            raise self.invalid_field(name, f"is {value!r}", "use true or false")
        return value in (True, "true")

    def read_verify(self) -> bool | str:
        value = self.extra.get("verify")
        if not isinstance(value, str) or value.strip().lower() in ("", "true", "false"):
            return self.read_flag("verify", default=True)
        if not os.path.isfile(value):
            raise self.invalid_field("verify", f"is {value!r}, which does not exist", "name a CA file, or use true")
        return value

    def read_proxy(self) -> str | None:
        value = self.extra.get("proxy")
        if value in (None, ""):
            return None
        try:
            return validate_proxy(value)
        except ValueError as error:
            raise self.field_error("proxy", str(error)) from None

    def read_number(self, name: str, default: float, most: float, what: str) -> float:
        value = self.extra.get(name)
        if value in (None, ""):
            return default
        try:
            parsed = float(value)
        except (TypeError, ValueError, OverflowError):
            parsed = math.nan
        if isinstance(value, bool) or not 0 < parsed <= most:
            raise self.invalid_field(name, f"is {value!r}", f"give {what}, such as {default:g}")
        return parsed

    def read_trusted_origins(self) -> list[Any]:
        """Return the origins of a list, or of a string: comma-separated, or a list in JSON or Python syntax."""
        value = self.extra.get("trusted_origins") or []
        if isinstance(value, str):
            text = value.strip()
            text = text[1:-1] if text.startswith("[") and text.endswith("]") else text
            value = [part for item in text.split(",") if (part := item.strip(" \t\r\n'\""))]
        if not isinstance(value, list):
            raise self.invalid_field("trusted_origins", "is not a list", 'write it like ["https://files.example.com"]')
        return value
