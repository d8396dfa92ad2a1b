"""The state of a batch, computed from its commit log.

Each submission of a row is an *attempt*, identified by the time at which its intent was written (seconds since the
epoch). A row can have several attempts after a takeover, and a record affects only its own attempt. ``TRANSITIONS``
defines which records an attempt accepts; beyond that, the order in which different processes report does not matter.

A row has succeeded once one of its attempts has. It has failed if an attempt is ``FAILED`` or ``EXPIRED``, and no other
attempt is open; a late answer opens the row again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, NamedTuple

from airflow_provider_aixplain.protocol.response import ResponseStatus
from airflow_provider_aixplain.protocol.values import parse_number, sum_decimals


class AttemptEvent(str, Enum):
    """An event of an attempt, and the state that it leads to."""

    INTENT = "intent"
    """The attempt is about to be submitted."""
    ACCEPTED = "accepted"
    """The platform has accepted it and returned a poll URL."""
    REJECTED = "rejected"
    """It was not submitted, or the platform has refused it."""
    IN_DOUBT = "in doubt"
    """Its answer was lost, or can no longer arrive."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Its run or its submission has failed."""
    EXPIRED = "expired"
    """The batch no longer waits for its run; a retry polls the same run."""
    CLOSED = "closed"
    """It has failed, and its row was requeued."""


E = AttemptEvent
OPEN = frozenset({E.INTENT, E.ACCEPTED})
"""States in which the batch waits for the end of an attempt, so that its row has not failed yet."""

COST_PENDING = frozenset({*OPEN, E.IN_DOUBT})
"""States of an attempt whose cost may still be reported after another attempt has succeeded."""

TRANSITIONS: dict[AttemptEvent | None, frozenset[AttemptEvent]] = {
    None: frozenset({E.INTENT, E.ACCEPTED, E.IN_DOUBT, E.SUCCEEDED, E.FAILED, E.EXPIRED}),
    E.INTENT: frozenset({E.ACCEPTED, E.REJECTED, E.IN_DOUBT, E.SUCCEEDED, E.FAILED, E.EXPIRED}),
    E.IN_DOUBT: frozenset({E.ACCEPTED, E.REJECTED, E.SUCCEEDED, E.FAILED, E.EXPIRED}),
    E.ACCEPTED: frozenset({E.SUCCEEDED, E.FAILED, E.EXPIRED}),
    E.EXPIRED: frozenset({E.SUCCEEDED, E.FAILED}),
    E.FAILED: frozenset({E.SUCCEEDED}),
    E.CLOSED: frozenset({E.SUCCEEDED}),
}
"""The events that an attempt accepts in each state; None: an unknown attempt. Other events are ignored."""


@dataclass
class Totals:
    """The sums of a batch's results and of failed attempts that were repeated. ``run_time`` is in seconds.

    Numbers are added in decimal: 0.1 and 0.2 are 0.3.
    """

    succeeded: int = 0
    failed: int = 0
    tokens: int = 0
    credits: float = 0.0
    run_time: float = 0.0

    @property
    def done(self) -> int:
        """The number of rows that have a result."""
        return self.succeeded + self.failed

    def add_cost(self, result: Mapping[str, Any]) -> None:
        """Add the cost of an attempt."""
        self.credits = sum_decimals([self.credits, parse_number(result["used_credits"]) or 0])
        self.run_time = sum_decimals([self.run_time, parse_number(result["run_time"]) or 0])
        self.tokens += int(parse_number(result["tokens"]) or 0)


@dataclass(frozen=True)
class Header:
    """The description of a batch.

    :param batch: its id.
    :param fingerprint: of its rows and of the submission URL.
    :param rows: the number of rows.
    :param bad_rows: the number of further rows that are not valid input.
    :param first_bad_rows: the first of those, as messages.
    :param started_at: the start time, in ISO 8601.
    """

    batch: str
    fingerprint: str
    rows: int
    bad_rows: int
    first_bad_rows: list[str]
    started_at: str

    def record(self) -> dict[str, Any]:
        """Return the record that begins the batch."""
        return {"event": "begin", **asdict(self)}


@dataclass
class Attempt:
    """A submission of a row.

    :param state: the last event.
    :param url: the poll URL of its run, once it was accepted.
    :param ended_at: the time of its last result, by which :meth:`Ledger.result_filter` recognizes that result.
    :param may_succeed: whether a retry repeats the row, if the attempt has failed.
    """

    state: AttemptEvent
    url: str = ""
    ended_at: str = ""
    may_succeed: bool = False


class RowState(NamedTuple):
    """The state of a row.

    :param is_done: whether it has a result.
    :param accepted: the newest accepted attempt, and its poll URL.
    :param intents: the attempts in the state ``INTENT``.
    """

    is_done: bool
    accepted: tuple[float, str] | None
    intents: list[float]


