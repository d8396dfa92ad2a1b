"""Connections, endpoints, and the origins that may receive the key."""

from __future__ import annotations

import html
import json
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from airflow.models.connection import Connection

from airflow_provider_aixplain.client.account import Platform, parse_origin
from airflow_provider_aixplain.exceptions import AixplainConfigurationError, AixplainUntrustedUrl
from airflow_provider_aixplain.get_provider_info import CONN_FIELDS
from airflow_provider_aixplain.hooks.connection import EXTRA_KEYS, read_connection
from airflow_provider_aixplain.protocol import wire

KEY = "k3y-that-nobody-sees"


def read(extra: dict[str, Any] | None = None, **fields: Any) -> Platform:
    connection = Connection(
        conn_id="my_conn",
        conn_type="aixplain",
        extra=json.dumps({} if extra is None else extra),
        **{"password": KEY, **fields},
    )
    return read_connection(connection)


def test_a_connection_needs_only_a_key() -> None:
    platform = read()
    assert platform == Platform(
        api_key=KEY,
        key_header="x-api-key",
        backend_url="https://platform-api.aixplain.com",
        models_run_url="https://models.aixplain.com/api/v1/execute",
        trusted_origins=frozenset(),
        verify=True,
        timeout=60.0,
        proxy=None,
    )
    assert platform.trusts("https://models.aixplain.com/api/v1/data/7e1b")


@pytest.mark.parametrize(
    ("fields", "backend_url"),
    [
        ({"host": "https://a.example"}, "https://a.example"),
        ({"host": "a.example"}, "https://a.example"),
        ({"host": "a.example", "schema": "https", "port": 8443}, "https://a.example:8443"),
        ({"host": "https://a.example/base/", "port": 8443}, "https://a.example:8443/base"),
        ({"host": "127.0.0.1", "schema": "http", "port": 8088}, "http://127.0.0.1:8088"),
        ({"host": "http://localhost:8088"}, "http://localhost:8088"),
        ({"host": "http://localhost:8088", "port": 443}, "http://localhost:8088"),
        ({"host": "http://[::1]:8088"}, "http://[::1]:8088"),
    ],
)
def test_the_host_sets_both_endpoints(fields: dict[str, Any], backend_url: str) -> None:
    platform = read(**fields)
    assert platform.backend_url == backend_url
    assert platform.models_run_url == f"{backend_url}/api/v1/execute"
    assert not platform.trusts("https://models.aixplain.com/api/v1/data/7e1b")


@pytest.mark.parametrize("host", ["https://platform-api.aixplain.com", "Platform-API.aixplain.com/"])
def test_the_public_backend_as_host_keeps_the_public_execution_url(host: str) -> None:
    """The Connection's form shows it as the example."""
    assert read(host=host).models_run_url == "https://models.aixplain.com/api/v1/execute"


@pytest.mark.parametrize(
    ("extra", "attribute", "value"),
    [
        ({"api_key_type": "personal"}, "key_header", "x-aixplain-key"),
        ({"models_run_url": "https://run.example/x/"}, "models_run_url", "https://run.example/x"),
        ({"trusted_origins": ["https://Files.example/a"]}, "trusted_origins", {"https://files.example:443"}),
        ({"trusted_origins": "https://a.example, https://b.example:1"}, "trusted_origins",
         {"https://a.example:443", "https://b.example:1"}),
        ({"trusted_origins": '["https://a.example"]'}, "trusted_origins", {"https://a.example:443"}),
        ({"trusted_origins": "['https://a.example']"}, "trusted_origins", {"https://a.example:443"}),
        ({"key_type": "personal"}, "key_header", "x-aixplain-key"),
        ({"verify": False}, "verify", False),
        ({"verify": "false"}, "verify", False),
        ({"verify": __file__}, "verify", __file__),
        ({"verify": ""}, "verify", True),
        ({"timeout": "2.5"}, "timeout", 2.5),
        ({"proxy": "http://proxy.example:3128"}, "proxy", "http://proxy.example:3128"),
        ({"models_run_url": "http://plain.example", "allow_insecure": True}, "models_run_url", "http://plain.example"),
    ],
)  # fmt: skip
def test_extras_are_read(extra: dict[str, Any], attribute: str, value: Any) -> None:
    assert getattr(read(extra), attribute) == value


