"""Records that are appended, and are there when any process has died: lines of JSON in a file, or in objects."""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_aixplain.batch.storage import ObjectStorage

Record = dict[str, Any]

CLAIM = "owner"
"""The field by which a record says that its writer takes over."""

MERGED = 64
"""How many of its own parts a process makes one of."""

LIST_EVERY = 1.0
"""Seconds for which the parts of others that were listed are not listed again."""


class Journal(ABC):
    """Records that several processes may append.

    :ivar is_superseded: whether somebody else has taken over, or has begun anew. That is seen by
        :meth:`append`, which :meth:`claim` uses as well. So whoever is superseded sees it before a record of his is
        one that his successor does not read.
    """

    is_superseded = False

    is_in_parts = False
    """Whether what is read of it as a whole is in one file only once it was rewritten."""

    @abstractmethod
    def create(self) -> None:
        """Begin anew, with no record."""

    @abstractmethod
    def read(self) -> Iterator[Record]:
        """Read all records. One that its writer did not end, as it was killed, is none; one may come twice."""

    @abstractmethod
    def append(self, records: Iterable[Record]) -> list[Record]:
        """Append records, all of them or, if this raises, perhaps none.

        :return: what others have appended before, and was not told yet; of objects only if somebody has taken over.
        :raises FileNotFoundError: if somebody has deleted the place for them.
        :raises Exception: whatever the storage has for trouble.
        """

    @abstractmethod
    def news(self) -> list[Record]:
        """Return what others have appended and was not told yet."""

    @abstractmethod
    def remember(self) -> None:
        """Count what is there now as told."""

    @abstractmethod
    def rewrite(self, keep: Callable[[Record], bool]) -> None:
        """Remove records, all at once: whoever is killed meanwhile has removed none.

        :param keep: says which stay.
        """

    def claim(self, record: Record) -> None:
        """Take over. What others have appended before they could see it, is there to be read once this returns.

        :param record: tells who does, in the field ``owner``.
        """
        self.remember()
        self.append([record])

    # In an event loop

    async def aappend(self, records: Iterable[Record]) -> list[Record]:
        """As :meth:`append`."""
        return await asyncio.to_thread(self.append, records)

    async def anews(self) -> list[Record]:
        """As :meth:`news`, as of now or of a second ago."""
        return await asyncio.to_thread(self.news)


