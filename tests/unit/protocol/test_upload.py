"""Uploads."""

from __future__ import annotations

import io
import json
from typing import Any
from urllib.parse import parse_qs

import pytest

from airflow_provider_aixplain.protocol import upload
from airflow_provider_aixplain.protocol.failure import InvalidInput, RequestFailed
from airflow_provider_aixplain.protocol.upload import MIB, Slot
from airflow_provider_aixplain.protocol.wire import Answer, Credential, NoResponse

PUT = "https://bucket.s3.us-east-1.amazonaws.com/u/a.wav?X-Amz-Signature=1"


@pytest.mark.parametrize(
    ("name", "content_type", "limit"),
    [
        ("call.wav", "audio/wav", 50),
        ("CALL.MP3", "audio/mpeg", 50),
        ("report.pdf", "application/pdf", 25),
        ("film.mkv", "video/x-matroska", 300),
        ("film.mp4", "video/mp4", 300),
        ("photo.jpeg", "image/jpeg", 25),
        ("data.sqlite3", None, 300),
        ("rows.csv", "text/csv", 50),
        ("noextension", "application/octet-stream", 50),
    ],
)
def test_each_kind_of_file_has_a_size_limit(name: str, content_type: str | None, limit: int) -> None:
    assert content_type is None or upload.content_type(name) == content_type
    upload.check_size(name, limit * MIB)
    with pytest.raises(
        InvalidInput, match=rf"'{name}' has {limit}\.0 MiB, and the limit for the kind '[a-z]+' is {limit} MiB"
    ):
        upload.check_size(name, limit * MIB + 1)
    with pytest.raises(InvalidInput, match=f"'{name}' is empty"):
        upload.check_size(name, 0)


def test_the_requests_carry_no_key_to_the_store() -> None:
    asked = upload.slot_request("https://h", "a b.wav")
    assert (asked.method, asked.url, asked.credential) == (
        "POST",
        "https://h/sdk/file/upload/temp-url",
        Credential.AUTHORIZATION,
    )
    assert asked.content_type == "application/x-www-form-urlencoded"
    assert isinstance(asked.body, bytes)
    assert parse_qs(asked.body.decode()) == {"contentType": ["audio/wav"], "originalName": ["a b.wav"]}
    file = io.BytesIO(b"RIFF")
    put = upload.transfer_request(Slot("u/a.wav", PUT), "a.wav", file)
    assert (put.method, put.url, put.body) == ("PUT", PUT, file)
    assert (put.content_type, put.credential) == ("audio/wav", Credential.NONE)


def test_a_slot_is_read() -> None:
    body = {"key": "u/a.wav", "uploadUrl": PUT, "downloadUrl": "https://h"}
    assert upload.read_slot(Answer(200, json.dumps(body).encode())) == Slot("u/a.wav", PUT, "https://h")


@pytest.mark.parametrize("url", [None, 5, "s3://b/k"])
def test_without_a_download_url_the_link_replaces_it(url: Any) -> None:
    slot = upload.read_slot(Answer(200, json.dumps({"key": "k", "uploadUrl": PUT, "downloadUrl": url}).encode()))
    assert slot.link.download_url == slot.link


@pytest.mark.parametrize("body", [{}, {"key": "a"}, {"key": "", "uploadUrl": PUT}, {"key": "a", "uploadUrl": 5}])
def test_an_answer_without_a_slot_is_an_error(body: dict[str, Any]) -> None:
    with pytest.raises(RequestFailed, match="names no key and uploadUrl"):
        upload.read_slot(Answer(200, json.dumps(body).encode()))


@pytest.mark.parametrize(
    ("host", "bucket"),
    [
        ("https://bucket.s3.amazonaws.com/", "bucket"),
        ("https://bucket.s3.eu-west-1.amazonaws.com/", "bucket"),
        ("https://s3.eu-west-1.amazonaws.com/bucket/", "bucket"),
        ("https://s3.amazonaws.com/bucket/", "bucket"),
        ("http://127.0.0.1:8088/bucket/", "bucket"),
        ("http://localhost:8088/bucket/", "bucket"),
    ],
)
def test_the_link_names_the_bucket(host: str, bucket: str) -> None:
    assert Slot("u/a.wav", f"{host}u/a.wav?signature=1").link == f"s3://{bucket}/u/a.wav"


def test_a_stores_refusal_shows_its_code_and_no_signature() -> None:
    body = b"<Error><Code>SignatureDoesNotMatch</Code><SignatureProvided>s3cret</SignatureProvided></Error>"
    with pytest.raises(RequestFailed) as raised:
        upload.read_transfer(Answer(403, body))
    assert str(raised.value) == "upload: HTTP 403 (resource): SignatureDoesNotMatch"


def test_a_refused_upload_is_an_error() -> None:
    upload.read_transfer(Answer(200))
    for outcome in (Answer(403, b"<Error/>"), NoResponse("reset", is_sent=True)):
        with pytest.raises(RequestFailed, match="upload: "):
            upload.read_transfer(outcome)


@pytest.mark.parametrize(
    ("host", "is_store"),
    [
        ("aixplain.com", True),
        ("files.aixplain.com", True),
        ("s3.amazonaws.com", True),
        ("my.bucket.s3.amazonaws.com", True),
        ("bucket.s3.us-east-1.amazonaws.com", True),
        ("bucket.s3-us-west-2.amazonaws.com", True),
        ("bucket.s3-accelerate.dualstack.amazonaws.com", True),
        ("s3.dualstack.eu-west-1.amazonaws.com", True),
        ("amazonaws.com", False),
        ("vpc-logs-s3.us-east-1.es.amazonaws.com", False),
        ("s3-proxy.us-east-1.elb.amazonaws.com", False),
        ("ec2-10-0-0-1.compute-1.amazonaws.com", False),
        ("evilaixplain.com", False),
        ("aixplain.com.evil.example", False),
        ("s3xamazonaws.com", False),
        ("169.254.169.254", False),
        ("", False),
    ],
)
def test_only_the_platforms_stores_hold_files(host: str, is_store: bool) -> None:
    assert upload.is_store(host) is is_store