@pytest.mark.parametrize(
    ("fields", "extra", "message"),
    [
        ({"password": ""}, {}, "password is empty; put the API key there"),
        ({"password": None}, {}, "password is empty"),
        ({"password": "  "}, {}, "password is empty"),
        ({"password": "kéy"}, {}, "password contains characters"),
        ({"password": "a\nb"}, {}, "password contains characters"),
        ({}, {"api_key_type": "root"}, "api_key_type is 'root'; use one of team, personal"),
        ({"host": "not a url"}, {}, "host is 'https://not a url': it is not a URL; write it like https://"),
        ({"host": "ftp://a.example"}, {}, "host is 'ftp://a.example'"),
        ({"host": "https://user:pass@a.example"}, {}, "contains a user name or password"),
        ({"host": "http://a.example"}, {}, "unencrypted; use https, or set allow_insecure to true"),
        ({"host": "https://a.example:99999"}, {}, "host is"),
        ({}, {"models_run_url": "http://a.example"}, "models_run_url is 'http://a.example'"),
        ({}, {"models_run_url": 5}, "models_run_url is"),
        ({}, {"trusted_origins": ["a.example"]}, "trusted_origins is 'a.example'"),
        ({}, {"trusted_origins": ["http://a.example"]}, "trusted_origins is 'http://a.example'"),
        ({}, {"trusted_origins": 7}, "trusted_origins is not a list"),
        ({}, {"timeout": "soon"}, "timeout is 'soon'; give the time limit of a request in seconds"),
        ({}, {"timeout": 0}, "timeout is 0"),
        ({}, {"timeout": [1]}, "timeout is"),
        ({}, {"allow_insecure": "maybe", "models_run_url": "http://a.example"}, "allow_insecure is 'maybe'"),
        ({}, {"verify": 3}, "verify is 3; use true or false"),
        ({}, {"verify": "/no/such/ca.pem"}, "verify is '/no/such/ca.pem', which does not exist"),
        ({}, {"api_key_type": ["team"]}, "api_key_type is ['team']"),
        ({}, {"timeout": True}, "timeout is True"),
        ({}, {"timeout": 1e12}, "timeout is 1000000000000.0"),
        ({"host": "https://"}, {}, "host is 'https:'"),
        ({"host": "https://a.example?x=1"}, {}, "it has a query or a fragment"),
        ({"host": "http://[::1]evil:80"}, {}, "host is"),
        ({"host": "https://bücher.example"}, {}, "its host is not in ASCII"),
        ({}, {"proxy": 5}, "proxy is not the URL of an HTTP proxy; write it like http://"),
        ({}, {"proxy": ["http://a"]}, "proxy is not the URL"),
        ({}, {"proxy": "127.0.0.1:3128"}, "proxy is not the URL"),
        ({}, {"proxy": "http://"}, "proxy is not the URL"),
        ({}, {"proxy": "socks5://a.example"}, "proxy is not the URL"),
    ],
)
def test_an_invalid_field_is_named_with_its_remedy(fields: dict[str, Any], extra: dict[str, Any], message: str) -> None:
    with pytest.raises(AixplainConfigurationError) as raised:
        read(extra, **fields)
    assert str(raised.value).startswith("Connection 'my_conn': ")
    assert message in str(raised.value)
    assert KEY not in str(raised.value)


@pytest.mark.parametrize("extra", ["no JSON", "{", '["no", "object"]', "7", '"text"', "{'timeout': 60}"])
def test_an_extra_that_is_not_a_json_object_is_refused(extra: str) -> None:
    """Airflow drops it with a warning, and the key would go to the public endpoints."""
    connection: Any = SimpleNamespace(conn_id="my_conn", password=KEY, extra=extra, extra_dejson={})
    with pytest.raises(AixplainConfigurationError, match="extra is not a JSON object"):
        read_connection(connection)


@pytest.mark.parametrize(
    ("key", "remedy"),
    [
        ("model_run_url", "did you mean models_run_url?"),
        ("models_run_uri", "did you mean models_run_url?"),
        ("Verify", "did you mean verify?"),
        ("proxies", "did you mean proxy?"),
        ("trusted-origins", "did you mean trusted_origins?"),
        ("x", "the keys are models_run_url, "),
    ],
)
def test_an_unknown_key_of_the_extra_is_refused(key: str, remedy: str) -> None:
    with pytest.raises(AixplainConfigurationError) as raised:
        read({key: "https://models.example"})
    assert str(raised.value).startswith(f"Connection 'my_conn': extra has the unknown key '{key}'; {remedy}")


