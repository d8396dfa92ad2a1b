"""A numbered sequence of immutable commits, each created with put-if-absent: ``log/<20 digits>.jsonl``.

The first line of a commit has its id, and the name of its owner if it is a claim; each further line is a record. Every
process applies every commit, its own included, once and in the order of their numbers.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from airflow_provider_aixplain.batch.object_store import ObjectStore

Record = dict[str, Any]

SEGMENT_LENGTH = 500
"""How many commits a segment repeats."""

MAX_READ_AHEAD = 32
"""How many commits are read at the same time, at most."""

_HEADER = b'{"commit":'


class Fenced(Exception):
    """Another process has claimed the batch."""


class CommitLog:
    """The commits of a batch. Its methods may be called from any thread.

    :param store: where they are.
    :param apply: receives each record, once and in order.
    :ivar number: of the next commit.
    :ivar epoch: 1 more than the number of the last claim; 0 if there is none.
    """

    def __init__(self, store: ObjectStore, apply: Callable[[Record], object]) -> None:
        self.store = store
        self._apply_record = apply
        self.number = self.epoch = 0
        self._own_epoch = -1
        self._is_committed: dict[str, bool] = {}  # by the ids of commits whose outcome this process does not know
        self._lock = threading.RLock()

    @property
    def is_fenced(self) -> bool:
        """Whether another process has claimed the batch since this one did, as far as was read."""
        return self.epoch != self._own_epoch

    def catch_up(self) -> None:
        """Apply the commits of other processes.

        :raises Exception: whatever the storage raises.
        """
        with self._lock:
            for lines in self._commits(self.number):
                header, *records = json.loads(b"[" + b",".join(filter(None, lines)) + b"]")
                self._apply(header, records)

    def claim(self, records: Iterable[Record], owner: str, check: Callable[[], object] = lambda: None) -> None:
        """Start an epoch: commands of earlier owners are refused from now on.

        :param owner: who claims, for people.
        :param check: raises an error if this process may not claim. It is called again after the log has grown.
        """
        self.catch_up()
        self._commit(list(records), check, "", {"owner": owner})

    def append(self, records: Iterable[Record], *, fenced: bool, commit_id: str = "") -> None:
        """Commit records, all of them or none.

        :param fenced: whether they are commands, which only the owner of the current epoch may commit.
        :param commit_id: of a call that may have to be repeated, as it raised an error of the storage.
        :raises Fenced: if they are commands of an earlier epoch; they are not committed.
        :raises Exception: whatever the storage raises; they may have been committed.
        """
        self._commit(list(records), self._check_owner if fenced else lambda: None, commit_id, {})

    def _check_owner(self) -> None:
        if self.is_fenced:
            raise Fenced("Another process has taken over the batch")

    def _commit(self, records: list[Record], check: Callable[[], object], commit_id: str, fields: Record) -> None:
        header = {"commit": commit_id or uuid.uuid4().hex, **fields}
        content = b"".join(map(line_of, [header, *records]))
        with self._lock:
            self._is_committed.setdefault(header["commit"], False)
            while not self._is_committed[header["commit"]]:
                check()
                try:
                    self.store.put_if_absent(commit_name(self.number), content)
                except FileExistsError:
                    # It is of another process; or of this one, if the answer to an earlier put was lost.
                    number = self.number
                    self.catch_up()
                    if self.number == number:
                        raise OSError(f"{self.store.uri(commit_name(number))} exists, and cannot be read yet") from None
                else:
                    self._apply(header, records)
                    self._write_segment()
            del self._is_committed[header["commit"]]

    def _apply(self, header: Record, records: list[Record]) -> None:
        is_own = header["commit"] in self._is_committed
        if is_own:
            self._is_committed[header["commit"]] = True
        self.number += 1
        if "owner" in header:
            self.epoch = self.number
            if is_own:
                self._own_epoch = self.epoch
        for record in records:
            self._apply_record(record)

    def is_intact(self) -> bool:
        """Return whether the last commit is still there: the folder of an object storage may have been deleted."""
        with self._lock:
            return not self.number or self.store.get(commit_name(self.number - 1)) is not None

    def read(self) -> Iterator[Record]:
        """Read the records of all commits that were applied until now, in a stream.

        :raises FileNotFoundError: if one was deleted.
        :raises Exception: whatever the storage raises.
        """
        for lines in self._commits(0, self.number):
            yield from map(json.loads, filter(None, lines[1:]))

    def _commits(self, number: int, end: int | None = None) -> Iterator[list[bytes]]:
        """Read the lines of each commit. Nothing is listed: the number after the last one does not exist.

        :param number: of the first one.
        :param end: the number after that of the last one; None: up to the last one that exists.
        """
        ahead = 1
        while end is None or number < end:
            if number % SEGMENT_LENGTH == 0 and self.store.uses_segments:
                for lines in self._segment(number):
                    yield lines
                    number += 1
            limit = MAX_READ_AHEAD if end is None else end - number
            count = min(ahead, MAX_READ_AHEAD, limit, SEGMENT_LENGTH - number % SEGMENT_LENGTH)
            for content in self.store.get_many(list(map(commit_name, range(number, number + count)))):
                if content is None:
                    if end is not None:
                        raise FileNotFoundError(self.store.uri(commit_name(number)))
                    return
                yield content.split(b"\n")
                number += 1
            ahead *= 2

    def _segment(self, number: int) -> Iterator[list[bytes]]:
        """Read a segment, if it exists, and those after it."""
        with suppress(FileNotFoundError):
            while True:
                with self.store.open(segment_name(number)) as file:
                    lines: list[bytes] = []
                    for line in file:
                        if line.startswith(_HEADER) and lines:
                            yield lines
                            lines = []
                        lines.append(line)
                    yield lines
                number += SEGMENT_LENGTH

    def _write_segment(self) -> None:
        """Bundle the last commits, if they are enough. A segment only repeats them, so failures are ignored."""
        if not self.store.uses_segments or self.number % SEGMENT_LENGTH:
            return
        first = self.number - SEGMENT_LENGTH
        with suppress(Exception), self.store.writing(segment_name(first), if_absent=True) as file:
            for start in range(first, self.number, MAX_READ_AHEAD):
                names = map(commit_name, range(start, min(start + MAX_READ_AHEAD, self.number)))
                for content in self.store.get_many(list(names)):
                    if content is None:
                        raise FileNotFoundError
                    file.write(content)


def line_of(record: Record) -> bytes:
    """Return a record as a line of JSON."""
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def commit_name(number: int) -> str:
    """Return the name of a commit."""
    return f"log/{number:020d}.jsonl"


def segment_name(number: int) -> str:
    """Return the name of the segment that begins with a commit."""
    return f"log/{number:020d}-{number + SEGMENT_LENGTH - 1:020d}.jsonl"
