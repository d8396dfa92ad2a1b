"""The fold of a commit log: where each row of a batch is, and what the batch has cost.

Each submission of a row is an *attempt*, named by the time when its intent was written, in seconds since the epoch. A
row can have several attempts after a takeover, and each record affects only its own. The order in which different
processes report does not matter beyond what ``TRANSITIONS`` accepts.

A row has succeeded once one of its attempts has, whenever that is reported. It has failed if an attempt is ``FAILED``
or ``EXPIRED``, and no other one is ``INTENT`` or ``ACCEPTED``; a late answer opens it again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple

from airflow_provider_aixplain.inputs.rows import Row
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus
from airflow_provider_aixplain.protocol.values import number, printable, storable
from airflow_provider_aixplain.submission import now


class AttemptEvent(str, Enum):
    """What happened to an attempt; also the state in which that leaves it."""

    INTENT = "intent"
    """It is about to be submitted."""
    ACCEPTED = "accepted"
    """The platform has accepted it, and named a poll URL."""
    REJECTED = "rejected"
    """It was not submitted, or the platform has refused it."""
    IN_DOUBT = "in doubt"
    """Its answer was lost, or can no longer come."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Its run is known to have failed, or its submission has."""
    EXPIRED = "expired"
    """The end of its run is not known, as its time is up; a retry asks for the same run."""
    CLOSED = "closed"
    """It has failed, and the row was requeued."""


E = AttemptEvent
OPEN = frozenset({E.INTENT, E.ACCEPTED})
"""States in which an attempt may still get a result."""

UNKNOWN = frozenset({*OPEN, E.IN_DOUBT})
"""States in which the cost of an attempt is not known."""

TRANSITIONS: dict[AttemptEvent | None, frozenset[AttemptEvent]] = {
    None: frozenset({E.INTENT, E.ACCEPTED, E.IN_DOUBT, E.SUCCEEDED, E.FAILED, E.EXPIRED}),
    E.INTENT: frozenset({E.ACCEPTED, E.REJECTED, E.IN_DOUBT, E.SUCCEEDED, E.FAILED, E.EXPIRED}),
    E.IN_DOUBT: frozenset({E.ACCEPTED, E.REJECTED, E.SUCCEEDED, E.FAILED, E.EXPIRED}),
    E.ACCEPTED: frozenset({E.SUCCEEDED, E.FAILED, E.EXPIRED}),
    E.EXPIRED: frozenset({E.SUCCEEDED, E.FAILED}),
    E.FAILED: frozenset({E.SUCCEEDED}),
    E.CLOSED: frozenset({E.SUCCEEDED}),
}
"""The events that an attempt in each state accepts; None: an attempt that is not known. Others change nothing."""


class Cost(NamedTuple):
    """What a run has cost, and how many seconds it took."""

    credits: float
    tokens: int
    run_time: float

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> Cost:
        """Return the cost that a result states."""
        credits, tokens, run_time = (number(result[name]) or 0 for name in ("used_credits", "tokens", "run_time"))
        return cls(credits, int(tokens), run_time)


