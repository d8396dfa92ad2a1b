"""What a batch has done so far, as its result path tells."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from typing import IO, Any, NamedTuple

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
    """What a batch is about.

    Each worker that begins a batch, or goes on with one, writes it in a file of its own, with the number after the last
    one's. Of two that write the same one, one goes on: so nobody begins another batch late in the place of one that has
    gone on.

    :param fingerprint: of its rows and of where they are submitted.
    :param rows: how many there are.
    :param bad_rows: how many more were no input.
    :param first_bad_rows: the first of those, for people.
    :param started_at: when, in ISO 8601.
    :param batch: its id: what somebody else's batch still writes here counts for nothing.
    :param number: of the file.
    :param worker: who wrote it. Two must not write the same: whoever finds what he has written takes it for his own.
    """

    fingerprint: str
    rows: int
    bad_rows: int
    first_bad_rows: list[str]
    started_at: str
    batch: str
    number: int = 1
    worker: str = ""

    @staticmethod
    def name(number: int) -> str:
        """Return the name of the file that tells it."""
        return f"batch-{number}.json"


class Cost(NamedTuple):
    """What a run has cost, and how many seconds it took."""

    credits: float
    tokens: int
    run_time: float

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> Cost:
        """Return what a result tells of it."""
        return cls(
            number(result["used_credits"]) or 0, int(number(result["tokens"]) or 0), number(result["run_time"]) or 0
        )


class Failed(NamedTuple):
    """The end of an attempt that failed.

    :param ended_at: when that was known, in ISO 8601.
    :param may_succeed: whether a retry tries the row again.
    :param is_known: whether the end of its run is.
    :param cost: what it has cost.
    """

    ended_at: str
    may_succeed: bool
    is_known: bool
    cost: Cost


@dataclass
class Totals:
    """The sums of a batch's results, and the costs of failed attempts that were repeated. Times are in seconds.

    Numbers are added as they are written, in decimal: 0.1 and 0.2 are 0.3.
    """

    succeeded: int = 0
    failed: int = 0
    tokens: int = 0
    _credits: Decimal = Decimal(0)
    _run_time: Decimal = Decimal(0)

    def spend(self, cost: Cost) -> None:
        """Count what a run has cost."""
        self._credits += Decimal(str(cost.credits))
        self._run_time += Decimal(str(cost.run_time))
        self.tokens += cost.tokens

    @property
    def credits(self) -> float:
        """Credits that were spent."""
        return float(self._credits)

    @property
    def run_time(self) -> float:
        """Seconds that the runs took."""
        return float(self._run_time)

    @property
    def done(self) -> int:
        """Rows that have a result."""
        return self.succeeded + self.failed


def result_of(
    index: int,
    key: str | int,
    attempt: float,
    response: ModelResponse | None,
    error: str,
    *,
    may_succeed: bool,
    is_known: bool = True,
    columns: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the line that tells of a row's end.

    :param index: of the row, from 0.
    :param key: the row's.
    :param attempt: what it came of.
    :param response: the platform's last answer, if any.
    :param error: what went wrong; empty if nothing did.
    :param may_succeed: whether a later attempt may have more luck, if something did.
    :param is_known: whether the end of the run is; if not, a retry asks for the same run.
    :param columns: of the input, which the line repeats as ``input``, if there are any.
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
        "attempt": attempt,
        "may_succeed": bool(error) and (may_succeed or not is_known),
        "is_known": is_known,
        **({"input": columns} if columns else {}),
    }


@dataclass(init=False)
class Progress:
    """Where each row of a batch is.

    An attempt is a submission of a row, named by the time when it was begun, in seconds since the epoch. Several of one
    row may be open, where one stood still and another one took over: each record tells of its own attempt, and of no
    other. A success counts whenever it comes. A failure counts if its attempt is not over, and no other one is open.

    :param done: a byte for each row: 1 if it has a result.
    :param accepted: poll URLs of runs, by their attempts, by row.
    :param begun: attempts of which nothing more is known, by row.
    :param failed: the failures that count, by row.
    :param totals: of the results.
    """

    done: bytearray
    accepted: dict[int, dict[float, str]]
    begun: dict[int, set[float]]
    failed: dict[int, Failed]
    totals: Totals

    def __init__(self, rows: int) -> None:
        self.done = bytearray(rows)
        self.accepted, self.begun, self.failed = {}, {}, {}
        self.totals = Totals()
        self._orphaned: dict[tuple[int, float], str | int] = {}  # whoever is killed, the next one tells it again
        self._over: set[tuple[int, float]] = set()

    @classmethod
    def told(
        cls, rows: int, results: Iterable[Mapping[str, Any]], submissions: Iterable[Mapping[str, Any]]
    ) -> Progress:
        """Return what records tell.

        :param rows: how many the batch has.
        :param results: in any order.
        :param submissions: those of one writer in their order. They are read after the results, so that what is done
            takes no memory.
        """
        progress = cls(rows)
        failures: dict[tuple[int, float], Failed] = {}
        for result in results:
            named = result["row"], result["attempt"]
            if progress.heed_success(result):
                continue
            if named not in failures or (failures[named].may_succeed and result["is_known"]):
                failures[named] = Failed(result["ended_at"], result["may_succeed"], result["is_known"], Cost.of(result))
        for record in submissions:
            if CLAIM not in record:
                progress.heed(record)
        for (row, attempt), failed in failures.items():
            if failed.is_known:
                progress.close(row, attempt)
        for (row, attempt), failed in sorted(failures.items()):
            if not progress.done[row] and (row, attempt) not in progress._over and progress.open(row) <= {attempt}:
                progress.failed[row] = failed
                progress.end(row, succeeded=False, cost=failed.cost)
        for row in filter(progress.done.__getitem__, [*progress.accepted, *progress.begun]):
            progress.accepted.pop(row, None)
            progress.begun.pop(row, None)
        return progress

    def open(self, row: int) -> set[float]:
        """Return the attempts of a row that may have led to a run whose end is not known."""
        return self.begun.get(row, set()) | set(self.accepted.get(row, ()))

    def take(self, row: int) -> tuple[float, str] | None:
        """Return an attempt of a row that was accepted, and its poll URL, if there is one; it is gone then."""
        if not (runs := self.accepted.get(row)):
            return None
        attempt = max(runs)
        url = runs[attempt]
        self.close(row, attempt)
        return attempt, url

    def close(self, row: int, attempt: float) -> None:
        """Take note that an attempt is not open any more."""
        self._close_begun(row, attempt)
        if runs := self.accepted.get(row):
            runs.pop(attempt, None)
            if not runs:
                del self.accepted[row]

    def _close_begun(self, row: int, attempt: float) -> None:
        if attempts := self.begun.get(row):
            attempts.discard(attempt)
            if not attempts:
                del self.begun[row]

    @property
    def may_succeed(self) -> int:
        """How many failed rows a retry tries again."""
        return sum(failed.may_succeed for failed in self.failed.values())

    @property
    def orphaned(self) -> list[str | int]:
        """The keys of rows, one for each attempt of which nobody learnt what became of it."""
        return list(self._orphaned.values())

    def heed(self, record: Mapping[str, Any]) -> None:
        """Take note of what is told of an attempt."""
        row, attempt = record["row"], record["attempt"]
        if (row, attempt) in self._over:
            return
        match record["is"]:
            case "begun" if not self.done[row] and (row, attempt) not in self._orphaned:
                self.begun.setdefault(row, set()).add(attempt)
            case "accepted" if not self.done[row]:
                self.close(row, attempt)
                self.accepted.setdefault(row, {})[attempt] = record["url"]
            case "not sent":
                self.close(row, attempt)
            case "orphaned":
                self._orphaned[row, attempt] = record["key"]
                self._close_begun(row, attempt)
            case "over":
                self._over.add((row, attempt))
                self.totals.spend(Cost(*record["cost"]))
                self.close(row, attempt)

    def end(self, row: int, *, succeeded: bool, cost: Cost) -> None:
        """Take note of a row's result, if it has none."""
        if self.done[row]:
            return
        self.done[row] = 1
        self.totals.succeeded += succeeded
        self.totals.failed += not succeeded
        self.totals.spend(cost)

    def heed_success(self, result: Mapping[str, Any]) -> bool:
        """Take note of a result, if it is a success; return whether it is."""
        if is_it := bool(result["status"] == ResponseStatus.SUCCESS):
            self.end(result["row"], succeeded=True, cost=Cost.of(result))
        return is_it

    def counting(self) -> Callable[[Mapping[str, Any]], bool]:
        """Return what says of each result whether it is the one of its row that counts."""
        seen = bytearray(len(self.done))

        def counts(result: Mapping[str, Any]) -> bool:
            row = result["row"]
            failed = self.failed.get(row)
            is_it = (
                result["status"] == ResponseStatus.SUCCESS if failed is None else result["ended_at"] == failed.ended_at
            )
            if seen[row] or not is_it:
                return False
            seen[row] = 1
            return True

        return counts


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
        :raises Superseded: if somebody else has begun one, or has gone on with the earlier one.
        """
        number = earlier.number + 1 if earlier else 1
        batch = f"{number}-{uuid.uuid4().hex[:12]}"
        self.storage.make()
        self.submissions.create()
        self.results.create()
        self._claim(batch, "a worker that begins")  # whoever is at an earlier batch submits no more
        with self.storage.writing(_rows_of(batch)) as file:
            file.writelines(stored(rows))
            header = about(batch, number)
        try:
            if earlier:
                with self._owned():
                    self.storage.remove(["results.parquet", "manifest.json"])
            self._put(header)
        except Superseded:
            self.storage.remove([_rows_of(batch)])
            raise
        if earlier:
            with self._owned():
                self.results.rewrite(lambda result: result.get("batch") != earlier.batch)
            self.storage.remove([_rows_of(earlier.batch)])
        return header

    def go_on(self, header: Header) -> Header:
        """Claim a batch that has begun: for a worker that finds it.

        :raises Superseded: if somebody else has, or has begun another one.
        """
        header = replace(header, number=header.number + 1, worker=uuid.uuid4().hex)
        self._put(header)
        return self.claim(header.batch, "a worker that goes on")

    def _put(self, header: Header) -> None:
        try:
            self.storage.create(Header.name(header.number), json.dumps(asdict(header)).encode())
        except FileExistsError:
            told = f"Another process has begun a batch at {self}, or goes on with it; so does a retry"
            raise Superseded(told) from None

    def rows(self, batch: str) -> Iterator[Row]:
        """Read the rows in a stream."""
        with self.storage.open(_rows_of(batch)) as file:
            yield from restored(file)

    def claim(self, batch: str, owner: str) -> Header:
        """Say who is at the batch from now on, and return what it is about.

        Whoever was before sees it before it writes of another submission. So what it has begun until then is there to
        be read once this returns.

        :raises Deleted: if somebody has deleted it, or begun another one.
        :raises OSError: if it is not to be seen yet: NFS may show a folder as it was half a minute ago.
        """
        self._header_of(batch)  # or else whoever is at another one is disturbed
        self._claim(batch, owner)
        return self._header_of(batch)

    def _claim(self, batch: str, owner: str) -> None:
        self.submissions.claim({"batch": batch, CLAIM: owner, "at": time.time()})
        self.results.remember()

    def _header_of(self, batch: str) -> Header:
        header = self.header()
        if header is None:
            raise Deleted(f"Somebody has deleted the batch at {self}")
        if header.batch != batch:
            if header.number < int(batch.partition("-")[0]):
                raise OSError(f"{self}: the batch is not to be seen yet")
            raise Deleted(f"Somebody has begun another batch at {self}")
        return header

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

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file to write bytes in a stream, which is there in the end, all at once.

        :raises Superseded: if somebody else has claimed the batch.
        """
        with ExitStack() as written:
            yield written.enter_context(self.storage.writing(name))
            with self._owned():
                written.close()

    def forget_failed(self, header: Header) -> int:
        """Let rows be run again that failed and may succeed. What they have cost is kept.

        :return: how many there are.
        """
        with self._owned():
            gone, over = set(), []
            for result in self._own(self.results, header):
                if result["may_succeed"]:
                    gone.add((result["row"], result["ended_at"]))  # by name: a late one has cost more
                    if result["is_known"]:
                        told = {name: result[name] for name in ("batch", "row", "attempt")}
                        over.append({**told, "is": "over", "cost": Cost.of(result)})
            if not gone:
                return 0
            again = self.progress(header).may_succeed
            self.submissions.append(over)
            self.results.rewrite(
                lambda result: result.get("batch") != header.batch or (result["row"], result["ended_at"]) not in gone
            )
            return again

    def progress(self, header: Header) -> Progress:
        """Return where each row of a batch is."""
        return Progress.told(header.rows, self._own(self.results, header), self._own(self.submissions, header))

    def ended(self, header: Header, progress: Progress) -> Iterator[dict[str, Any]]:
        """Read the results of a batch: the one of each row that counts, though two processes may have written one each.

        :param progress: of the batch.
        """
        return filter(progress.counting(), self._own(self.results, header))

    def publish(self, header: Header) -> Progress:
        """Let ``results.jsonl`` hold one result of each row that has one.

        :return: where each row is.
        :raises Superseded: if somebody else has claimed the batch.
        """
        with self._owned():
            progress = self.progress(header)
            counts = progress.counting()

            def stays(result: dict[str, Any]) -> bool:
                if result.get("batch") != header.batch:
                    return False
                if counts(result) or not progress.done[result["row"]]:
                    return True
                # It has come meanwhile, where NFS took the lock: in a file nothing else has it.
                return result["status"] == ResponseStatus.SUCCESS and result["row"] in progress.failed

            self.results.publish(stays)
        return progress

    @staticmethod
    def _own(journal: Journal, header: Header) -> Iterator[dict[str, Any]]:
        return (record for record in journal.read() if record.get("batch") == header.batch)


def _rows_of(batch: str) -> str:
    return f"rows-{batch}.jsonl"
