"""A batch in its folder: its rows, its commit log, and its published results."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import IO, Any

from airflow_provider_aixplain.batch.commit_log import CommitLog, Fenced, Record, line_of
from airflow_provider_aixplain.batch.ledger import Header, Ledger
from airflow_provider_aixplain.batch.object_store import store_at
from airflow_provider_aixplain.exceptions import AixplainInputError
from airflow_provider_aixplain.inputs.rows import Row, decode_rows, encode_rows

RESULTS = "results.jsonl"
PUBLISHED = (RESULTS, "results.parquet", "manifest.json")


class BatchDeleted(Fenced):
    """The batch, or a part of it, was deleted, or another batch has replaced it."""


class Batch:
    """The objects of a batch in its folder.

    ``rows-BATCH.jsonl`` holds the rows to submit, ``log/`` holds all events, and ``results.jsonl`` is published from
    the log.

    :param uri: the URI of the folder.
    :raises AixplainInputError: if the URI cannot hold a batch.
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
        """Read the new commits, and return the header of the batch; None if no batch has begun."""
        self.log.catch_up()
        return self.ledger.header

    def begin(self, rows: Iterable[Row], make_header: Callable[[str], Header]) -> Header:
        """Begin a batch. It replaces the batch that :meth:`read` has returned, if any.

        :param rows: the rows to submit.
        :param make_header: receives the id of the batch once all rows are written.
        :raises AixplainInputError: if the storage does not honour put-if-absent.
        :raises Fenced: if another worker has begun or resumed a batch since :meth:`read`.
        """
        check, is_restart = partial(self._check_generation, self.ledger.generation), self.ledger.header is not None
        self.store.make()
        self.store.probe()
        batch = f"{self.ledger.generation + 1}-{uuid.uuid4().hex[:12]}"
        if is_restart:
            self.log.claim([], "worker (replaces the batch)", check)  # stops submissions of the old batch
        with self.store.writing(_rows_name(batch)) as file:
            file.writelines(encode_rows(rows))
            header = make_header(batch)
        self.log.claim([header.record()], "worker (begins)", check)
        if is_restart:
            for name in PUBLISHED:
                self.store.remove(name)
        return header

    def resume(self) -> Header:
        """Claim the batch that :meth:`read` has returned.

        :raises Fenced: if another worker has begun or resumed a batch since.
        """
        check, header = partial(self._check_generation, self.ledger.generation), self.header
        self.log.claim([{"event": "resume", "batch": header.batch}], "worker (resumes)", check)
        return header

    def _check_generation(self, expected: int) -> None:
        if self.ledger.generation != expected:
            raise Fenced(f"Another process has begun or resumed a batch at {self}; a retry resumes it")

    def claim(self, batch: str, owner: str) -> Header:
        """Claim a batch, so that its previous owner can commit no more commands.

        :param batch: the id of the batch.
        :param owner: the name of the new owner, for people who read the log.
        :raises BatchDeleted: if the batch was deleted or replaced.
        :raises OSError: if the batch is not visible yet. NFS may show a folder in the state of half a minute ago.
        """
        self.log.claim([], owner, partial(self._check_batch, batch))
        return self.header

    def _check_batch(self, batch: str) -> None:
        if self.ledger.header is None:
            raise BatchDeleted(f"The batch at {self} was deleted")
        if self.ledger.batch != batch:
            if self.ledger.generation < int(batch.partition("-")[0]):
                raise OSError(f"{self}: the batch is not visible yet")
            raise BatchDeleted(f"Another batch has begun at {self}")

    @property
    def header(self) -> Header:
        """The header of the batch, according to the commits read so far."""
        if self.ledger.header is None:
            raise BatchDeleted(f"There is no batch at {self}")
        return self.ledger.header

    def rows(self) -> Iterator[Row]:
        """Read the rows in a stream."""
        with self.store.open(_rows_name(self.header.batch)) as file:
            yield from decode_rows(file)

    def requeue_failed(self) -> int:
        """Requeue the failed rows that may succeed in a retry. The cost of their attempts stays in the totals.

        :return: the number of these rows.
        :raises Fenced: if another process has claimed the batch.
        """
        if count := self.ledger.retryable_rows:
            self.log.append([{"event": "requeue", "batch": self.header.batch}], fenced=True)
        return count

    def results(self) -> Iterator[dict[str, Any]]:
        """Read the result of each row that has one, in a stream, in the order of completion."""
        yield from map(_result_of, filter(self.ledger.result_filter(), self.log.read()))

    @contextmanager
    def publishing(self, name: str) -> Iterator[IO[bytes]]:
        """Open an object to write bytes in a stream. It replaces the published object at the end.

        :raises Fenced: if another process has claimed the batch; nothing is replaced then.
        """
        with self.store.writing(name) as file:
            yield file
            self.log.append([{"event": "publish", "batch": self.header.batch, "name": name}], fenced=True)

    def publish_results(self) -> tuple[str, int]:
        """Publish the result of each row that has one.

        :return: the first error, and the number of rows that failed with it.
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

    def publish_growing_results(self) -> None:
        """On a file system, publish the results so far, and append each further result when it is applied."""
        if not self.store.is_file_system:
            return
        with self.publishing(RESULTS) as file:
            file.writelines(map(line_of, self.results()))
            # Not opened by its name: another owner may replace the file, and must not get the lines of this process.
            growing = os.fdopen(os.dup(file.fileno()), "wb")
        self._growing = growing

    def close(self) -> None:
        """Stop appending results."""
        with suppress(OSError):
            if self._growing:
                self._growing.close()
        self._growing = None


def read_results(result_path: str) -> Iterator[dict[str, Any]]:
    """Read the results of a batch from its log, also while it runs.

    :param result_path: the URI of its folder, as passed to the operator; or the ``path`` of its manifest.
    :return: the result of each row that has one so far, as in ``results.jsonl``, in the order of completion.
    :raises AixplainInputError: if there is no batch.
    """
    batch = Batch(result_path.removesuffix(f"/{RESULTS}"))
    if batch.read() is None:
        raise AixplainInputError(f"result_path is {result_path!r}: there is no batch")
    return batch.results()


def _result_of(record: Record) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "event"}


def _rows_name(batch: str) -> str:
    return f"rows-{batch}.jsonl"
