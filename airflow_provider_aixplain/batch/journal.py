"""Records that are appended, and are there when any process has died: lines of JSON in a file, or in objects."""

from __future__ import annotations

import asyncio
import errno
import json
import math
import os
import re
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from airflow_provider_aixplain.batch.storage import FileStorage, ObjectStorage

Record = dict[str, Any]

CLAIM = "owner"
"""The field by which a record says that its writer takes over."""

MERGED = 64
"""How many of its own parts a process makes one of."""

LIST_EVERY = 1.0
"""Seconds for which the parts of others that were listed are not listed again."""

REPLACED = "replaced"
"""The field that tells, at the end of a part with all records, which parts it stands for."""

BETWEEN = b"\n"
"""What stands between parts that were merged: an empty line."""


class Journal(ABC):
    """Records that several processes may append.

    :ivar is_superseded: whether somebody else has taken over. That is seen by :meth:`append`, which :meth:`claim` uses
        as well. So whoever is superseded sees it before a record of his is one that his successor does not read.
    """

    is_superseded = False

    @abstractmethod
    def create(self) -> None:
        """Make the place for it, if it is not there."""

    @abstractmethod
    def read(self) -> Iterator[Record]:
        """Read all records, those of one writer in their order. One that its writer did not end, as it was killed, is
        none.

        :raises Exception: whatever the storage has for trouble; and if records are removed meanwhile.
        """

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

    @abstractmethod
    def publish(self, keep: Callable[[Record], bool]) -> None:
        """Let ``NAME.jsonl`` hold nothing but some of the records.

        :param keep: says which.
        """

    def claim(self, record: Record) -> None:
        """Take over. What others have appended before they could see it, is there to be read once this returns.

        :param record: tells who does, in the field ``owner``.
        """
        self.remember()
        self.is_superseded = False
        self.append([record])

    # In an event loop

    async def aappend(self, records: Iterable[Record]) -> list[Record]:
        """As :meth:`append`."""
        return await asyncio.to_thread(self.append, records)

    async def anews(self) -> list[Record]:
        """As :meth:`news`, as of now or of a second ago."""
        return await asyncio.to_thread(self.news)


class FileJournal(Journal):
    """Records in one file. Whoever writes holds the folder's lock: appending is not safe between hosts on all file
    systems. NFS takes that lock from a host that stands still; so what goes on without it must spoil nothing either.

    :param storage: where.
    :param name: of the journal.
    """

    def __init__(self, storage: FileStorage, name: str) -> None:
        self._storage = storage
        self._lock = storage.lock
        self._name = f"{name}.jsonl"
        self.path = storage.folder / self._name
        self._file = self._end = 0

    def __str__(self) -> str:
        """Return where it is."""
        return str(self.path)

    def create(self) -> None:
        # Nobody else makes it: whoever appends late to one that was deleted is told.
        self.path.touch()

    def read(self) -> Iterator[Record]:
        if self.path.exists():
            with self.path.open("rb") as file:
                yield from _records(file)

    def append(self, records: Iterable[Record]) -> list[Record]:
        lines = b"".join(map(_line, records))
        # Not at a place that was looked up before: that may be written by now.
        with self._lock(), open(self.path, "r+b", buffering=0, opener=_at_the_end) as file:
            if (size := file.seek(0, os.SEEK_END)) and os.pread(file.fileno(), 1, size - 1) != b"\n":
                lines = b"\n" + lines  # the last line's writer was killed in the middle of it
            if (written := file.write(lines)) < len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
            end = file.tell()
            told = self._told(file, end - written)
            self._end = end
        return told

    def news(self) -> list[Record]:
        with self.path.open("rb") as file:
            return self._told(file)

    def _told(self, file: IO[bytes], end: int | None = None) -> list[Record]:
        """Read on.

        :param end: where what the caller has appended begins.
        """
        found = os.fstat(file.fileno())
        end = found.st_size if end is None else end
        if found.st_ino != self._file or end < self._end:
            self.is_superseded = self.is_superseded or self._file != 0  # records were removed
            self._file, self._end = found.st_ino, 0
        new = os.pread(file.fileno(), end - self._end, self._end)
        new = new[: new.rfind(b"\n") + 1]  # one who does not hold the lock may see a half of a line
        self._end += len(new)
        records = list(_records(new.splitlines()))
        if any(CLAIM in record for record in records):
            self.is_superseded = True
        return records

    def remember(self) -> None:
        with self._lock():
            found = self.path.stat()
        self._file, self._end = found.st_ino, found.st_size

    def rewrite(self, keep: Callable[[Record], bool]) -> None:
        with self._lock():
            before = self.path.stat()
            with self._storage.writing(self._name) as file:
                file.writelines(_line(record) for record in self.read() if keep(record))
                now = self.path.stat()
                if (now.st_ino, now.st_size) != (before.st_ino, before.st_size):
                    raise OSError(f"{self}: somebody else has written while records were removed")
            self.remember()

    def publish(self, keep: Callable[[Record], bool]) -> None:
        self.rewrite(keep)

    def claim(self, record: Record) -> None:
        with self._lock():
            super().claim(record)

    # A thread would take ten times as long, and the event loop is that of one batch.

    async def aappend(self, records: Iterable[Record]) -> list[Record]:
        return self.append(records)

    async def anews(self) -> list[Record]:
        return self.news()


