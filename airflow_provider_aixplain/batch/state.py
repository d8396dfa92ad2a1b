"""What a batch has done so far, as its result path tells."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from airflow_provider_aixplain.batch.journal import Journal
from airflow_provider_aixplain.batch.rows import Row, restored, stored
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus
from airflow_provider_aixplain.protocol.values import number, printable, storable


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
    """The files of a batch in its folder.

    ``rows.jsonl`` is its input as it is submitted, ``batch.json`` says that this is whole, ``submissions.jsonl`` tells
    what was submitted, and ``results.jsonl`` what became of it: a line for each row, in the order of their ends.

    :param folder: on a file system.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.submissions = Journal(folder / "submissions.jsonl")
        self.results = Journal(folder / "results.jsonl")
        self._rows = folder / "rows.jsonl"
        self._header = folder / "batch.json"

    def header(self) -> Header | None:
        """Return what the batch is about, if it has begun."""
        if not self._header.exists():
            return None
        return Header(**json.loads(self._header.read_text(encoding="utf-8")))

    def begin(self, rows: Iterable[Row], header: Callable[[], Header]) -> Header:
        """Write the rows, and then what the batch is about. What an earlier batch has left goes.

        :param header: asked once all rows are written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._header.unlink(missing_ok=True)
        with self._rows.open("wb") as file:
            for line in stored(rows):
                file.write(line)
        told = header()
        self.submissions.create()
        self.results.create()
        new = self._header.with_suffix(".new")
        new.write_text(json.dumps(asdict(told)), encoding="utf-8")
        os.replace(new, self._header)
        return told

    def rows(self) -> Iterator[Row]:
        """Read the rows in a stream."""
        with self._rows.open("rb") as file:
            yield from restored(file)

    def claim(self, batch: str, owner: str) -> None:
        """Say who is at the batch from now on.

        Whoever was before sees it before it writes of another submission. So what it has begun until then is there to
        be read once this returns.
        """
        self.submissions.remember()
        self.submissions.append([{"batch": batch, "owner": owner, "at": time.time()}])
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
        for record in self._own(self.submissions, header.batch):
            if "orphan" in record:
                progress.totals.orphaned.append(record["orphan"])
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
        return progress

    def tidy(self, batch: str) -> None:
        """Leave one result of each row, where two processes have written one each."""
        seen: set[int] = set()
        lines = kept = 0
        for result in self.results.read():
            lines += 1
            if result.get("batch") == batch and result["row"] not in seen:
                seen.add(result["row"])
                kept += 1
        if lines != kept:
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
