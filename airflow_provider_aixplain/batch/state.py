"""What a batch has done so far, as its result path tells."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from airflow_provider_aixplain.batch.journal import CLAIM, Journal
from airflow_provider_aixplain.batch.rows import Row, restored, stored
from airflow_provider_aixplain.batch.storage import storage_at
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus
from airflow_provider_aixplain.protocol.values import number, printable, storable

HEADER = "batch.json"
ROWS = "rows.jsonl"


@dataclass(frozen=True)
class Header:
    """What a batch is about; written once its rows are.

    :param fingerprint: of its rows and of where they are submitted.
    :param rows: how many there are.
    :param bad_rows: how many more were no input.
    :param first_bad_rows: the first of those, for people.
    :param started_at: when, in ISO 8601.
    :param batch: its id: what somebody else's batch still writes here counts for nothing.
    """

    fingerprint: str
    rows: int
    bad_rows: int
    first_bad_rows: list[str]
    started_at: str
    batch: str = field(default_factory=lambda: uuid.uuid4().hex[:12])


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

    ``rows.jsonl`` is its input as it is submitted, ``batch.json`` says that this is whole, ``submissions.jsonl`` tells
    what was submitted, and ``results.jsonl`` what became of it: a line for each row, in the order of their ends. In an
    object storage the last two are in parts as long as the batch runs.

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
        content = self.storage.content(HEADER)
        return None if content is None else Header(**json.loads(content))

    def begin(self, rows: Iterable[Row], header: Callable[[], Header]) -> Header:
        """Write the rows, and then what the batch is about. What an earlier batch has left goes.

        :param header: asked once all rows are written.
        """
        self.storage.make()
        self.storage.remove([HEADER])
        with self.storage.open(ROWS, "wb") as file:
            for line in stored(rows):
                file.write(line)
        told = header()
        self.submissions.create()
        self.results.create()
        self.storage.replace(HEADER, json.dumps(asdict(told)).encode())
        return told

    def rows(self) -> Iterator[Row]:
        """Read the rows in a stream."""
        with self.storage.open(ROWS, "rb") as file:
            yield from restored(file)

    def claim(self, batch: str, owner: str) -> None:
        """Say who is at the batch from now on.

        Whoever was before sees it before it writes of another submission. So what it has begun until then is there to
        be read once this returns.
        """
        self.submissions.claim({"batch": batch, CLAIM: owner, "at": time.time()})
        self.results.remember()

    def forget_failed(self, batch: str) -> int:
        """Let rows be run again that failed and may succeed. What they have cost is kept.

        :return: how many there are.
        """
        failed: dict[int, dict[str, Any]] = {}
        settled: set[int] = set()
        for result in self._own(self.results, batch):
            if result["may_succeed"]:
                failed.setdefault(result["row"], result)
            else:
                settled.add(result["row"])
        for row in settled & failed.keys():
            del failed[row]
        if failed:
            spent = Totals()
            for result in failed.values():
                spent.spend(result)
            over = [row for row, result in failed.items() if result["is_known"]]
            told = {"used_credits": spent.credits, "tokens": spent.tokens, "run_time": spent.run_time}
            self.submissions.append([{"batch": batch, "forget": over, "spent": told}])
            self.results.rewrite(lambda result: result["row"] not in failed)
        return len(failed)

    def progress(self) -> Progress:
        """Return where each row is."""
        header = self.header()
        progress = Progress(bytearray(header.rows if header else 0), {}, {}, Totals())
        if header is None:
            return progress
        for result in self._own(self.results, header.batch):
            if not progress.done[result["row"]]:
                progress.done[result["row"]] = 1
                progress.totals.add(result)
        orphans: dict[Any, None] = {}
        for record in self._own(self.submissions, header.batch):
            if "orphan" in record:
                orphans[record["orphan"], record["at"]] = None  # a record may be read twice
            if "spent" in record:
                progress.totals.spend(record["spent"])
            for row in record.get("forget", ()):
                progress.accepted.pop(row, None)
                progress.begun.pop(row, None)
            row = record.get("row")
            if row is None or progress.done[row]:
                continue
            if "url" in record:
                progress.accepted[row] = record["url"], record["at"]
            if record.get("begun"):
                progress.begun[row] = record["at"]
            else:
                progress.begun.pop(row, None)
        progress.totals.orphaned = [key for key, _ in orphans]
        return progress

    def tidy(self, batch: str) -> None:
        """Make ``results.jsonl`` whole, with one result of each row, where two processes have written one each."""
        seen: set[int] = set()
        lines = kept = 0
        for result in self.results.read():
            lines += 1
            if result.get("batch") == batch and result["row"] not in seen:
                seen.add(result["row"])
                kept += 1
        if lines != kept or self.results.is_in_parts:
            self.results.rewrite(lambda result: result.get("batch") == batch and _take(seen, result["row"]))

    @staticmethod
    def _own(journal: Journal, batch: str) -> Iterator[dict[str, Any]]:
        return (record for record in journal.read() if record.get("batch") == batch)


def _take(rows: set[int], row: int) -> bool:
    """Return whether a row is there, and remove it."""
    if row not in rows:
        return False
    rows.remove(row)
    return True
