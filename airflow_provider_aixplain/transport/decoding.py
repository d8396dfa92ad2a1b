"""Decompresses answers in bounded memory, with the decoders of ``urllib3``, on workers and in triggers alike."""

from __future__ import annotations

import io
from collections.abc import Iterator

from urllib3 import HTTPResponse

ACCEPTED_CODINGS = "gzip, deflate"
"""What requests ask for. ``requests`` would add what happens to be installed on a machine."""

PIECE = 64 * 1024
"""Bytes that are read at once."""

COMPRESSED_PIECE = 1024
"""The same of a compressed answer: urllib3 before 2.6 unfolds a whole piece, up to a thousandfold."""

_CODINGS = ("gzip", "x-gzip", "deflate")


def select_known_codings(content_encoding: str) -> str:
    """Return the codings of a ``Content-Encoding`` header that are decoded.

    Others are ignored: servers send ``UTF-8``, ``none`` and more, which name no coding.
    """
    return ", ".join(coding for part in content_encoding.split(",") if (coding := part.strip().lower()) in _CODINGS)


def iter_decompressed(response: HTTPResponse) -> Iterator[bytes]:
    """Return the decoded body of an answer, each piece as soon as it has arrived.

    ``requests``' own iterators wait until a piece is full.

    :raises urllib3.exceptions.HTTPError: if the body is cut, or is not in the coding that it names.
    """
    response.headers["Content-Encoding"] = codings = select_known_codings(response.headers.get("Content-Encoding", ""))
    size = COMPRESSED_PIECE if codings else PIECE
    while piece := response.read1(size, decode_content=True):
        yield piece


def decompress(body: bytes, content_encoding: str, most: int) -> bytes:
    """Return a decompressed body, and no more than one byte beyond ``most``.

    :raises urllib3.exceptions.HTTPError: if the body is not in the coding that it names.
    """
    response = HTTPResponse(io.BytesIO(body), {"Content-Encoding": content_encoding}, preload_content=False)
    decoded = bytearray()
    for piece in iter_decompressed(response):
        decoded += piece
        if len(decoded) > most:
            break
    return bytes(decoded[: most + 1])
