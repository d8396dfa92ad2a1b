"""Proxies and CA certificates: both transports decide alike, over one table of environments."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import certifi
import pytest

from airflow_provider_aixplain.exceptions import AixplainConfigurationError
from airflow_provider_aixplain.protocol.wire import Answer, NoResponse, Request
from airflow_provider_aixplain.transport.environment import quote_url
from tests.support.scripted import Handler, Server, serve
from tests.unit.transport.transports import Send, platform

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, *map(str.upper, VARIABLES), *CA_VARIABLES):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["plain", "TLS"])
def target(request: pytest.FixtureRequest, certificate: Path) -> Iterator[Server]:
    with serve(lambda http: http.answer(200, b"target"), certificate if request.param == "TLS" else None) as server:
        yield server


@pytest.fixture
def proxy() -> Iterator[Server]:
    with serve(lambda http: http.answer(200, b"proxy")) as server:
        yield server


DIRECT, BY_PROXY = "direct", "by proxy"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, DIRECT),
        ({"HTTP_PROXY": "{proxy}", "HTTPS_PROXY": "{proxy}"}, BY_PROXY),
        ({"http_proxy": "{proxy}", "https_proxy": "{proxy}"}, BY_PROXY),
        ({"ALL_PROXY": "{proxy}"}, BY_PROXY),
        ({"all_proxy": "{bare}"}, BY_PROXY),
        ({"ALL_PROXY": "{proxy}", "NO_PROXY": "*"}, DIRECT),
        ({"ALL_PROXY": "{proxy}", "NO_PROXY": "127.0.0.0/8"}, DIRECT),
        ({"ALL_PROXY": "{proxy}", "NO_PROXY": "10.0.0.0/8, 127.0.0.1/32"}, DIRECT),
        ({"ALL_PROXY": "{proxy}", "NO_PROXY": "10.0.0.0/8"}, BY_PROXY),
        ({"ALL_PROXY": "{proxy}", "NO_PROXY": "127.0.0.1"}, DIRECT),
        ({"ALL_PROXY": "{proxy}", "no_proxy": "127.0.0.1:1"}, BY_PROXY),
        ({"ALL_PROXY": "{proxy}", "NO_PROXY": "example.com,.internal"}, BY_PROXY),
    ],
    ids=str,
)
def test_the_proxy_is_that_of_requests(
    send: Send,
    target: Server,
    proxy: Server,
    variables: dict[str, str],
    expected: str,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert went(send, target, proxy, variables, certificate, monkeypatch) == expected


@pytest.mark.parametrize(
    ("no_proxy", "expected"),
    [
        ("localhost", DIRECT),
        ("LOCALHOST", DIRECT),
        ("localhost:{port}", DIRECT),
        ("localhost:1", BY_PROXY),
        (".localhost", DIRECT),
        ("127.0.0.0/8", BY_PROXY),
    ],
)
def test_no_proxy_is_read_like_requests(
    send: Send,
    target: Server,
    proxy: Server,
    no_proxy: str,
    expected: str,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target.url = target.url.replace("127.0.0.1", "localhost")
    variables = {"ALL_PROXY": "{proxy}", "NO_PROXY": no_proxy}
    assert went(send, target, proxy, variables, certificate, monkeypatch) == expected


def went(
    send: Send, target: Server, proxy: Server, variables: dict[str, str], certificate: Path, patch: pytest.MonkeyPatch
) -> str:
    """Send a GET and a POST, and return their routes."""
    port = target.url.rpartition(":")[2]
    for name, value in variables.items():
        patch.setenv(name, value.format(proxy=proxy.url, bare=proxy.url.removeprefix("http://"), port=port))
    account = platform(target.url, verify=str(certificate))
    for method, body in (("GET", None), ("POST", b"{}")):
        answer = send(account, Request(method, f"{target.url}/x", body))
        assert isinstance(answer, Answer), answer
    is_proxied = bool(proxy.asked)
    assert bool(target.asked) == (not is_proxied or target.url.startswith("https"))  # TLS goes through the proxy
    return BY_PROXY if is_proxied else DIRECT


def test_a_proxys_credentials_are_sent(send: Send, target: Server, proxy: Server, certificate: Path) -> None:
    account = platform(
        target.url, verify=str(certificate), proxy=proxy.url.replace("http://", "http://user:p%40ss%2Fw@")
    )
    send(account, Request("GET", f"{target.url}/x"))
    headers = {name.lower(): value for name, value in proxy.asked[0].headers.items()}
    assert headers["proxy-authorization"] == "Basic " + base64.b64encode(b"user:p@ss/w").decode()


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("proxy", ["socks5://me:s3cret@127.0.0.1:1080", "http://me:s3/cret@127.0.0.1:1080"])
def test_a_proxy_that_triggers_cannot_use_is_refused(
    send: Send, proxy: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that could submit over it would leave the run to a trigger that cannot poll."""
    monkeypatch.setenv("ALL_PROXY", proxy)
    url = "https://platform.invalid"
    with pytest.raises(AixplainConfigurationError, match="ALL_PROXY") as raised:
        send(platform(url), Request(method, f"{url}/x", b"{}" if method == "POST" else None))
    assert "s3" not in str(raised.value)


