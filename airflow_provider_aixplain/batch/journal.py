"""Records that are appended and are there when any process has died: lines of JSON, on a disk or an object storage."""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

LOCAL = ("file", "local", "")
LOOK_EVERY = 1.0
"""Seconds between looks for what others have put into an object storage."""

WHOLE = "-whole.jsonl"
"""The end of the name of a part that stands in the place of all before it."""


class Journal:
    """A file of records that several processes may append to, one after the other.

    On a disk it is one file. An object storage cannot append, so there it is a folder of objects, one for each time
    that something was written, in the order of their names.

    :param folder: where it is.
    :param name: without an ending.
    """

    def __init__(self, folder: ObjectStoragePath, name: str) -> None:
        self.is_local = folder.protocol in LOCAL
        self._path = folder / f"{name}.jsonl"
        self._parts = folder / name
        self._end = 0
        self._known: set[str] = set()
        self._looked_at = -math.inf

    def read(self) -> Iterator[dict[str, Any]]:
        """Read all records. One that its writer did not end, as it was killed, is none."""
        for path in self._files():
            yield from _records_of(path)

    def append(self, records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Append records, all of them or, if this raises, perhaps none.

        :return: what others have appended since :meth:`remember` or the last call.
        """
        lines = b"".join(map(_line, records))
        if not self.is_local:
            return self._append_part(lines)
        descriptor = os.open(self._local, os.O_APPEND | os.O_CREAT | os.O_RDWR, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            foreign = os.pread(descriptor, size - self._end, self._end) if size > self._end else b""
            if foreign and not foreign.endswith(b"\n"):
                lines = b"\n" + lines  # its writer was killed in the middle of a line
            while lines:  # a disk that is nearly full may take a part
                lines = lines[os.write(descriptor, lines) :]
            self._end = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
        return list(_records(foreign.splitlines(keepends=True)))

    def remember(self) -> None:
        """Count what is there now as known."""
        if self.is_local:
            self._end = os.path.getsize(self._local) if os.path.exists(self._local) else 0
        else:
            self._known = set(self._names())

    def rewrite(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Remove records, all at once: whoever is killed meanwhile has removed none.

        :param keep: says which stay.
        """
        old = self._files()
        new = self._parts / f"{time.time_ns():020d}{WHOLE}"
        path = self._path.parent / f"{self._path.name}.new" if self.is_local else new
        with path.open("wb") as file:
            for record in (record for path in old for record in _records_of(path) if keep(record)):
                file.write(_line(record))
        if self.is_local:
            os.replace(path.path, self._local)
        self.remember()

    def merge(self) -> None:
        """Make one file of it, where it is a folder."""
        if self.is_local or not self._parts.exists():
            return
        with self._path.open("wb") as whole:
            for path in self._files():
                whole.write(path.read_bytes())

    def delete(self) -> None:
        """Remove it."""
        for path in [*(self._parts / name for name in self._names()), self._path]:
            path.unlink(missing_ok=True)

    @property
    def _local(self) -> str:
        return str(self._path.path)

    def _append_part(self, lines: bytes) -> list[dict[str, Any]]:
        foreign: list[dict[str, Any]] = []
        if time.monotonic() - self._looked_at > LOOK_EVERY:
            self._looked_at = time.monotonic()
            for name in set(self._names()) - self._known:
                self._known.add(name)
                foreign += _records((self._parts / name).read_bytes().splitlines(keepends=True))
        name = f"{time.time_ns():020d}.jsonl"
        self._parts.mkdir(parents=True, exist_ok=True)
        with (self._parts / name).open("wb") as file:
            file.write(lines)
        self._known.add(name)
        return foreign

    def _names(self) -> list[str]:
        if self.is_local or not self._parts.exists():
            return []
        return sorted(path.name for path in self._parts.iterdir())

    def _files(self) -> list[ObjectStoragePath]:
        if self.is_local:
            return [self._path] if self._path.exists() else []
        names = self._names()
        first = max((index for index, name in enumerate(names) if name.endswith(WHOLE)), default=0)
        return [self._parts / name for name in names[first:]]


def _records_of(path: ObjectStoragePath) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        yield from _records(file)


def _records(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        with suppress(ValueError):  # whoever wrote it was killed in the middle
            yield json.loads(line)


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


class Writer:
    """Appends to a journal from an event loop that is its user's alone.

    A disk is written to at once: that takes less time than to let a thread do it. What many have for an object storage
    at a time goes there at once.

    :param journal: where to.
    :param tell: called with each record that somebody else has appended meanwhile.
    """

    def __init__(self, journal: Journal, tell: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
        self._journal = journal
        self._tell = tell
        self._waiting: list[tuple[dict[str, Any], asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def write(self, record: dict[str, Any]) -> None:
        """Return once a record is written.

        :raises OSError: if it cannot be.
        """
        if self._journal.is_local:
            self._heed(self._journal.append([record]))
            return
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((record, written))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.ensure_future(self._write_all())
        await written

    def _heed(self, records: Iterable[dict[str, Any]]) -> None:
        for record in records:
            self._tell(record)

    async def _write_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            error: Exception | None = None
            try:
                self._heed(await asyncio.to_thread(self._journal.append, [record for record, _ in batch]))
            except Exception as problem:
                error = problem
            for _, written in batch:
                if written.done():
                    continue  # whoever waited for it has been cancelled
                if error is None:
                    written.set_result(None)
                else:
                    written.set_exception(error)
