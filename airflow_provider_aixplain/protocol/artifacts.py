"""Artifacts: the files that an agent creates. Names, links and sizes come from its answer, so they are not trusted."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from airflow_provider_aixplain.protocol.failure import InvalidInput
from airflow_provider_aixplain.protocol.values import parse_number
from airflow_provider_aixplain.protocol.wire import Credential, Request

MAX_ARTIFACTS = 100
"""The number of artifacts of a run that are stored. Each one is a request, a file and an entry in an XCom."""

MAX_NAME_BYTES = 150
"""Bytes of a file's name that are kept: its end, with the suffix. File systems accept 255 bytes."""

_SAFE_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")


def download_request(url: str) -> Request:
    """Return the request that downloads a file. A ``Content-Type`` would be part of what some links are signed for."""
    return Request("GET", url, content_type="", credential=Credential.NONE)


def folder_name(run_id: str) -> str:
    """Return the name of the folder of a run: its id, or a hash of one that is no safe name."""
    return run_id if _SAFE_ID.fullmatch(run_id) else hashlib.sha256(run_id.encode()).hexdigest()


def file_name(number: int, artifact: Any) -> str:
    """Return the name of an artifact's file: its number in the run, so that no two are equal, and its own name."""
    name = str(artifact.get("name") or "artifact") if isinstance(artifact, Mapping) else "artifact"
    safe = re.sub(r"[^\w.-]+", "_", re.split(r"[/\\]", name)[-1])
    return f"{number}_{safe.encode()[-MAX_NAME_BYTES:].decode(errors='ignore')}"


def find_source(artifact: Any, max_size: int) -> tuple[str | None, bytes]:
    """Return the link of an artifact, or None and its content.

    :param max_size: the size limit, in bytes.
    :raises InvalidInput: if it has neither, or states a size above the limit.
    """
    fields = artifact if isinstance(artifact, Mapping) else {}
    if (size := _stated_size(fields)) is not None and size > max_size:
        raise InvalidInput(f"it has {size} bytes, and the limit is {max_size}: see max_answer_mib of the Connection")
    url, content = fields.get("url"), fields.get("content")
    if isinstance(url, str) and url:
        return url, b""
    if isinstance(content, str):
        return None, content.encode()
    raise InvalidInput("it has neither a url nor content")


def check_content(artifact: Mapping[str, Any], size: int, sha256: str) -> None:
    """Check a file against the size and the hash that the platform states, if it states them.

    :param size: of the file, in bytes.
    :param sha256: of the file, in hexadecimal.
    :raises InvalidInput: if they differ.
    """
    stated_size, stated_hash = _stated_size(artifact), str(artifact.get("sha256")).lower()
    if stated_size is not None and size != stated_size:
        raise InvalidInput(f"it has {size} bytes instead of {stated_size}")
    if len(stated_hash) == len(sha256) and stated_hash != sha256:
        raise InvalidInput(f"its sha256 is {sha256} instead of {stated_hash}")


def stored_artifact(artifact: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return an artifact with the path of its file, instead of a link or its content."""
    replaced = ("url", "url_expires_at", "urlExpiresAt", "content")
    return {**{key: value for key, value in artifact.items() if key not in replaced}, "path": path}


def _stated_size(artifact: Mapping[str, Any]) -> float | None:
    return parse_number(next((artifact[key] for key in ("byte_size", "byteSize") if artifact.get(key)), None))
