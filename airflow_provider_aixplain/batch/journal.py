"""Records that are appended to a file, and are there when any process has died: lines of JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

REPLACED: dict[str, Any] = {"replaced": True}
"""Stands for the records that are gone, where somebody has begun the file anew."""


class Journal:
    """A file of records that several processes may append to.

    :param path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._end = 0

    def create(self) -> None:
        """Make the file, empty. Nobody else does: whoever appends late to one that was deleted is told."""
        self.path.write_bytes(b"")

    def read(self) -> Iterator[dict[str, Any]]:
        """Read all records. One that its writer did not end, as it was killed, is none."""
        if self.path.exists():
            with self.path.open("rb") as file:
                yield from _records(file)

    def append(self, records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Append records, all of them or, if this raises, perhaps none.

        :return: what others have appended since :meth:`remember` or the last call, before these.
        :raises OSError: if it cannot be done.
        """
        lines = b"".join(map(_line, records))
        descriptor = os.open(self.path, os.O_APPEND | os.O_RDWR)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                lines = b"\n" + lines  # its writer was killed in the middle of a line
            left = lines
            while left:  # a disk that is nearly full may take a part
                left = left[os.write(descriptor, left) :]
            # Where one's own bytes have landed, the offset tells: others may have written meanwhile.
            end = os.lseek(descriptor, 0, os.SEEK_CUR) if lines else size
            replaced = [REPLACED] if size < self._end else []
            foreign = replaced + _between(descriptor, self._end, end - len(lines))
            self._end = end
        finally:
            os.close(descriptor)
        return foreign

    def news(self) -> list[dict[str, Any]]:
        """Return what others have appended since :meth:`remember`, :meth:`append` or the last call."""
        size = self.path.stat().st_size
        if size <= self._end:
            return [REPLACED] if size < self._end else []
        with self.path.open("rb") as file:
            found = _between(file.fileno(), self._end, size)
        self._end = size
        return found

    def remember(self) -> None:
        """Count what is there now as known."""
        self._end = self.path.stat().st_size

    def rewrite(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Remove records, all at once: whoever is killed meanwhile has removed none.

        :param keep: says which stay.
        """
        new = self.path.with_suffix(".new")
        with new.open("wb") as file:
            for record in self.read():
                if keep(record):
                    file.write(_line(record))
        os.replace(new, self.path)
        self.remember()


def _between(descriptor: int, begin: int, end: int) -> list[dict[str, Any]]:
    return list(_records(os.pread(descriptor, end - begin, begin).splitlines())) if end > begin else []


def _records(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        with suppress(ValueError):  # whoever wrote it was killed in the middle
            yield json.loads(line)


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"
