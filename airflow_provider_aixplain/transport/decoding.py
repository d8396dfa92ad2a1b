"""Decompresses answers as they arrive, in bounded memory, with the decoders of ``urllib3``."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence

from urllib3 import HTTPResponse
from urllib3.exceptions import DecodeError
from urllib3.response import ContentDecoder, DeflateDecoder, GzipDecoder

ACCEPTED_CODINGS = "gzip, deflate"
"""They must be the same on every machine: by default ``requests`` adds codings for which a package is installed."""

PIECE = 64 * 1024
"""The largest number of bytes of a piece."""

COMPRESSED_PIECE = 1024
"""Bytes that are decompressed at once, to up to a thousandfold."""

MAX_CODINGS = 5
"""The largest number of codings on top of each other."""

_DECODERS = {"gzip": GzipDecoder, "x-gzip": GzipDecoder, "deflate": DeflateDecoder}


class Decoder:
    """Decodes the pieces of one answer.

    :param content_encoding: the answer's ``Content-Encoding``. Codings that cannot be decoded are ignored: servers send
        ``UTF-8``, ``none`` and more.
    :raises urllib3.exceptions.DecodeError: if there are more than five codings.
    """

    def __init__(self, content_encoding: str) -> None:
        names = (part.strip().lower() for part in content_encoding.split(","))
        codings = [name for name in names if name in _DECODERS]
        if len(codings) > MAX_CODINGS:
            raise DecodeError(f"the answer has {len(codings)} codings")
        self._decoders = [_DECODERS[coding]() for coding in reversed(codings)]

    def decode(self, piece: bytes) -> Iterable[bytes]:
        """Return what a piece of the body decodes to, in pieces of at most 64 KiB.

        :raises urllib3.exceptions.DecodeError: if the body is not in its declared coding.
        """
        return self._decode(piece) if self._decoders or len(piece) > PIECE else (piece,)

    def _decode(self, piece: bytes) -> Iterator[bytes]:
        try:
            yield from _decode(piece, self._decoders)
        except zlib.error as error:
            raise DecodeError(f"the answer is not in its declared coding: {error}") from None


def iter_decompressed(response: HTTPResponse) -> Iterator[bytes]:
    """Return the decoded body of an answer in pieces, as they arrive. (``requests`` waits until each piece is full.)

    :raises urllib3.exceptions.HTTPError: if the body is cut, or is not in its declared coding.
    """
    decoder = Decoder(response.headers.get("Content-Encoding", ""))
    while piece := response.read1(PIECE, decode_content=False):
        yield from decoder.decode(piece)


def _decode(piece: bytes, decoders: Sequence[ContentDecoder]) -> Iterator[bytes]:
    if not decoders:
        for start in range(0, len(piece), PIECE):
            yield piece[start : start + PIECE]
        return
    decoder, *others = decoders
    for start in range(0, len(piece), COMPRESSED_PIECE):
        yield from _decode(decoder.decompress(piece[start : start + COMPRESSED_PIECE]), others)