class FileJournal(Journal):
    """Records in one file.

    :param path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._end = 0

    def __str__(self) -> str:
        """Return where it is."""
        return str(self.path)

    def create(self) -> None:
        # Nobody else makes it: whoever appends late to one that was deleted is told.
        self.path.write_bytes(b"")

    def read(self) -> Iterator[Record]:
        if self.path.exists():
            with self.path.open("rb") as file:
                yield from _records(file)

    def append(self, records: Iterable[Record]) -> list[Record]:
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
            foreign = self._told(descriptor, size, end - len(lines))
            self._end = end
        finally:
            os.close(descriptor)
        return foreign

    def news(self) -> list[Record]:
        size = self.path.stat().st_size
        if size == self._end:
            return []
        with self.path.open("rb") as file:
            found = self._told(file.fileno(), size, size)
        self._end = size
        return found

    def _told(self, descriptor: int, size: int, end: int) -> list[Record]:
        found = []
        if end > self._end:
            found = list(_records(os.pread(descriptor, end - self._end, self._end).splitlines()))
        if size < self._end or any(CLAIM in record for record in found):
            self.is_superseded = True
        return found

    def remember(self) -> None:
        self._end = self.path.stat().st_size

    def rewrite(self, keep: Callable[[Record], bool]) -> None:
        new = self.path.with_suffix(".new")
        with new.open("wb") as file:
            file.writelines(_line(record) for record in self.read() if keep(record))
        os.replace(new, self.path)
        self.remember()

    def claim(self, record: Record) -> None:
        super().claim(record)
        self.is_superseded = False  # whoever has claimed it meanwhile comes before this one

    # A thread would take ten times as long, and the event loop is that of one batch.

    async def aappend(self, records: Iterable[Record]) -> list[Record]:
        return self.append(records)

    async def anews(self) -> list[Record]:
        return self.news()


class ObjectJournal(Journal):
    """Records in an object storage, where nothing can be appended: each call makes a part.

    ``NAME/OWNER/NUMBER.jsonl`` is a part, ``NAME.jsonl`` what was made one of earlier parts. Each process has a folder
    of its own; that of one who takes over comes after all that there are by its name. It appends its claim before it
    reads what others have appended, and they look for later folders after they have appended: so at least one of two
    sees the other, where a storage shows what was written to whoever lists it from then on, as all large ones do.

    :param storage: where.
    :param name: of the journal.
    """

    is_in_parts = True

    def __init__(self, storage: ObjectStorage, name: str) -> None:
        self._storage = storage
        self._name = name
        self._own = ""
        self._count = 0
        self._known: set[str] = set()
        self._listed_at = -math.inf

    def __str__(self) -> str:
        """Return where it is."""
        return self._storage.uri(self._name)

    def create(self) -> None:
        self.remember()
        self._storage.replace(f"{self._name}.jsonl", b"")
        self._put(b"")  # whoever is at it, and goes on to append, sees this folder
        self._storage.remove(self._known)

    def read(self) -> Iterator[Record]:
        with suppress(FileNotFoundError), self._storage.open(f"{self._name}.jsonl", "rb") as file:
            yield from _records(file)
        read: set[str] = set()
        while left := [name for name in _not_merged(self._storage.names(self._name)) if name not in read]:
            for name, content in self._storage.contents(left):
                read.add(name)
                yield from _records(content.splitlines())
            if read.issuperset(left):
                break  # or else somebody has merged the others meanwhile

    def append(self, records: Iterable[Record]) -> list[Record]:
        if not self._own:
            self._join(self._storage.names(self._name))
        self._put(b"".join(map(_line, records)))
        owners = self._storage.folders(self._name)
        if self._own not in owners or max(owners) > self._own:
            self.is_superseded = True
            return self.news()
        if self._count % MERGED == 0:
            with suppress(Exception):  # the records are there; the next time there is no trouble, perhaps
                self._merge()
        return []

    def news(self) -> list[Record]:
        names = self._storage.names(self._name)
        new = [name for name in _not_merged(names) if name not in self._known and not name.startswith(f"{self._own}/")]
        found = dict(self._storage.contents(new))
        self._known.update(found)
        if any(name.rpartition("/")[0] > self._own for name in names):
            self.is_superseded = True
        return [record for content in found.values() for record in _records(content.splitlines())]

    async def anews(self) -> list[Record]:
        now = time.monotonic()
        if now < self._listed_at + LIST_EVERY:
            return []
        found = await super().anews()
        self._listed_at = now
        return found

    def remember(self) -> None:
        names = self._storage.names(self._name)
        self._known = set(names)
        self._join(names)

    def rewrite(self, keep: Callable[[Record], bool]) -> None:
        earlier = self._storage.names(self._name)
        self._storage.replace_by(f"{self._name}.jsonl", (_line(record) for record in self.read() if keep(record)))
        if not self._own:
            self._join(earlier)
        self._put(b"")
        self._storage.remove(earlier)

    def _join(self, names: Iterable[str]) -> None:
        generation = max((int(name.split("/")[-2].split("-")[0]) for name in names), default=0) + 1
        self._own, self._count = f"{self._name}/{generation:06d}-{uuid.uuid4().hex[:8]}", 0

    def _put(self, content: bytes) -> None:
        self._storage.replace(f"{self._own}/{self._count:08d}.jsonl", content)
        self._count += 1

    def _merge(self) -> None:
        first, last = self._count - MERGED, self._count - 1
        names = [f"{self._own}/{number:08d}.jsonl" for number in range(first, last + 1)]
        found = dict(self._storage.contents(names))
        if len(found) == MERGED:
            content = b"".join(found.values())
            self._storage.replace(f"{self._own}/{first:08d}-{last:08d}.jsonl", content)
            self._storage.remove(names)


def _not_merged(names: Iterable[str]) -> list[str]:
    """Return the parts whose records are not in another part, in the order of their folders and then of their making.

    Whoever merges may be killed before what it has merged is deleted.
    """
    told = []
    for name in names:
        owner, _, part = name.rpartition("/")
        first, _, last = part.removesuffix(".jsonl").partition("-")
        told.append((owner, int(first), int(last or first), name))
    merged = {(owner, number) for owner, first, last, _ in told if last > first for number in range(first, last + 1)}
    return [name for owner, first, last, name in sorted(told) if last > first or (owner, first) not in merged]


def _records(lines: Iterable[bytes]) -> Iterator[Record]:
    for line in lines:
        with suppress(ValueError):  # whoever wrote it was killed in the middle
            yield json.loads(line)


def _line(record: Record) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"