class ObjectJournal(Journal):
    """Records in an object storage, where nothing can be appended: each call makes a part, which nobody changes.

    Each process has a folder of its own for its parts; that of one who takes over comes after all that there are by its
    name. It appends its claim before it reads what others have appended, and they look for later folders after they
    have appended: so at least one of two sees the other, where a storage shows what was written to whoever lists it
    from then on, as all large ones do.

    Records are removed by a part with all that stay, which tells which parts it stands for. Each such has the number
    after the last one's, and of two who make the same one succeeds. So what counts is told by what is there, and what
    is deleted has counted no longer before: a process may be killed, or stand still for hours and go on, at any moment.

    :param storage: where.
    :param name: of the journal.
    """

    def __init__(self, storage: ObjectStorage, name: str) -> None:
        self._storage = storage
        self._name = name
        self._own = ""
        self._count = 0
        self._known: set[_Number] = set()
        self._listed_at = -math.inf

    def __str__(self) -> str:
        """Return where it is."""
        return self._storage.uri(self._name)

    def create(self) -> None:
        """Do nothing: folders are but names there."""

    def read(self) -> Iterator[Record]:
        return self._read(set())

    def _read(self, read: set[_Number]) -> Iterator[Record]:
        """Read all records.

        :param read: takes which parts were read, or count no longer.
        """
        whole, missing = 0, None
        while True:
            names = self._storage.names(self._name)
            if (latest := self._whole(names)) != whole:
                if read:
                    raise OSError(f"{self}: records were removed while they were read")
                whole = latest
                yield from self._read_whole(whole, read)
            left = [part for part in self._parts(names) if not part.numbers <= read]
            if not left:
                return
            for part, content in self._contents(left):
                if content is None:  # it was merged meanwhile: another one has its records
                    if part == missing:
                        raise OSError(f"{self._storage.uri(part.name)} is listed, and is not there")
                    missing = part
                    break
                yield from part.unread(content, read)

    def _read_whole(self, number: int, read: set[_Number]) -> Iterator[Record]:
        try:
            with self._storage.open(self._whole_name(number)) as file:
                for record in _records(file):
                    if REPLACED in record:
                        read.update((owner, number) for owner, number in record[REPLACED])
                    else:
                        yield record
        except FileNotFoundError:
            raise OSError(f"{self}: records were removed while they were read") from None

    def append(self, records: Iterable[Record]) -> list[Record]:
        if not self._own:
            self._join(self._listed())
        if not (lines := b"".join(map(_line, records))):
            return self.news()
        self._storage.replace(self._next(), lines)
        parts = self._listed()
        owners = {part.owner for part in parts}
        if self._own not in owners or max(owners) > self._own:
            self.is_superseded = True
            return self._told(parts)
        if self._count % MERGED == 0:
            with suppress(Exception):  # the records are there; the next time there is no trouble, perhaps
                self._merge()
        return []

    def news(self) -> list[Record]:
        parts = self._listed()
        if any(part.owner > self._own for part in parts):
            self.is_superseded = True
        return self._told(parts)

    def _told(self, parts: list[_Part]) -> list[Record]:
        new = [part for part in parts if part.owner != self._own and not part.numbers <= self._known]
        if not new:
            return []
        told: list[Record] = []
        known = set(self._known)  # if one cannot be read, the others are to be told yet too
        for part, content in self._contents(new):
            if content is not None:
                told += part.unread(content, known)
        self._known = known
        return told

    async def anews(self) -> list[Record]:
        now = time.monotonic()
        if now < self._listed_at + LIST_EVERY:
            return []
        found = await super().anews()
        self._listed_at = now
        return found

    def remember(self) -> None:
        parts = self._listed()
        self._known = {number for part in parts for number in part.numbers}
        self._join(parts)

    def rewrite(self, keep: Callable[[Record], bool]) -> None:
        number = self._whole(self._storage.names(self._name)) + 1
        read: set[_Number] = set()

        def lines() -> Iterator[bytes]:
            yield from (_line(record) for record in self._read(read) if keep(record))
            yield _line({REPLACED: sorted(read)})

        try:
            with self._storage.writing(self._whole_name(number), is_new=True) as file:
                file.writelines(lines())
        except FileExistsError:
            raise OSError(f"{self}: somebody else has removed records meanwhile") from None
        over = [part.name for part in self._listed() if part.numbers <= read]
        self._storage.remove([*over, *map(self._whole_name, range(1, number))])

    def publish(self, keep: Callable[[Record], bool]) -> None:
        with self._storage.writing(f"{self._name}.jsonl") as file:
            file.writelines(_line(record) for record in self.read() if keep(record))

    def _listed(self) -> list[_Part]:
        return self._parts(self._storage.names(self._name))

    def _parts(self, names: Iterable[str]) -> list[_Part]:
        return sorted(part for part in map(_Part.named, names) if part)

    def _whole(self, names: Iterable[str]) -> int:
        """Return the number of the last part with all records; 0 if there is none."""
        found = (re.fullmatch(r"[^/]+/all-(\d+)\.jsonl", name) for name in names)
        return max((int(match[1]) for match in found if match), default=0)

    def _whole_name(self, number: int) -> str:
        return f"{self._name}/all-{number:06d}.jsonl"

    def _contents(self, parts: list[_Part]) -> Iterator[tuple[_Part, bytes | None]]:
        return zip(parts, self._storage.contents([part.name for part in parts]), strict=True)

    def _join(self, parts: list[_Part]) -> None:
        generation = max((int(part.owner.partition("-")[0]) for part in parts), default=0) + 1
        self._own, self._count = f"{generation:06d}-{uuid.uuid4().hex[:8]}", 0

    def _next(self) -> str:
        self._count += 1
        return self._part_name(f"{self._count - 1:08d}")

    def _part_name(self, numbers: str) -> str:
        return f"{self._name}/{self._own}/{numbers}.jsonl"

    def _merge(self) -> None:
        first, last = self._count - MERGED, self._count - 1
        names = [self._part_name(f"{number:08d}") for number in range(first, last + 1)]
        found = [content for content in self._storage.contents(names) if content is not None]
        if len(found) == MERGED:
            self._storage.replace(self._part_name(f"{first:08d}-{last:08d}"), BETWEEN.join(found))
            self._storage.remove(names)


