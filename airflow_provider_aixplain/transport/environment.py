"""The proxy and the CA certificates of a request, the same for workers and triggerers.

The rules are those of ``requests``, computed by ``requests`` itself: ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``ALL_PROXY``,
``NO_PROXY`` with hosts, suffixes, ``host:port`` and CIDR blocks, then ``REQUESTS_CA_BUNDLE`` and ``CURL_CA_BUNDLE``.
``SSL_CERT_FILE``, which other HTTP clients read, applies if neither of those is set.
"""

from __future__ import annotations

import os
import ssl
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import requests
from requests.utils import DEFAULT_CA_BUNDLE_PATH, select_proxy
from urllib3.util.ssl_ import create_urllib3_context

from airflow_provider_aixplain.client.account import validate_proxy
from airflow_provider_aixplain.exceptions import AixplainConfigurationError

if TYPE_CHECKING:
    from airflow_provider_aixplain.client.account import Platform


@dataclass(frozen=True)
class Route:
    """How a request reaches its server.

    :param proxy: the URL of an HTTP proxy, with its credentials, or None.
    :param verify: the path of a CA file or folder, or False to skip verification.
    """

    proxy: str | None = field(repr=False)
    verify: str | bool

    @property
    def has_own_ca(self) -> bool:
        """Whether the Connection or the environment sets the CA certificates."""
        return self.verify not in (False, DEFAULT_CA_BUNDLE_PATH)

    @property
    def proxies(self) -> dict[str, str]:
        """The proxy as ``requests`` expects it."""
        return {"http": self.proxy, "https": self.proxy} if self.proxy else {}

    def tls_context(self) -> ssl.SSLContext:
        """Return a context that verifies certificates like ``requests``. Reading a CA file takes milliseconds.

        :raises AixplainConfigurationError: if the CA file cannot be read.
        """
        context = create_urllib3_context()
        if not self.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            return context
        path = str(self.verify)
        try:
            context.load_verify_locations(**{"capath" if os.path.isdir(path) else "cafile": path})
        except OSError as error:
            raise AixplainConfigurationError(
                f"The CA certificates {path!r} cannot be read ({error}). {_CA_REMEDY}"
            ) from None
        return context


def find_route(platform: Platform, url: str) -> Route:
    """Return the route to a URL: the Connection's settings take precedence over the environment.

    :raises AixplainConfigurationError: if triggers do not support the proxy, or the CA certificates do not exist.
    """
    settings = requests.Session().merge_environment_settings(url, {}, False, platform.verify, None)
    verify: Any = settings["verify"]
    if verify is True:
        verify = os.environ.get("SSL_CERT_FILE") or DEFAULT_CA_BUNDLE_PATH
    if verify and not os.path.exists(verify):
        raise AixplainConfigurationError(f"There are no CA certificates at {verify!r}. {_CA_REMEDY}")
    return Route(_check_proxy(platform.proxy or select_proxy(url, settings["proxies"]), url), verify)


_CA_REMEDY = "Check verify in the extra of the Connection, REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE and SSL_CERT_FILE."


def _check_proxy(proxy: str | None, url: str) -> str | None:
    if not proxy:
        return None
    try:
        proxy = validate_proxy(proxy if "://" in proxy else f"http://{proxy}")
        # aiohttp needs TLS inside TLS for this, which asyncio supports from Python 3.11 on.
        if proxy.startswith("https:") and url.startswith("https:") and sys.version_info < (3, 11):
            raise ValueError("uses TLS, which triggers support from Python 3.11 on; name an http:// proxy")
    except ValueError as error:
        raise AixplainConfigurationError(
            f"The proxy from the Connection's extra, HTTP_PROXY, HTTPS_PROXY or ALL_PROXY {error}."
        ) from None
    return proxy


def quote_url(url: str) -> str:
    """Return a URL with the percent-encoding of ``requests``.

    :raises ValueError: if it is invalid.
    """
    prepared = requests.PreparedRequest()
    prepared.prepare_url(url, None)
    return str(prepared.url)
