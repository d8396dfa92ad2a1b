"""What a batch has done so far, as its result path tells."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from operator import itemgetter
from typing import Any

from airflow_provider_aixplain.batch.journal import CLAIM, Journal
from airflow_provider_aixplain.batch.rows import Row, restored, stored
from airflow_provider_aixplain.batch.storage import storage_at
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus
from airflow_provider_aixplain.protocol.values import number, printable, storable
from airflow_provider_aixplain.submission import now


class Superseded(Exception):
    """Somebody else is at this batch now."""


class Deleted(Superseded):
    """Somebody has deleted this batch, or a part of it, or has begun another one in its place."""


@dataclass(frozen=True)
class Header:
    """What a batch is about; written once its rows are.

    :param fingerprint: of its rows and of where they are submitted.
    :param rows: how many there are.
    :param bad_rows: how many more were no input.
    :param first_bad_rows: the first of those, for people.
    :param started_at: when, in ISO 8601.
    :param batch: its id: what somebody else's batch still writes here counts for nothing.
    :param number: how many batches the result path has seen with this one.
    """

    fingerprint: str
    rows: int
    bad_rows: int
    first_bad_rows: list[str]
    started_at: str
    batch: str
    number: int = 1

    @staticmethod
    def name(number: int) -> str:
        """Return the name of the file that tells it."""
        return f"batch-{number}.json"


@dataclass
class Totals:
    """The sums of a batch's results, and of those that were removed to be tried again. Times in seconds.

    :param orphaned: the keys of rows that may have been submitted once more, as nobody learnt what became of the first.
    """

    succeeded: int = 0
    failed: int = 0
    credits: float = 0.0
    tokens: int = 0
    run_time: float = 0.0
    orphaned: list[str | int] = field(default_factory=list)

    def add(self, result: Mapping[str, Any]) -> None:
        """Count one more result."""
        if result["status"] == ResponseStatus.SUCCESS:
            self.succeeded += 1
        else:
            self.failed += 1
        self.spend(result)

    def spend(self, result: Mapping[str, Any]) -> None:
        """Count what a result has cost."""
        self.credits += number(result["used_credits"]) or 0
        self.tokens += int(number(result["tokens"]) or 0)
        self.run_time += number(result["run_time"]) or 0

    @property
    def done(self) -> int:
        """Rows that have a result."""
        return self.succeeded + self.failed


def result_of(
    index: int,
    key: str | int,
    response: ModelResponse | None,
    error: str,
    *,
    may_succeed: bool,
    is_known: bool = True,
) -> dict[str, Any]:
    """Return the line that tells of a row's end.

    :param index: of the row, from 0.
    :param key: the row's.
    :param response: the platform's last answer, if any.
    :param error: what went wrong; empty if nothing did.
    :param may_succeed: whether a later try may have more luck, if something did.
    :param is_known: whether the end of the run is; if not, a later try asks for the same run.
    """
    usage = response.usage if response else None
    return {
        "row": index,
        "key": key,
        "status": str(ResponseStatus.FAILED if error else ResponseStatus.SUCCESS),
        "data": storable(response.data) if response and not error else None,
        "error": printable(error) or None,
        "used_credits": storable(response.used_credits) if response else 0,
        "run_time": storable(response.run_time) if response else 0,
        "tokens": int(number(usage.get("total_tokens")) or 0) if isinstance(usage, Mapping) else 0,
        "ended_at": now(),
        "may_succeed": bool(error) and (may_succeed or not is_known),
        "is_known": is_known,
    }


@dataclass
class Progress:
    """Where each row of a batch is.

    :param done: a byte for each row: 1 if it has a result.
    :param accepted: poll URLs of runs without a result, and when they were submitted, by row.
    :param begun: when submissions were begun of which nothing more is known, in seconds since the epoch, by row.
    :param totals: of the results.
    """

    done: bytearray
    accepted: dict[int, tuple[str, float]]
    begun: dict[int, float]
    totals: Totals


class State:
    """The files of a batch on its result path.

    ``rows-BATCH.jsonl`` is its input as it is submitted, ``batch-NUMBER.json`` says that this is whole,
    ``submissions.jsonl`` tells what was submitted, and ``results.jsonl`` what became of it: a line for each row, in the
    order of their ends. In an object storage the last two are in parts as long as the batch runs.

    The last one that has claimed a batch may remove what is there; any may append what it has learnt.

    :param uri: of its folder.
    :raises AixplainInputError: if no batch can be there.
    """

    def __init__(self, uri: str) -> None:
        self.storage = storage_at(uri)
        self.submissions = self.storage.journal("submissions")
        self.results = self.storage.journal("results")

    def __str__(self) -> str:
        """Return where it is."""
        return self.storage.uri()

    def header(self) -> Header | None:
        """Return what the batch is about, if it has begun."""
        found, number = None, 1
        while (content := self.storage.content(Header.name(number))) is not None:
            found, number = Header(**json.loads(content)), number + 1
        return found

    def begin(self, rows: Iterable[Row], about: Callable[[str, int], Header], earlier: Header | None = None) -> Header:
        """Claim the result path, write the rows, and then what the batch is about.

        :param about: asked for that once all rows are written, with the batch's id and number.
        :param earlier: what the batch is about whose place it takes; that goes, with its results.
        :raises Superseded: if somebody else has begun one.
        """
        batch, number = uuid.uuid4().hex[:12], earlier.number + 1 if earlier else 1
        self.storage.make()
        self.submissions.create()
        self.results.create()
        self.claim(batch, "a worker that begins")  # whoever is at an earlier batch submits no more
        try:
            with self.storage.open(_rows_of(batch), "wb") as file:
                for line in stored(rows):
                    file.write(line)
            header = about(batch, number)
        except BaseException:
            self.storage.remove([_rows_of(batch)])
            raise
        try:
            if earlier:
                with self._owned():
                    self.storage.remove(["results.parquet", "manifest.json"])
            self.storage.create(Header.name(number), json.dumps(asdict(header)).encode())
        except (FileExistsError, Superseded):
            self.storage.remove([_rows_of(batch)])
            raise Superseded(f"Another process has begun a batch at {self}; a retry goes on with it") from None
        if earlier:
            with self._owned():
                self.results.rewrite(lambda result: result.get("batch") != earlier.batch)
            self.storage.remove([_rows_of(earlier.batch)])
        return header

    def rows(self, batch: str) -> Iterator[Row]:
        """Read the rows in a stream."""
        with self.storage.open(_rows_of(batch), "rb") as file:
            yield from restored(file)

    def claim(self, batch: str, owner: str) -> None:
        """Say who is at the batch from now on.

        Whoever was before sees it before it writes of another submission. So what it has begun until then is there to
        be read once this returns.
        """
        self.submissions.claim({"batch": batch, CLAIM: owner, "at": time.time()})
        self.results.remember()

    @contextmanager
    def _owned(self) -> Iterator[None]:
        """Let nobody else claim the batch meanwhile, where that can be.

        :raises Superseded: if somebody else has.
        """
        with self.storage.lock():
            self.submissions.news()
            if self.submissions.is_superseded:
                raise Superseded(f"Another process has taken over the batch at {self}")
            yield

    def forget_failed(self, batch: str) -> int:
        """Let rows be run again that failed and may succeed. What they have cost is kept.

        :return: how many there are.
        """
        with self._owned():
            failed: list[dict[str, Any]] = []
            settled: set[int] = set()
            for result in self._own(self.results, batch):
                if result["may_succeed"]:
                    failed.append(result)
                else:
                    settled.add(result["row"])
            again = {result["row"]: result["is_known"] for result in failed if result["row"] not in settled}
            if failed:
                spent = Totals()
                for result in failed:
                    spent.spend(result)
                told = {
                    "used_credits": spent.credits,
                    "tokens": spent.tokens,
                    "run_time": spent.run_time,
                    # Whoever is killed before they are removed finds the same ones once more.
                    "id": hashlib.sha256(json.dumps(sorted(failed, key=itemgetter("row"))).encode()).hexdigest(),
                }
                over = [row for row, is_known in again.items() if is_known]
                self.submissions.append([{"batch": batch, "forget": over, "spent": told}])
                known = {(result["row"], result["ended_at"]) for result in failed}  # a later one has cost more
                self.results.rewrite(
                    lambda result: result.get("batch") != batch or (result["row"], result["ended_at"]) not in known
                )
        return len(again)

    def ended(self, batch: str) -> Iterator[dict[str, Any]]:
        """Read the results of a batch: one of each row, though two processes may have written one each."""
        return filter(_first_of_each_row(batch), self.results.read())

    def progress(self, header: Header) -> Progress:
        """Return where each row of a batch is."""
        progress = Progress(bytearray(header.rows), {}, {}, Totals())
        for result in self.ended(header.batch):
            progress.done[result["row"]] = 1
            progress.totals.add(result)
        orphans: dict[Any, None] = {}
        spent: dict[str, dict[str, Any]] = {}
        for record in self._own(self.submissions, header.batch):
            if "orphan" in record:
                orphans[record["orphan"], record["at"]] = None  # one that was not known to be written comes twice
            if "spent" in record:
                spent[record["spent"]["id"]] = record["spent"]
            for row in record.get("forget", ()):
                progress.accepted.pop(row, None)
                progress.begun.pop(row, None)
            row = record.get("row")
            if row is None or progress.done[row]:
                continue
            if "url" in record:
                progress.accepted[row] = record["url"], record["at"]
                progress.begun.pop(row, None)
            elif record["begun"]:
                progress.begun[row] = record["at"]
            elif progress.begun.get(row) == record["noted_at"]:  # and not that of one who has taken over since
                del progress.begun[row]
        progress.totals.orphaned = [key for key, _ in orphans]
        for told in spent.values():
            progress.totals.spend(told)
        return progress

    def publish(self, batch: str) -> None:
        """Let ``results.jsonl`` hold one result of each row, and no more.

        :raises Superseded: if somebody else has claimed the batch.
        """
        with self._owned():
            self.results.publish(_first_of_each_row(batch))

    @staticmethod
    def _own(journal: Journal, batch: str) -> Iterator[dict[str, Any]]:
        return (record for record in journal.read() if record.get("batch") == batch)


def _rows_of(batch: str) -> str:
    return f"rows-{batch}.jsonl"


def _first_of_each_row(batch: str) -> Callable[[Mapping[str, Any]], bool]:
    seen: set[int] = set()

    def is_first(result: Mapping[str, Any]) -> bool:
        if result.get("batch") != batch or result["row"] in seen:
            return False
        seen.add(result["row"])
        return True

    return is_first