def test_the_form_has_only_known_keys() -> None:
    assert set(CONN_FIELDS) < set(EXTRA_KEYS)


@pytest.mark.parametrize(
    ("fields", "extra"),
    [
        ({"host": "https://me:s3cret/x@a.example"}, {}),
        ({"host": "me:s3cret@a.example"}, {}),
        ({}, {"trusted_origins": ["https://me:s3cret@a.example"]}),
        ({}, {"models_run_url": "https://me:s3c/ret@a.example"}),
        ({}, {"proxy": "http://me:s3cr/et@a.example:3128"}),
        ({}, {"proxy": "socks5://me:s3cret@a.example:3128"}),
        ({}, {"web_url": "https://me:s3cret@a.example"}),
    ],
)
def test_a_password_in_a_url_is_not_shown(fields: dict[str, Any], extra: dict[str, Any]) -> None:
    with pytest.raises(AixplainConfigurationError) as raised:
        read(extra, **fields)
    assert "s3c" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/api/v1/data/7e1b",
        "http://models.aixplain.com/api/v1/data/7e1b",
        "https://models.aixplain.com:444/api/v1/data/7e1b",
        "https://models.aixplain.com.evil.example/",
        "https://models.aixplain.com@evil.example/",
        "https://user@models.aixplain.com/",
        "https://models.aixplain.com\\@evil.example/",
        "https://models.aixplain.com\n.evil.example/",
        "https://models.aixplain.com:port/",
        "https:///api",
        "//models.aixplain.com/",
        "file:///etc/passwd",
        "",
    ],
)
def test_the_key_goes_to_no_other_origin(url: str) -> None:
    platform = read()
    assert not platform.trusts(url)
    with pytest.raises(AixplainUntrustedUrl, match="trusted_origins") as raised:
        platform.headers(wire.Request("GET", url))
    assert KEY not in str(raised.value)


def test_the_key_goes_to_trusted_origins() -> None:
    platform = read({"trusted_origins": ["https://files.example"]})
    for url in ("https://MODELS.aixplain.com:443/x", "https://platform-api.aixplain.com/", "https://files.example/y"):
        assert platform.headers(wire.poll_request(url))["x-api-key"] == KEY


def test_the_key_is_not_shown() -> None:
    assert KEY not in repr(read({"proxy": f"http://{KEY}@proxy.example"}))


@pytest.mark.parametrize(
    ("credential", "headers"),
    [
        (wire.Credential.HEADER, {"x-api-key": KEY}),
        (wire.Credential.AUTHORIZATION, {"Authorization": f"Token {KEY}"}),
    ],
)
def test_the_key_is_sent_in_the_header_of_the_endpoint(credential: wire.Credential, headers: dict[str, str]) -> None:
    request = wire.Request("GET", "https://models.aixplain.com/x", content_type="text/x", credential=credential)
    assert read().headers(request) == {**headers, "Content-Type": "text/x"}
    with pytest.raises(AixplainUntrustedUrl):
        read().headers(replace(request, url="https://evil.example/x"))


