"""Simulates processes that share a batch in memory.

A process is a greenlet. Whenever it needs the storage or the platform, it passes a request to the scheduler, which
serves the request at once, later, or never, and returns the answer or an error, as if the answer was lost. A process
that is not moved is frozen. All run in one thread.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Literal

from greenlet import greenlet

from airflow_provider_aixplain.batch.commit_log import CommitLog, Fenced, Record, commit_name
from airflow_provider_aixplain.batch.ledger import AttemptEvent, Ledger
from airflow_provider_aixplain.batch.object_store import ObjectStore
from tests.unit.batch.batches import attempt_record, make_header, result_record, state_of

ROWS = 3
LIFETIME, TIMEOUT = 5.0, 20.0
Outcome = Literal["ok", "hold", "lost", "fail", "delay"]
"""What becomes of a request: it is served and answered; served, and answered at the next move; served, but the answer
is lost; not served; or, if it is a put, served later, and its answer is lost."""

Serve = Callable[[str, Callable[[], Any]], Any]


class MemoryStore(ObjectStore):
    """Objects in memory.

    :param objects: the objects that several stores share.
    :param serve: serves a request, which has a kind and a function, and returns the answer.
    :param is_atomic: False: a put checks whether the object exists, and then writes it.
    """

    is_file_system = True

    def __init__(self, objects: dict[str, bytes], serve: Serve = lambda _, act: act(), is_atomic: bool = True) -> None:
        super().__init__("memory://")
        self.objects = objects
        self._serve = serve
        self._is_atomic = is_atomic

    def put_if_absent(self, name: str, content: bytes) -> None:
        def put() -> None:
            if self._is_atomic and name in self.objects:
                raise FileExistsError(name)
            self.objects[name] = content

        if not self._is_atomic and self.get_many([name]) != [None]:
            raise FileExistsError(name)
        self._serve("put", put)

    def get_many(self, names: list[str]) -> list[bytes | None]:
        return [self._serve("get", partial(self.objects.get, name)) for name in names]


class Process:
    """Runs the rows of a batch one after the other, by the rules of the engine.

    :param requeues: whether it requeues failed rows, as a worker does.
    :ivar request: what it waits for; None: it has ended.
    """

    def __init__(self, world: World, *, requeues: bool = False) -> None:
        self.world = world
        self.applied: list[Record] = []
        self.ledger = Ledger()
        self.log = CommitLog(MemoryStore(world.objects, self._ask, is_atomic=world.is_atomic), self._apply)
        self._requeues = requeues
        self._answer: tuple[Any, OSError | None] | None = None
        self._greenlet = greenlet(self._run)
        self.request: tuple[str, Callable[[], Any]] | None = self._greenlet.switch()
        world.processes.append(self)

    def _apply(self, record: Record) -> None:
        self.applied.append(record)
        self.ledger.apply(record)

    def _ask(self, kind: str, act: Callable[[], Any] = lambda: None) -> Any:
        return self._greenlet.parent.switch((kind, act))

    def move(self, outcome: Outcome = "ok") -> None:
        """Serve its request, and run it until its next request."""
        if self.request is None:
            return
        if self._answer is None:
            kind, act = self.request
            outcome = "ok" if kind == "sleep" else outcome
            if (kind, outcome) == ("put", "delay"):
                self.world.delayed.append(act)
            self._answer = None, OSError(outcome)
            if outcome not in ("fail", "delay"):
                with suppress(FileExistsError):
                    self._answer = None, FileExistsError()
                    self._answer = act(), None
            if outcome == "lost":
                self._answer = None, OSError(outcome)
            if outcome == "hold":
                return
        (value, error), self._answer = self._answer, None
        self.request = self._greenlet.throw(error) if error else self._greenlet.switch(value)

    def move_until(self, condition: Callable[[], Any]) -> None:
        while not condition():
            self.move()

    def kill(self) -> None:
        self._greenlet.throw()
        self.request = None

    def _run(self) -> None:
        with suppress(Fenced):
            self._retry(lambda: self.log.claim([], "a process"))
            if self._requeues:
                self._append({"event": "requeue", "batch": "b"})
            while pending := [row for row in range(ROWS) if not state_of(self.ledger, row).is_done]:
                self._process_row(pending[len(self.applied) % len(pending)])

    def _retry(self, call: Callable[[], Any]) -> Any:
        while True:
            with suppress(OSError):
                return call()
            self._ask("sleep")
            with suppress(OSError):
                self.log.catch_up()  # like another task of the process

    def _append(self, record: Record, *, is_fact: bool = False) -> None:
        record = {**record, "token": next(self.world.numbers), "epoch": None if is_fact else self.log._own_epoch}
        commit_id = f"commit {record['token']}"
        fenced = self.world.is_fenced and not is_fact
        self._retry(lambda: self.log.append([record], fenced=fenced, commit_id=commit_id))
        self.world.acknowledged.add(record["token"])

    def _report(self, row: int, attempt: float, event: AttemptEvent, **fields: Any) -> None:
        self._append(attempt_record(row, attempt, event, **fields), is_fact=event is not AttemptEvent.INTENT)

    def _process_row(self, row: int) -> None:
        state = state_of(self.ledger, row)
        if state.accepted:
            self._poll(row, state.accepted[0])
        elif state.intents:
            until = max(state.intents) + LIFETIME + TIMEOUT
            while self.world.now < until:
                self._ask("sleep")
            self._retry(self.log.catch_up)
            state = state_of(self.ledger, row)
            for attempt in [] if state.is_done or state.accepted else state.intents:
                if self.world.now >= attempt + LIFETIME + TIMEOUT:
                    self._report(row, attempt, AttemptEvent.IN_DOUBT, key=row)
        else:
            self._submit(row)

    def _submit(self, row: int) -> None:
        self.world.now += 0.001  # so that attempts differ, as on a real clock
        attempt = self.world.now
        self._report(row, attempt, AttemptEvent.INTENT)
        state = state_of(self.ledger, row)
        if state.is_done or state.accepted or self.world.now - attempt > LIFETIME:
            self._report(row, attempt, AttemptEvent.REJECTED)
            return
        intent = attempt_record(row, attempt, AttemptEvent.INTENT)
        assert any(intent.items() <= record.items() for record in self.world.records()), "the intent is committed"
        sent_at, is_lost = self.world.now, True
        with suppress(OSError):
            self._ask("submit", lambda: self.world.submissions.append((row, attempt)))
            is_lost = self.world.now - sent_at > TIMEOUT
        if is_lost:
            self._report(row, attempt, AttemptEvent.IN_DOUBT, key=row)
            self._append(result_record(row, attempt, "no answer"))
        else:
            self._report(row, attempt, AttemptEvent.ACCEPTED, url="u")

    def _poll(self, row: int, attempt: float) -> None:
        self._retry(partial(self._ask, "poll"))
        error = "" if int(attempt * 1000) % 3 else "the run failed"
        self._append(result_record(row, attempt, error), is_fact=True)


class World:
    """The storage, the platform and the clock."""

    def __init__(self, *, is_fenced: bool = True, is_atomic: bool = True) -> None:
        self.is_fenced = is_fenced
        self.is_atomic = is_atomic
        self.numbers = itertools.count()
        self.objects: dict[str, bytes] = {}
        self.now = 1000.0
        self.delayed: list[Callable[[], Any]] = []
        self.acknowledged: set[int] = set()
        self.submissions: list[tuple[int, float]] = []
        self.processes: list[Process] = []
        log = CommitLog(MemoryStore(self.objects), lambda record: None)
        log.claim([make_header(rows=ROWS).record()], "a worker that begins")

    def commits(self) -> list[list[Record]]:
        return [list(map(json.loads, content.splitlines())) for _, content in sorted(self.objects.items())]

    def records(self) -> list[Record]:
        return [record for _, *records in self.commits() for record in records]

    def check(self) -> None:
        """Check the invariants of the log."""
        assert set(self.objects) == set(map(commit_name, range(len(self.objects)))), "no number is left out"
        records = self.records()
        for process in self.processes:
            assert process.applied == records[: len(process.applied)], "all apply the same commits in the same order"
        tokens = Counter(record["token"] for record in records if "token" in record)
        assert self.acknowledged <= set(tokens), "nothing acknowledged is lost"
        assert set(tokens.values()) <= {1}, "nothing is doubled"
        epochs = Counter(process.log._own_epoch for process in self.processes if process.log._own_epoch >= 0)
        assert set(epochs.values()) <= {1}, "an epoch has one owner"

    def check_epochs(self) -> None:
        """Check that commands are committed only in the epoch of their process."""
        epoch = 0
        for number, (header, *own) in enumerate(self.commits()):
            epoch = number + 1 if "owner" in header else epoch
            assert all(record.get("epoch") in (None, epoch) for record in own), "commands are of the current epoch"

    def deliver(self) -> None:
        """Serve a delayed put, which its process considers lost."""
        with suppress(FileExistsError):
            self.delayed.pop(0)()

    def finish(self) -> None:
        """Thaw all processes, start another one, run all until they finish, and check the outcome."""
        while self.delayed:
            self.deliver()
        Process(self)
        for process in self.processes:
            for _ in range(10_000):
                if process.request is None:
                    break
                self.now += LIFETIME if process.request[0] == "sleep" else 0
                process.move()
        self.check()
        assert not any(process.request for process in self.processes)
        ledger = Ledger()
        log = CommitLog(MemoryStore(self.objects), ledger.apply)
        log.catch_up()
        results = list(filter(ledger.result_filter(), log.read()))
        assert sorted(result["row"] for result in results) == list(range(ROWS)), "each row has one result"
        again = Counter(row for row, _ in self.submissions) - Counter(range(ROWS))
        failures = [record for record in self.records() if record.get("error") == "the run failed"]
        requeued = Counter(row for row, _ in {(record["row"], record["attempt"]) for record in failures})
        assert again - requeued <= Counter(ledger.orphaned), "submissions beyond the rows are named"
