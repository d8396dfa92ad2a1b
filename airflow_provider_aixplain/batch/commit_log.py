"""A numbered sequence of immutable commits, each created with put-if-absent: ``log/<20 digits>.jsonl``.

The first line of a commit holds its id and, if the commit is a claim, the name of the owner; each further line is a
record. Every process applies every commit, its own included, once and in order.
"""

from __future__ import annotations

import json
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from airflow_provider_aixplain.batch.object_store import ObjectStore

Record = dict[str, Any]

SEGMENT_LENGTH = 500
"""The number of commits that a segment repeats."""

MAX_READ_AHEAD = 32
"""The maximum number of commits that are read concurrently."""


class Fenced(Exception):
    """Another process has claimed the batch."""


class CommitLog:
    """The commits of a batch. Its methods may be called from any thread.

    :param store: the store of the commits.
    :param apply: receives each record, once and in order.
    :ivar number: the number of the next commit.
    :ivar epoch: the number of the last claim plus 1; 0 if there is none.
    """

    def __init__(self, store: ObjectStore, apply: Callable[[Record], object]) -> None:
        self.store = store
        self._apply_record = apply
        self.number = self.epoch = 0
        self._own_epoch = -1
        self._is_committed: dict[str, bool] = {}  # by the ids of the commits that this process tries to put
        self._lock = threading.RLock()

    @property
    def is_fenced(self) -> bool:
        """Whether another process has claimed the batch since this one did, according to the commits read so far."""
        return self.epoch != self._own_epoch

    def catch_up(self) -> None:
        """Apply the commits of other processes.

        :raises Exception: any error of the storage.
        """
        with self._lock:
            for commit in self._commits(self.number):
                self._apply(*json.loads(commit))

    def claim(self, records: list[Record], owner: str, check: Callable[[], object] = lambda: None) -> None:
        """Start an epoch: commands of earlier owners are refused from now on.

        :param records: records to commit together with the claim.
        :param owner: the name of the new owner, for people who read the log.
        :param check: raises an error if this process may not claim. It is called before each put, when all
            earlier commits are applied.
        """
        self.catch_up()
        self._commit(records, check, "", {"owner": owner})

    def append(self, records: list[Record], *, fenced: bool, commit_id: str = "") -> None:
        """Commit records, all of them or none.

        :param fenced: whether the records are commands, which only the owner of the current epoch may commit.
        :param commit_id: the same id for each call that retries a commit after a storage error.
        :raises Fenced: if the records are commands of an earlier epoch; they are not committed.
        :raises Exception: any error of the storage; the records may have been committed.
        """
        self._commit(records, self._check_owner if fenced else lambda: None, commit_id, {})

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
                    # Another process created it, or an earlier put of this process did whose answer was lost.
                    number = self.number
                    self.catch_up()
                    if self.number == number:
                        raise OSError(f"{self.store.uri(commit_name(number))} exists, and cannot be read yet") from None
                else:
                    self._apply(header, *records)
                    self._write_segment()
            del self._is_committed[header["commit"]]

    def _apply(self, header: Record, *records: Record) -> None:
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
        """Return whether the last commit still exists: a folder in object storage may have been deleted."""
        with self._lock:
            return not self.number or self.store.get_many([commit_name(self.number - 1)]) != [None]

    def read(self) -> Iterator[Record]:
        """Read the records of all commits that this process has applied, in a stream.

        :raises FileNotFoundError: if a commit was deleted.
        :raises Exception: any error of the storage.
        """
        for commit in self._commits(0, self.number):
            yield from json.loads(commit)[1:]

    def _commits(self, number: int, end: int = sys.maxsize) -> Iterator[bytes]:
        """Read each commit as one line with a JSON array, as in a segment. Nothing is listed: the first number without
        an object ends the log.

        :param number: the number of the first commit.
        :param end: the number after that of the last commit; default: all commits that exist.
        """
        ahead = 1
        while number < end:
            first = number
            if not number % SEGMENT_LENGTH and number + SEGMENT_LENGTH <= end and not self.store.is_file_system:
                with suppress(FileNotFoundError), self.store.open(segment_name(number)) as file:
                    for commit in file:
                        yield commit
                        number += 1
            if number > first:
                continue
            count = min(ahead, MAX_READ_AHEAD, SEGMENT_LENGTH - number % SEGMENT_LENGTH, end - number)
            for content in self.store.get_many(list(map(commit_name, range(number, number + count)))):
                if content is None:
                    if end < sys.maxsize:
                        raise FileNotFoundError(self.store.uri(commit_name(number)))
                    return
                yield b"[%b]\n" % b",".join(content.splitlines())
                number += 1
            ahead *= 2

    def _write_segment(self) -> None:
        """Bundle the last 500 commits, if their number is complete. Errors are ignored: a segment only repeats them."""
        if self.store.is_file_system or self.number % SEGMENT_LENGTH:
            return
        first = self.number - SEGMENT_LENGTH
        with suppress(Exception), self.store.writing(segment_name(first), if_absent=True) as file:
            file.writelines(self._commits(first, self.number))


def line_of(record: Record) -> bytes:
    """Return a record as a line of JSON."""
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def commit_name(number: int) -> str:
    """Return the name of a commit."""
    return f"log/{number:020d}.jsonl"


def segment_name(number: int) -> str:
    """Return the name of the segment that begins with a commit."""
    return f"log/{number:020d}-{number + SEGMENT_LENGTH - 1:020d}.jsonl"
