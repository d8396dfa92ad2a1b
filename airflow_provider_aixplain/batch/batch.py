"""A batch on its result path: its rows, its commit log, and what is published of it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from airflow_provider_aixplain.batch.commit_log import CommitLog, Fenced, Record, line_of
from airflow_provider_aixplain.batch.ledger import Header, Ledger
from airflow_provider_aixplain.batch.object_store import store_at
from airflow_provider_aixplain.exceptions import AixplainInputError
from airflow_provider_aixplain.inputs.rows import Row, restored, stored

RESULTS = "results.jsonl"
PUBLISHED = (RESULTS, "results.parquet", "manifest.json")


class BatchDeleted(Fenced):
    """The batch was deleted, or a part of it, or another one has begun in its place."""


class Batch:
    """The objects of a batch in its folder.

    ``rows-BATCH.jsonl`` is its input as it is submitted, ``log/`` has everything that happened to it, and
    ``results.jsonl`` is published from that.

    :param uri: of the folder.
    :raises AixplainInputError: if it can have no batch.
    """

    def __init__(self, uri: str) -> None:
        self.store = store_at(uri)
        self.ledger = Ledger()
        self.log = CommitLog(self.store, self._apply)
        self._growing: IO[bytes] | None = None

    def __str__(self) -> str:
        """Return the URI of the folder."""
        return self.store.uri()

    def _apply(self, record: Record) -> None:
        if self.ledger.apply(record) and self._growing:
            with suppress(OSError, ValueError):  # a worker publishes all results at the end
                self._growing.write(line_of(_result_of(record)))
                self._growing.flush()

    def read(self) -> Header | None:
        """Catch up with the log, and return what the batch is about, if one has begun."""
        self.log.catch_up()
        return self.ledger.header

    def begin(self, rows: Iterable[Row], make_header: Callable[[str], Header]) -> Header:
        """Begin a batch, in place of the one that was read, if there is one.

        :param rows: its rows.
        :param make_header: receives the id of the batch once all rows are written.
        :raises AixplainInputError: if the storage has no put-if-absent.
        :raises Fenced: if another worker has begun or resumed one since this one has read the log.
        """
        check, is_restart = self._check_visits(), self.ledger.header is not None
        self.store.make()
        self.store.probe()
        batch = f"{self.ledger.visits + 1}-{uuid.uuid4().hex[:12]}"
        if is_restart:
            self.log.claim([], "a worker that begins another batch", check)  # nothing more is submitted for the old one
        with self.store.writing(_rows_name(batch)) as file:
            file.writelines(stored(rows))
            header = make_header(batch)
        self.log.claim([header.record()], "a worker that begins", check)
        if is_restart:
            for name in PUBLISHED:
                self.store.remove(name)
        return header

    def resume(self) -> Header:
        """Claim the batch that was read.

        :raises Fenced: if another worker has begun or resumed one since.
        """
        header = self.header
        self.log.claim([{"is": "resume", "batch": header.batch}], "a worker that resumes", self._check_visits())
        return header

    def _check_visits(self) -> Callable[[], None]:
        visits = self.ledger.visits

        def check() -> None:
            if self.ledger.visits != visits:
                raise Fenced(f"Another process has begun or resumed a batch at {self}; a retry resumes it")

        return check

    def claim(self, batch: str, owner: str) -> Header:
        """Claim a batch: its previous owner can commit no more commands.

        :param batch: its id.
        :param owner: who claims, for people.
        :raises BatchDeleted: if it was deleted, or another one has begun in its place.
        :raises OSError: if it is not visible yet: NFS may show a folder as it was half a minute ago.
        """

        def check() -> None:
            if self.ledger.header is None:
                raise BatchDeleted(f"The batch at {self} was deleted")
            if self.ledger.batch != batch:
                if self.ledger.visits < int(batch.partition("-")[0]):
                    raise OSError(f"{self}: the batch is not visible yet")
                raise BatchDeleted(f"Another batch has begun at {self}")

        self.log.claim([], owner, check)
        return self.header

    @property
    def header(self) -> Header:
        """What the batch is about, as far as was read."""
        if self.ledger.header is None:
            raise BatchDeleted(f"There is no batch at {self}")
        return self.ledger.header

    def rows(self) -> Iterator[Row]:
        """Read the rows in a stream."""
        with self.store.open(_rows_name(self.header.batch)) as file:
            yield from restored(file)

    def requeue_failed(self) -> int:
        """Let failed rows that may succeed be run again. The cost of their attempts stays in the totals.

        :return: how many there are.
        :raises Fenced: if another process has claimed the batch.
        """
        if again := self.ledger.may_succeed:
            self.log.append([{"is": "requeue", "batch": self.header.batch}], fenced=True)
        return again

    def results(self) -> Iterator[dict[str, Any]]:
        """Read the result of each row that has one, in the order of their ends, in a stream."""
        yield from map(_result_of, filter(self.ledger.winning(), self.log.read()))

    @contextmanager
    def publishing(self, name: str) -> Iterator[IO[bytes]]:
        """Open an object to write bytes in a stream, which replaces the published one at the end.

        :raises Fenced: if another process has claimed the batch; nothing is replaced then.
        """
        with self.store.writing(name) as file:
            yield file
            self._announce(name)

    def publish_results(self) -> tuple[str, int]:
        """Publish one result of each row that has one.

        :return: the error of the first row that has failed, and how many rows have failed with it.
        :raises Fenced: if another process has claimed the batch.
        """
        first, count = "", 0
        with self.publishing(RESULTS) as file:
            for result in self.results():
                if result["error"]:
                    first = first or result["error"]
                    count += result["error"] == first
                file.write(line_of(result))
        return first, count

    def _announce(self, name: str) -> None:
        self.log.append([{"is": "publish", "batch": self.header.batch, "name": name}], fenced=True)

    def publish_growing_results(self) -> None:
        """Publish the results so far, and from now on each result when it is applied, on a file system."""
        self._growing = self.store.grow(RESULTS, map(line_of, self.results()), lambda: self._announce(RESULTS))

    def close(self) -> None:
        """Publish no more results."""
        growing, self._growing = self._growing, None
        if growing:
            with suppress(OSError):
                growing.close()


def read_results(result_path: str) -> Iterator[dict[str, Any]]:
    """Read the results of a batch from its log, also while it runs.

    :param result_path: the URI of its folder, as given to the operator.
    :return: the result of each row that has one so far, as in ``results.jsonl``, in the order of their ends.
    :raises AixplainInputError: if there is no batch.
    """
    batch = Batch(result_path)
    if batch.read() is None:
        raise AixplainInputError(f"result_path is {result_path!r}: there is no batch")
    return batch.results()


def _result_of(record: Record) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "is"}


def _rows_name(batch: str) -> str:
    return f"rows-{batch}.jsonl"
