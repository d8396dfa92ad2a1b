"""Names, sources and checks of an agent's artifacts."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from airflow_provider_aixplain.protocol.artifacts import (
    check_content,
    download_request,
    file_name,
    find_source,
    folder_name,
    stored_artifact,
)
from airflow_provider_aixplain.protocol.failure import InvalidInput
from airflow_provider_aixplain.protocol.wire import Credential

LINK = "https://bucket.s3.amazonaws.com/chart.png?X-Amz-Signature=1"
HASH = hashlib.sha256(b"a,b\n").hexdigest()


def test_a_download_carries_nothing_but_its_link() -> None:
    request = download_request(LINK)
    assert (request.method, request.url, request.body) == ("GET", LINK, None)
    assert (request.credential, request.content_type) == (Credential.NONE, "")


@pytest.mark.parametrize("run_id", ["", ".", "..", "../other", "a/b", "a b", ".hidden", "é", "a" * 101, "a\n"])
def test_an_unsafe_id_of_a_run_is_hashed(run_id: str) -> None:
    assert folder_name(run_id) == hashlib.sha256(run_id.encode()).hexdigest()


def test_a_safe_id_of_a_run_is_its_folder() -> None:
    assert folder_name("_0f8e-Run_1") == "_0f8e-Run_1"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("report.csv", "7_report.csv"),
        ("Umsätze 2026.csv", "7_Umsätze_2026.csv"),
        ("レポート.pdf", "7_レポート.pdf"),
        ("../../etc/passwd", "7_passwd"),
        ("..\\..\\boot.ini", "7_boot.ini"),
        ("..", "7_.."),
        ("a/", "7_"),
        ("/etc/cron.d/x;rm -rf *", "7_x_rm_-rf_"),
        ("a\0b\n\u202egnp.exe", "7_a_b_gnp.exe"),
        ("s3://bucket/key?x#y%2e%2e", "7_key_x_y_2e_2e"),
        ("", "7_artifact"),
        (None, "7_artifact"),
        ({"a": 1}, "7__a_1_"),
    ],
)
def test_a_file_name_has_no_folder_and_a_number(name: Any, expected: str) -> None:
    assert file_name(7, {"name": name}) == expected


def test_an_artifact_that_is_no_dict_has_a_file_name() -> None:
    assert file_name(1, "odd") == "1_artifact"


@pytest.mark.parametrize("letter", ["a", "é", "語", "😀"])
def test_a_long_name_keeps_its_end(letter: str) -> None:
    name = file_name(100, {"name": letter * 5000 + ".csv"})
    assert name.endswith(".csv")
    assert len(name.encode()) < 200


def test_the_source_is_a_link_or_content() -> None:
    assert find_source({"url": LINK, "content": None, "byteSize": 10}, 10) == (LINK, b"")
    assert find_source({"url": None, "content": "é", "byte_size": "2"}, 10) == (None, "é".encode())
    assert find_source({"content": ""}, 10) == (None, b""), "an empty file"


@pytest.mark.parametrize(
    "artifact", [{}, {"url": "", "content": None}, {"url": 5}, {"content": {"a": 1}}, "odd", None, ["url"]]
)
def test_an_artifact_without_a_source_is_named(artifact: Any) -> None:
    with pytest.raises(InvalidInput, match="neither a url nor content"):
        find_source(artifact, 10)


@pytest.mark.parametrize("key", ["byte_size", "byteSize"])
def test_a_stated_size_above_the_limit_is_refused(key: str) -> None:
    with pytest.raises(InvalidInput, match="it has 11 bytes, and the limit is 10"):
        find_source({"url": LINK, key: 11}, 10)


@pytest.mark.parametrize(
    "stated",
    [{}, {"byte_size": 4, "sha256": HASH}, {"byteSize": 4, "sha256": HASH.upper()}, {"byte_size": 0, "sha256": "?"}],
)
def test_content_that_matches_is_accepted(stated: dict[str, Any]) -> None:
    check_content(stated, 4, HASH)


@pytest.mark.parametrize("stated", [{"byte_size": 5}, {"byteSize": 3}, {"byte_size": 4, "sha256": "0" * 64}])
def test_content_that_differs_is_refused(stated: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="instead of"):
        check_content(stated, 4, HASH)


def test_a_path_replaces_link_and_content() -> None:
    artifact = {"id": "1", "mimeType": "image/png", "url": LINK, "urlExpiresAt": "x", "url_expires_at": "x"}
    stored = stored_artifact({**artifact, "content": None}, "file:///out/r/1_chart.png")
    assert stored == {"id": "1", "mimeType": "image/png", "path": "file:///out/r/1_chart.png"}
    assert artifact["url"] == LINK