OWN, OTHER, NONE = "{own}", "{other}", "/no/such/file"


@pytest.mark.parametrize(
    ("variables", "verify", "is_accepted"),
    [
        ({}, True, False),
        ({}, OWN, True),
        ({}, False, True),
        ({"REQUESTS_CA_BUNDLE": OWN}, True, True),
        ({"REQUESTS_CA_BUNDLE": OTHER}, True, False),
        ({"REQUESTS_CA_BUNDLE": OTHER}, OWN, True),
        ({"REQUESTS_CA_BUNDLE": OTHER}, False, True),
        ({"CURL_CA_BUNDLE": OWN}, True, True),
        ({"REQUESTS_CA_BUNDLE": OTHER, "CURL_CA_BUNDLE": OWN}, True, False),
        ({"SSL_CERT_FILE": OWN}, True, True),
        ({"SSL_CERT_FILE": OTHER}, True, False),
        ({"CURL_CA_BUNDLE": OWN, "SSL_CERT_FILE": OTHER}, True, True),
        ({"REQUESTS_CA_BUNDLE": OTHER, "SSL_CERT_FILE": OWN}, True, False),
    ],
    ids=str,
)
def test_both_transports_verify_certificates_alike(
    send: Send,
    variables: dict[str, str],
    verify: Any,
    is_accepted: bool,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paths = {"own": str(certificate), "other": certifi.where()}
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(**paths))
    verify = verify.format(**paths) if isinstance(verify, str) else verify
    with serve(lambda http: http.answer(200), certificate) as server:
        outcome = send(platform(server.url, verify=verify), Request("POST", f"{server.url}/x", b"{}"))
    assert isinstance(outcome, Answer) == is_accepted
    if not is_accepted:
        assert isinstance(outcome, NoResponse)
        assert not outcome.is_sent
        assert "certificate" in outcome.reason.lower()


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_missing_ca_file_is_named(send: Send, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, NONE)
    with pytest.raises(AixplainConfigurationError, match=f"{NONE}.*{name}"):
        send(platform("https://platform.invalid"), Request("GET", "https://platform.invalid/x"))


def sent_paths(send: Send, path: str) -> list[str]:
    def script(http: Handler) -> None:
        http.answer(200)

    with serve(script) as server:
        send(platform(server.url), Request("GET", f"{server.url}{path}"))
    return [asked.path for asked in server.asked]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a b?c=d e", None),
        ("/ünïcode/☕?q=ü", "/%C3%BCn%C3%AFcode/%E2%98%95?q=%C3%BC"),
        ("/a%2Fb%7e", "/a%2Fb~"),
        ("/%zz?100%", "/%25zz?100%25"),
        ("/[x]{y}|z^", "/%5Bx%5D%7By%7D%7Cz%5E"),
        ("?q=1", "/?q=1"),
    ],
)
def test_urls_are_percent_encoded_like_requests(send: Send, path: str, expected: str | None) -> None:
    if expected is None:  # spaces are refused before anything is sent
        with pytest.raises(Exception, match="untrusted origin"):
            sent_paths(send, path)
        return
    assert sent_paths(send, path) == [expected]
    assert quote_url(f"http://h.example{path}") == f"http://h.example{expected}"