@pytest.mark.parametrize(
    ("url", "is_store"),
    [
        ("https://bucket.s3.amazonaws.com/u/a?signature=1", True),
        ("https://platform-api.aixplain.com/store", True),
        ("https://files.example/store", True),
        ("https://s3.eu-west-1.amazonaws.com:443/bucket/a", True),
        ("https://vpc-logs.us-east-1.es.amazonaws.com/a", False),
        ("https://169.254.169.254/latest/meta-data", False),
        ("http://bucket.s3.amazonaws.com/u/a", False),
        ("https://amazonaws.com.evil.example/u", False),
        ("https://evilamazonaws.com/u", False),
        ("https://evil.example/?x=.amazonaws.com", False),
        ("https://a@bucket.s3.amazonaws.com/u", False),
        ("not a url", False),
    ],
)
def test_files_pass_only_the_platforms_stores_without_the_key(url: str, is_store: bool) -> None:
    platform = read({"trusted_origins": ["https://files.example"]})
    upload = wire.Request("PUT", url, content_type="audio/wav", credential=wire.Credential.NONE)
    download = wire.Request("GET", url, content_type="", credential=wire.Credential.NONE)
    if is_store:
        assert platform.headers(upload) == {"Content-Type": "audio/wav"}
        assert platform.headers(download) == {}
    else:
        for request in (upload, download):
            with pytest.raises(AixplainUntrustedUrl) as raised:
                platform.headers(request)
            assert "receive or send files" in str(raised.value)
            assert "signature" not in str(raised.value)
    redirect = platform.redirect("GET", "https://a.s3.amazonaws.com", 302, url, is_presigned=True)
    assert redirect == (url if is_store else None)
    assert platform.redirect("GET", "https://a.s3.amazonaws.com", 302, url) == (url if platform.trusts(url) else None)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"bad header {KEY!r}", "bad header '***'"),
        ("Failed to parse: http://user:secret@proxy:99999", "Failed to parse: http://***@proxy:99999"),
        ("Failed to parse: http://user:sec/ret@proxy:3128 (or so)", "Failed to parse: http://***@proxy:3128 (or so)"),
        ("https://host/a@b", "https://***@b"),
    ],
)
def test_secrets_are_hidden_in_text(text: str, shown: str) -> None:
    assert read().redact_all(text) == shown
    assert read(password="x").redact_all("Max retries exceeded") == "Max retries exceeded"


def test_whitespace_around_a_key_is_ignored() -> None:
    assert read(password=f" {KEY}\n").api_key == KEY


def test_without_a_key_nothing_is_sent() -> None:
    with pytest.raises(AixplainConfigurationError, match="No API key: pass it as api_key, or set TEAM_API_KEY"):
        Platform("").headers(wire.poll_request("https://models.aixplain.com/x"))


def test_origin_names_the_port() -> None:
    assert parse_origin("HTTPS://Example.COM/a") == "https://example.com:443"
    assert parse_origin("http://[::1]:80/a") == "http://[::1]:80"


def test_a_key_is_hidden_and_a_placeholder_is_not() -> None:
    assert read().redact(f"bad key {KEY} of //user@host") == "bad key *** of //user@host"
    for text in ("the emulator", "100 % the emulator"):
        assert read(password="emulator").redact(text) == text


ODD_KEY = "k3y/with+odd&\"'\\ChArs"


@pytest.mark.parametrize(
    "spell",
    [
        str,
        repr,
        json.dumps,
        lambda key: json.dumps(json.dumps(json.dumps(key))),
        lambda key: json.dumps(key).replace("/", "\\/"),
        lambda key: "".join(f"\\u{ord(c):04x}" for c in key),
        lambda key: json.dumps("".join(f"\\u{ord(c):04X}" for c in key)),
        lambda key: "".join(f"\\x{ord(c):02x}" for c in key),
        quote,
        lambda key: quote(quote(key, safe=""), safe=""),
        lambda key: "".join(f"%{ord(c):02X}" for c in key),
        html.escape,
        lambda key: html.escape(html.escape(key)),
        lambda key: "".join(f"&#{ord(c)};" for c in key),
        lambda key: "".join(f"&#x{ord(c):04X};" for c in key),
        lambda key: key.replace("/", "&sol;").replace("+", "&plus;"),
        lambda key: "".join([f"\\u{ord(key[0]):04x}", f"%{ord(key[1]):02x}", f"&#{ord(key[2])};", key[3:]]),
    ],
)
def test_a_key_is_hidden_in_any_spelling(spell: Callable[[str], str]) -> None:
    shown = read(password=ODD_KEY).redact(f"it is {spell(ODD_KEY)}, is it?")
    assert shown.replace('"', "").replace("'", "").replace("\\", "") == "it is ***, is it?"


@pytest.mark.parametrize("piece", ["\\", "%", "&amp;", "%25", KEY[:-1] + "%", "&#0", "\\u00", "//", "//a@"])
def test_hiding_secrets_takes_linear_time(piece: str) -> None:
    def seconds(size: int) -> float:
        platform, text = read(), piece * (size // len(piece))
        platform.redact_all("%")
        start = time.process_time()
        platform.redact_all(text)
        return time.process_time() - start

    assert min(seconds(200_000) for _ in range(3)) < 10 * max(min(seconds(50_000) for _ in range(3)), 0.001)