@dataclass
class Totals:
    """The sums of a batch's results and of failed attempts that were repeated. Times in seconds.

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


@dataclass(frozen=True)
class Header:
    """What a batch is about.

    :param batch: its id.
    :param fingerprint: of its rows and of where they are submitted.
    :param rows: how many there are.
    :param bad_rows: how many more could not be used as input.
    :param first_bad_rows: the first of those, for people.
    :param started_at: when, in ISO 8601.
    """

    batch: str
    fingerprint: str
    rows: int
    bad_rows: int
    first_bad_rows: list[str]
    started_at: str

    def record(self) -> dict[str, Any]:
        """Return the record that begins the batch."""
        return {"is": "begin", **asdict(self)}


@dataclass
class Attempt:
    """A submission of a row.

    :param state: the last event.
    :param url: where its run is polled, once it was accepted.
    :param ended_at: of the result that reported its failure.
    :param may_succeed: whether a retry repeats the row, if it has failed.
    """

    state: AttemptEvent
    url: str = ""
    ended_at: str = ""
    may_succeed: bool = False


def make_result(
    index: int,
    row: Row,
    attempt: float,
    response: ModelResponse | None,
    error: str,
    *,
    may_succeed: bool,
    is_known: bool = True,
) -> dict[str, Any]:
    """Return the result of a row, a line of ``results.jsonl``.

    :param index: of the row, from 0.
    :param row: the row.
    :param attempt: the name of the attempt.
    :param response: the platform's last answer, if any.
    :param error: what went wrong; empty if nothing did.
    :param may_succeed: whether a later attempt may succeed, if this one failed.
    :param is_known: whether the end of the run is known; if not, a retry asks for the same run.
    """
    usage = response.usage if response else None
    return {
        "row": index,
        "key": row.key,
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
        **({"input": row.columns} if row.columns else {}),
    }


class RowState(NamedTuple):
    """Where a row is.

    :param is_done: whether it has a result.
    :param accepted: the newest attempt that was accepted, and its poll URL.
    :param intents: attempts of which nothing more is known.
    """

    is_done: bool
    accepted: tuple[float, str] | None
    intents: list[float]


class Ledger:
    """Where each row of a batch is. One thread may apply records while others read.

    :ivar header: of the batch; None: none has begun.
    :ivar visits: how often a worker has begun a batch here, or resumed one.
    :ivar done: a byte for each row: 1 if it has a result.
    :ivar attempts: of rows that have not succeeded; and of others, those whose end is not known. By row and name.
    :ivar failed: the attempt whose failure is the result, by row.
    :ivar orphans: the key of the row of each attempt that was in doubt, by row and attempt.
    :ivar totals: of the results.
    """

    def __init__(self) -> None:
        self.visits = 0
        self._lock = threading.Lock()
        self._begin(None)

    def _begin(self, header: Header | None) -> None:
        self.header = header
        self.done = bytearray(header.rows if header else 0)
        self.attempts: dict[int, dict[float, Attempt]] = {}
        self.failed: dict[int, Attempt] = {}
        self.orphans: dict[tuple[int, float], str | int] = {}
        self.totals = Totals()

    @property
    def batch(self) -> str:
        """The id of the batch; empty if none has begun."""
        return self.header.batch if self.header else ""

    def apply(self, record: Mapping[str, Any]) -> bool:
        """Apply a record.

        :return: whether it is a result that is now the one of its row.
        """
        with self._lock:
            kind = record["is"]
            if kind == "begin":
                self.visits += 1
                self._begin(Header(**{name: record[name] for name in Header.__dataclass_fields__}))
            elif record.get("batch") == self.batch:  # or else of one whose place another one has taken
                match kind:
                    case "resume":
                        self.visits += 1
                    case "requeue":
                        self._requeue()
                    case "result":
                        return self._apply_result(record)
                    case E.INTENT | E.ACCEPTED | E.REJECTED | E.IN_DOUBT:
                        self._apply_event(AttemptEvent(kind), record)
            return False

    def _apply_event(self, event: AttemptEvent, record: Mapping[str, Any]) -> None:
        row, name = record["row"], record["attempt"]
        if (attempt := self._accepting(row, name, event)) is None:
            return
        if event is E.REJECTED:
            del self.attempts[row][name]
            self.orphans.pop((row, name), None)
        else:
            attempt.state, attempt.url = event, record.get("url", "")
        if event is E.IN_DOUBT:
            self.orphans[row, name] = record["key"]
        self._settle(row)

    def _apply_result(self, result: Mapping[str, Any]) -> bool:
        row, name = result["row"], result["attempt"]
        is_success = result["status"] == ResponseStatus.SUCCESS
        event = E.SUCCEEDED if is_success else E.FAILED if result["is_known"] else E.EXPIRED
        if (attempt := self._accepting(row, name, event)) is None:
            return False
        if event is not E.EXPIRED and attempt.state not in (E.FAILED, E.CLOSED):
            self.totals.spend(Cost.of(result))
        attempt.state, attempt.ended_at, attempt.may_succeed = event, result["ended_at"], result["may_succeed"]
        self.attempts[row][name] = self.attempts[row].pop(name)  # the last one whose end was reported
        return self._settle(row) is attempt

    def _accepting(self, row: int, name: float, event: AttemptEvent) -> Attempt | None:
        """Return an attempt, if the event changes it."""
        attempt = self.attempts.get(row, {}).get(name)
        if event not in TRANSITIONS[attempt.state if attempt else None]:
            return None
        if attempt is None:
            if self.done[row] and row not in self.failed:
                return None  # it was forgotten when the row had succeeded
            attempt = self.attempts.setdefault(row, {})[name] = Attempt(E.INTENT)
        return attempt

    def _settle(self, row: int) -> Attempt | None:
        """Update which attempt is the result of a row, and forget those that are no longer needed.

        :return: that attempt, unless the row had succeeded before.
        """
        attempts = self.attempts[row]
        had_succeeded = bool(self.done[row]) and row not in self.failed
        succeeded = next((attempt for attempt in attempts.values() if attempt.state is E.SUCCEEDED), None)
        ended = [attempt for attempt in attempts.values() if attempt.state in (E.FAILED, E.EXPIRED)]
        if had_succeeded or succeeded:
            for name in [name for name, attempt in attempts.items() if attempt.state not in UNKNOWN]:
                del attempts[name]
        if not attempts:
            del self.attempts[row]
        if had_succeeded:
            return None
        is_open = any(attempt.state in OPEN for attempt in attempts.values())
        failed = None if succeeded or is_open or not ended else ended[-1]
        self.totals.succeeded += succeeded is not None
        self.totals.failed += (failed is not None) - (self.failed.pop(row, None) is not None)
        if failed:
            self.failed[row] = failed
        self.done[row] = bool(succeeded or failed)
        return succeeded or failed

    def _requeue(self) -> None:
        for row in [row for row, attempt in self.failed.items() if attempt.may_succeed]:
            for attempt in self.attempts[row].values():
                if attempt.state is E.FAILED:
                    attempt.state = E.CLOSED
                elif attempt.state is E.EXPIRED:
                    attempt.state = E.ACCEPTED
            self._settle(row)

    @property
    def may_succeed(self) -> int:
        """How many failed rows a retry repeats."""
        return sum(attempt.may_succeed for attempt in self.failed.values())

    @property
    def orphaned(self) -> list[str | int]:
        """The keys of rows, one for each attempt of which nobody knows whether it was accepted."""
        return list(self.orphans.values())

    def state(self, batch: str, row: int) -> RowState | None:
        """Return where a row of a batch is; None if another batch has taken its place."""
        with self._lock:
            if batch != self.batch:
                return None
            attempts = self.attempts.get(row, {})
            runs = ((name, attempt.url) for name, attempt in attempts.items() if attempt.state is E.ACCEPTED)
            intents = sorted(name for name, attempt in attempts.items() if attempt.state is E.INTENT)
            return RowState(bool(self.done[row]), max(runs, default=None), intents)

    def rows(self, state: AttemptEvent) -> list[int]:
        """Return the row of each attempt in a state."""
        with self._lock:
            found = [(row, attempt.state) for row, attempts in self.attempts.items() for attempt in attempts.values()]
        return [row for row, found_state in found if found_state is state]

    def winning(self) -> Callable[[Mapping[str, Any]], bool]:
        """Return a function that returns of each record, in order, whether it is the result of its row."""
        seen = bytearray(len(self.done))

        def is_winning(record: Mapping[str, Any]) -> bool:
            if record["is"] != "result" or record["batch"] != self.batch or seen[record["row"]]:
                return False
            row, failed = record["row"], self.failed.get(record["row"])
            is_success = record["status"] == ResponseStatus.SUCCESS
            seen[row] = is_success if failed is None else record["ended_at"] == failed.ended_at
            return bool(seen[row])

        return is_winning