class Ledger:
    """The state of each row of a batch. One thread may apply records while others read.

    :ivar header: of the batch; None: no batch has begun.
    :ivar generation: how often a worker has begun or resumed a batch in this folder.
    :ivar done: one byte per row: 1 if it has a result.
    :ivar attempts: by row and attempt: all attempts of rows that have not succeeded, and those of other rows whose cost
        may still be reported.
    :ivar failed: the attempt whose failure is the result, by row.
    :ivar orphans: the key of the row of each attempt that is or was in doubt, by row and attempt.
    :ivar totals: the sums of the results.
    """

    def __init__(self) -> None:
        self.generation = 0
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

        :return: whether the record is the new result of its row.
        """
        with self._lock:
            event = record["event"]
            if event == "begin":
                self.generation += 1
                self._begin(Header(**{name: record[name] for name in Header.__dataclass_fields__}))
            elif record.get("batch") == self.batch:  # records of a batch that was replaced are ignored
                match event:
                    case "resume":
                        self.generation += 1
                    case "requeue":
                        self._requeue()
                    case "result":
                        return self._apply_result(record)
                    case E.INTENT | E.ACCEPTED | E.REJECTED | E.IN_DOUBT:
                        self._apply_event(AttemptEvent(event), record)
            return False

    def _apply_event(self, event: AttemptEvent, record: Mapping[str, Any]) -> None:
        row, time = record["row"], record["attempt"]
        if (attempt := self._accepting_attempt(row, time, event)) is None:
            return
        if event is E.REJECTED:
            del self.attempts[row][time]
            self.orphans.pop((row, time), None)
        else:
            attempt.state, attempt.url = event, record.get("url", "")
        if event is E.IN_DOUBT:
            self.orphans[row, time] = record["key"]
        self._update_row(row)

    def _apply_result(self, result: Mapping[str, Any]) -> bool:
        row, time = result["row"], result["attempt"]
        is_success = result["status"] == ResponseStatus.SUCCESS
        event = E.SUCCEEDED if is_success else E.FAILED if result["is_known"] else E.EXPIRED
        if (attempt := self._accepting_attempt(row, time, event)) is None:
            return False
        if event is not E.EXPIRED and attempt.state not in (E.FAILED, E.CLOSED):
            self.totals.add_cost(result)
        attempt.state, attempt.ended_at, attempt.may_succeed = event, result["ended_at"], result["may_succeed"]
        self.attempts[row][time] = self.attempts[row].pop(time)  # keeps attempts in the order of their results
        return self._update_row(row) is attempt

    def _accepting_attempt(self, row: int, time: float, event: AttemptEvent) -> Attempt | None:
        """Return the attempt that the event changes, if any."""
        attempt = self.attempts.get(row, {}).get(time)
        if event not in TRANSITIONS[attempt.state if attempt else None]:
            return None
        if attempt is None and not (self.done[row] and row not in self.failed):  # else the row has succeeded
            attempt = self.attempts.setdefault(row, {})[time] = Attempt(E.INTENT)
        return attempt

    def _update_row(self, row: int) -> Attempt | None:
        """Determine the result of a row, and forget the attempts that no longer matter.

        :return: the attempt that is the result, unless the row had succeeded before.
        """
        attempts = self.attempts[row]
        had_succeeded = bool(self.done[row]) and row not in self.failed
        succeeded = next((attempt for attempt in attempts.values() if attempt.state is E.SUCCEEDED), None)
        if had_succeeded or succeeded:
            attempts = {time: attempt for time, attempt in attempts.items() if attempt.state in COST_PENDING}
        if attempts:
            self.attempts[row] = attempts
        else:
            del self.attempts[row]
        if had_succeeded:
            return None
        ended = [attempt for attempt in attempts.values() if attempt.state in (E.FAILED, E.EXPIRED)]
        is_open = any(attempt.state in OPEN for attempt in attempts.values())
        failed = ended[-1] if ended and not is_open else None
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
            self._update_row(row)

    @property
    def retryable_rows(self) -> int:
        """The number of failed rows that a retry repeats."""
        return sum(attempt.may_succeed for attempt in self.failed.values())

    @property
    def orphaned(self) -> list[str | int]:
        """The key of the row of each attempt that may have been accepted without an answer."""
        return list(self.orphans.values())

    def state(self, batch: str, row: int) -> RowState | None:
        """Return the state of a row of a batch; None if another batch has replaced that batch."""
        with self._lock:
            if batch != self.batch:
                return None
            attempts = self.attempts.get(row, {})
            runs = ((time, attempt.url) for time, attempt in attempts.items() if attempt.state is E.ACCEPTED)
            intents = sorted(time for time, attempt in attempts.items() if attempt.state is E.INTENT)
            return RowState(bool(self.done[row]), max(runs, default=None), intents)

    def rows(self, state: AttemptEvent) -> list[int]:
        """Return the row of each attempt in a state."""
        with self._lock:
            return [row for row, attempts in self.attempts.items() for a in attempts.values() if a.state is state]

    def result_filter(self) -> Callable[[Mapping[str, Any]], bool]:
        """Return a predicate for records in the order of the log: whether a record is the result of its row."""
        seen = bytearray(len(self.done))

        def is_result(record: Mapping[str, Any]) -> bool:
            if record["event"] != "result" or record["batch"] != self.batch or seen[record["row"]]:
                return False
            row, failed = record["row"], self.failed.get(record["row"])
            is_success = record["status"] == ResponseStatus.SUCCESS
            seen[row] = is_success if failed is None else record["ended_at"] == failed.ended_at
            return bool(seen[row])

        return is_result
