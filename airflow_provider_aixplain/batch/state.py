"""What a batch has done so far, as its result path tells."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_aixplain.batch.journal import Journal
from airflow_provider_aixplain.batch.rows import Row, restored, stored
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus
from airflow_provider_aixplain.protocol.values import number, printable, storable

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath


@dataclass(frozen=True)
class Header:
    """What a batch is about; written once its rows are.

    :param fingerprint: of its rows and of where they are submitted.
    :param rows: how many there are.
    :param bad_rows: how many more were no input.
    :param first_bad_rows: the first of those, for people.
    :param started_at: when, in ISO 8601.
    """

    fingerprint: str
    rows: int
    bad_rows: int
    first_bad_rows: list[str]
    started_at: str


@dataclass
class Totals:
    """The sums of a batch's results. Times in seconds.

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
        self.credits += number(result["used_credits"]) or 0
        self.tokens += int(number(result["tokens"]) or 0)
        self.run_time += number(result["run_time"]) or 0

    @property
    def done(self) -> int:
        """Rows that have a result."""
        return self.succeeded + self.failed


def result_of(index: int, key: str | int, response: ModelResponse | None, error: str, *, may_succeed: bool) -> Any:
    """Return the line that tells of a row's end.

    :param index: of the row, from 0.
    :param key: the row's.
    :param response: the platform's last answer, if any.
    :param error: what went wrong; empty if nothing did.
    :param may_succeed: whether a later try may have more luck, if something did.
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
        "may_succeed": bool(error) and may_succeed,
    }


@dataclass
class Progress:
    """Where each row of a batch is.

    :param done: a byte for each row: 1 if it has a result.
    :param accepted: poll URLs of runs without a result, by row.
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

    :param folder: an ``ObjectStoragePath``.
    """

    def __init__(self, folder: ObjectStoragePath) -> None:
        self.folder = folder
        self.submissions = Journal(folder, "submissions")
        self.results = Journal(folder, "results")
        self._rows = folder / "rows.jsonl"
        self._header = folder / "batch.json"

    def header(self) -> Header | None:
        """Return what the batch is about, if it has begun."""
        return Header(**json.loads(self._header.read_text())) if self._header.exists() else None

    def begin(self, rows: Iterable[Row], header: Callable[[], Header]) -> Header:
        """Write the rows, and then what the batch is about.

        :param header: asked once all rows are written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._rows.open("wb") as file:
            for line in stored(rows):
                file.write(line)
        told = header()
        self._header.write_text(json.dumps(asdict(told)))
        return told

    def clear(self) -> None:
        """Remove all of an earlier batch."""
        for path in (self._header, self._rows):
            path.unlink(missing_ok=True)
        for journal in (self.submissions, self.results):
            journal.delete()

    def rows(self) -> Iterator[Row]:
        """Read the rows in a stream."""
        with self._rows.open("rb") as file:
            yield from restored(file)

    def forget_failed(self) -> int:
        """Remove the results of rows that may succeed in another try, and what is known of their runs.

        :return: how many there were.
        """
        again = {result["row"] for result in self.results.read() if result["may_succeed"]}
        if again:
            # In this order: whoever is killed in between finds the results again.
            self.submissions.rewrite(lambda record: record.get("row") not in again)
            self.results.rewrite(lambda record: record["row"] not in again)
        return len(again)

    def progress(self) -> Progress:
        """Return where each row is."""
        header = self.header()
        progress = Progress(bytearray(header.rows if header else 0), {}, {}, Totals())
        for result in self.results.read():
            if not progress.done[result["row"]]:
                progress.done[result["row"]] = 1
                progress.totals.add(result)
        for record in self.submissions.read():
            row = record.get("row")
            if "orphan" in record:
                progress.totals.orphaned.append(record["orphan"])
            if row is None or progress.done[row]:
                continue
            if "url" in record:
                progress.accepted[row] = record["url"], record["at"]
                progress.begun.pop(row, None)
            elif record.get("begun"):
                progress.begun[row] = record["at"]
            else:
                progress.begun.pop(row, None)
        return progress