_Number = tuple[str, int]
"""The owner of a part, and its number."""


class _Part(NamedTuple):
    """``NAME/OWNER/NUMBER.jsonl``; or several in one, ``NAME/OWNER/FIRST-LAST.jsonl``, an empty line between two."""

    owner: str
    first: int
    last: int
    name: str

    @classmethod
    def named(cls, name: str) -> _Part | None:
        """Return the part that has a name, if it is that of one: others may put things there too."""
        if found := re.fullmatch(r"[^/]+/(\d+-\w+)/(\d+)(?:-(\d+))?\.jsonl", name):
            owner, first, last = found.groups()
            return cls(owner, int(first), int(last or first), name)
        return None

    @property
    def numbers(self) -> set[_Number]:
        return {(self.owner, number) for number in range(self.first, self.last + 1)}

    def unread(self, content: bytes, read: set[_Number]) -> Iterator[Record]:
        """Read what was not read yet."""
        for number, text in enumerate(content.split(b"\n" + BETWEEN), self.first):
            if (self.owner, number) not in read:
                read.add((self.owner, number))
                yield from _records(text.splitlines())


def _at_the_end(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_APPEND)


def _records(lines: Iterable[bytes]) -> Iterator[Record]:
    for line in lines:
        with suppress(ValueError):  # whoever wrote it was killed in the middle
            yield json.loads(line)


def _line(record: Record) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"
