"""Uploads: how a file becomes a link that a model or an agent accepts as input."""

from __future__ import annotations

import mimetypes
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlencode, urlsplit

from airflow_provider_aixplain.protocol.failure import InvalidInput
from airflow_provider_aixplain.protocol.wire import (
    Answer,
    Credential,
    NoResponse,
    Request,
    is_http_url,
    read_object,
    require_success,
    unusable_answer_error,
)

if TYPE_CHECKING:
    from typing_extensions import Self

MIB = 1024 * 1024
SIZE_LIMITS = {
    "application": 25 * MIB,
    "audio": 50 * MIB,
    "database": 300 * MIB,
    "image": 25 * MIB,
    "video": 300 * MIB,
    "other": 50 * MIB,
}
"""The platform's size limits, in bytes, by kind of file."""

_STORES = re.compile(r"(.+\.)?(aixplain|s3(-[\w-]+)?(\.dualstack)?(\.[\w-]+)?\.amazonaws)\.com", re.ASCII)
"""The hosts of the platform's file stores. Other services of ``amazonaws.com`` may be a user's own, in its network."""

UNKNOWN_TYPE = "application/octet-stream"
"""The media type of a file whose name shows no type."""

_DATABASES = (".db", ".sqlite", ".sqlite3")
# Python's own table depends on the machine; these types must be the same on every worker.
_TYPES = {
    ".csv": "text/csv",
    ".flac": "audio/flac",
    ".jsonl": "application/jsonl",
    ".m4a": "audio/mp4",
    ".md": "text/markdown",
    ".mkv": "video/x-matroska",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".wav": "audio/wav",
    ".webp": "image/webp",
}


class UploadLink(str):
    """The link to an uploaded file.

    :param download_url: the URL to read it from, which agents accept in attachments; by default the link itself.
    """

    download_url: str

    def __new__(cls, link: str, download_url: str = "") -> Self:
        """Return the link."""
        self = super().__new__(cls, link)
        self.download_url = download_url or link
        return self


@dataclass(frozen=True)
class Slot:
    """An upload slot that the platform grants for a file.

    :param key: the file's name in the store.
    :param upload_url: the presigned URL to upload to.
    :param download_url: the URL to read the file from; empty if the platform names none.
    """

    key: str
    upload_url: str
    download_url: str = ""

    @property
    def link(self) -> UploadLink:
        """The link that a model accepts: ``s3://bucket/key``, with the bucket of the upload URL."""
        parts = urlsplit(self.upload_url)
        bucket = (parts.hostname or "").partition(".")[0]
        # s3.region.amazonaws.com/bucket/key, or a store at an IP address
        if bucket.isdigit() or bucket.startswith("s3") or bucket == parts.hostname:
            bucket = parts.path.lstrip("/").partition("/")[0]
        return UploadLink(f"s3://{bucket}/{self.key}", self.download_url)


def is_store(host: str) -> bool:
    """Return whether a host is one of the platform's file stores.

    :param host: in lower case.
    """
    return _STORES.fullmatch(host) is not None


def content_type(name: str) -> str:
    """Return the media type of a file by its name."""
    suffix = "." + name.rpartition(".")[2].lower()
    return _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or UNKNOWN_TYPE


def check_size(name: str, size: int) -> None:
    """Check that the platform accepts a file of this size.

    :param size: in bytes.
    :raises InvalidInput: if it is empty, or exceeds the limit of its kind.
    """
    media_type = content_type(name)
    kind = "database" if name.lower().endswith(_DATABASES) else media_type.partition("/")[0]
    kind = kind if kind in SIZE_LIMITS and media_type != UNKNOWN_TYPE else "other"
    if size == 0:
        raise InvalidInput(f"the file {name!r} is empty: there is nothing to upload")
    if size > SIZE_LIMITS[kind]:
        raise InvalidInput(
            f"the file {name!r} has {size / MIB:.1f} MiB, and the limit for the kind {kind!r} is"
            f" {SIZE_LIMITS[kind] // MIB} MiB: split it, or pass a link to it instead"
        )


def slot_request(backend_url: str, name: str) -> Request:
    """Return the request for an upload slot for a file of this name."""
    form = urlencode({"contentType": content_type(name), "originalName": name})
    url = f"{backend_url}/sdk/file/upload/temp-url"
    return Request("POST", url, form.encode(), "application/x-www-form-urlencoded", Credential.AUTHORIZATION)


def read_slot(outcome: Answer | NoResponse) -> Slot:
    """Return the upload slot that the platform grants.

    :raises RequestFailed: if it grants none.
    """
    body = read_object(outcome, "upload")
    key, url = body.get("key"), body.get("uploadUrl")
    if not isinstance(key, str) or not isinstance(url, str) or not key or not url:
        # Not the answer itself: its URL is presigned.
        raise unusable_answer_error("upload", "names no key and uploadUrl", ", ".join(sorted(body)))
    download_url: Any = body.get("downloadUrl")
    return Slot(key, url, download_url if is_http_url(download_url) else "")


def transfer_request(slot: Slot, name: str, file: BinaryIO) -> Request:
    """Return the request that uploads a file to its slot.

    :param file: open for reading, at its start.
    """
    return Request("PUT", slot.upload_url, file, content_type(name), Credential.NONE)


def read_transfer(outcome: Answer | NoResponse, what: str = "upload") -> None:
    """Check that a store accepted a transfer.

    The error shows only the store's error code: the rest of its answer may repeat the signature of the presigned URL.

    :param what: ``upload`` or ``download``, for the error.
    :raises RequestFailed: if the store refused it.
    """
    if isinstance(outcome, Answer):
        code = re.search(rb"<Code>(\w{1,60})</Code>", outcome.body)
        outcome = replace(outcome, body=code[1] if code else b"")
    require_success(outcome, what)
