"""Decompresses answers in bounded memory with the decoders of ``urllib3``, for workers and triggers."""

from __future__ import annotations

import io
from collections.abc import Iterator

from urllib3 import HTTPResponse

ACCEPTED_CODINGS = "gzip, deflate"
"""They must be the same on every machine: by default ``requests`` adds codings for which a package is installed."""

PIECE = 64 * 1024
"""Bytes per read."""

COMPRESSED_PIECE = 1024
"""Bytes per read of a compressed answer: urllib3 before 2.6 decompresses all that it reads, up to a thousandfold."""

_CODINGS = ("gzip", "x-gzip", "deflate")


def select_known_codings(content_encoding: str) -> str:
    """Return the codings of a ``Content-Encoding`` header that can be decoded.

    Other values are ignored: servers send ``UTF-8``, ``none`` and more.
    """
    return ", ".join(coding for part in content_encoding.split(",") if (coding := part.strip().lower()) in _CODINGS)


def iter_decompressed(response: HTTPResponse) -> Iterator[bytes]:
    """Return the decoded body of an answer in pieces, as they arrive. (``requests`` waits until each piece is full.)

    :raises urllib3.exceptions.HTTPError: if the body is cut, or is not in its declared coding.
    """
    response.headers["Content-Encoding"] = codings = select_known_codings(response.headers.get("Content-Encoding", ""))
    size = COMPRESSED_PIECE if codings else PIECE
    while piece := response.read1(size, decode_content=True):
        yield piece


def decompress(body: bytes, content_encoding: str, max_size: int) -> bytes:
    """Return a decompressed body, cut one byte after ``max_size``.

    :raises urllib3.exceptions.HTTPError: if the body is not in its declared coding.
    """
    response = HTTPResponse(io.BytesIO(body), {"Content-Encoding": content_encoding}, preload_content=False)
    decoded = bytearray()
    for piece in iter_decompressed(response):
        decoded += piece
        if len(decoded) > max_size:
            break
    return bytes(decoded[: max_size + 1])
