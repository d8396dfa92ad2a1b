"""Simulates processes that share a batch in memory.

A process is a greenlet. Whenever it needs the storage or the platform, it passes a request to the scheduler, which
serves the request at once, later, or never, and returns the answer or an error, as if the answer was lost. A process
that is not moved is frozen. All run in one thread.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from io import BytesIO
from typing import IO, Any, Literal

from greenlet import getcurrent, greenlet

from airflow_provider_aixplain.batch.commit_log import CommitLog, Fenced, Record, commit_name
from airflow_provider_aixplain.batch.ledger import AttemptEvent, Header, Ledger, RowState
from airflow_provider_aixplain.batch.object_store import ObjectStore
from tests.unit.batch.batches import result_record

ROWS = 3
LIFETIME, TIMEOUT = 5.0, 20.0
Outcome = Literal["ok", "hold", "lost", "fail", "delay"]
"""What becomes of a request: it is served and answered; served, and answered at the next move; served, but the answer
is lost; not served; or, if it is a put, served later, and its answer is lost."""

Request = tuple[str, Callable[[], Any]]


class MemoryStore(ObjectStore):
    """Objects in memory.

    :param objects: the objects that several stores share.
    :param is_atomic: False: a put checks whether the object exists, and then writes it.
    :param serve: serves a request, and returns the answer.
    """

    def __init__(
        self,
        objects: dict[str, bytes],
        serve: Callable[[Request], Any] = lambda request: request[1](),
        *,
        is_atomic: bool = True,
        is_file_system: bool = True,
    ) -> None:
        super().__init__("memory://")
        self.objects = objects
        self.reads: Counter[str] = Counter()
        self._serve = serve
        self._is_atomic = is_atomic
        self.is_file_system = is_file_system

    def put_if_absent(self, name: str, content: bytes) -> None:
        if not self._is_atomic:
            if self.get_many([name]) != [None]:
                raise FileExistsError(name)
            self._serve(("put", lambda: self.objects.update({name: content})))
            return

        def put() -> None:
            if self.objects.setdefault(name, content) is not content:
                raise FileExistsError(name)

        self._serve(("put", put))

    def get_many(self, names: list[str]) -> list[bytes | None]:
        self.reads.update(names)
        return [self._serve(("get", partial(self.objects.get, name))) for name in names]

    def open(self, name: str) -> Any:
        self.reads[name] += 1
        if name not in self.objects:
            raise FileNotFoundError(name)
        return BytesIO(self.objects[name])

    @contextmanager
    def writing(self, name: str, *, if_absent: bool = False) -> Iterator[IO[bytes]]:
        file = BytesIO()
        yield file
        self.put_if_absent(name, file.getvalue())


class Killed(BaseException):
    """Kills a process."""


class Process:
    """Runs the rows of a batch one after the other, by the rules of the engine.

    :param is_fenced: False: its intents are committed even if another process has claimed the batch.
    :param requeues: whether it requeues failed rows, as a worker does.
    """

    def __init__(self, world: World, *, is_fenced: bool, requeues: bool) -> None:
        self.world = world
        self.name = f"process {next(world.numbers)}"
        self.applied: list[Record] = []
        self.ledger = Ledger()
        self.log = CommitLog(MemoryStore(world.store.objects, self._ask, is_atomic=world.is_atomic), self._apply)
        self._is_fenced, self._requeues = is_fenced, requeues
        self._greenlet = greenlet(self._run, world.scheduler)
        self._answer: tuple[Any, OSError | None] | None = None
        self.request: Request | None = self._greenlet.switch()

    def _apply(self, record: Record) -> None:
        self.applied.append(record)
        self.ledger.apply(record)

    def _state(self, row: int) -> RowState:
        state = self.ledger.state("b", row)
        assert state is not None
        return state

    @property
    def is_alive(self) -> bool:
        return not self._greenlet.dead

    def _ask(self, request: Request) -> Any:
        assert getcurrent() is self._greenlet
        return self.world.scheduler.switch(request)

    def move(self, outcome: Outcome = "ok") -> None:
        """Serve its request, and run it until its next request."""
        if self.request is None or not self.is_alive:
            return
        if self._answer is None:
            kind, act = self.request
            outcome = "ok" if kind == "sleep" else outcome
            if outcome == "delay" and kind == "put":
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
        self._greenlet.throw(Killed)

    def _run(self) -> None:
        try:
            self._retry(lambda: self.log.claim([], self.name))
            if self._requeues:
                self._append({"event": "requeue", "batch": "b", "by": self.name})
            while pending := [row for row in range(ROWS) if not self._state(row).is_done]:
                for row in pending:
                    self._process_row(row)
        except (Fenced, Killed):
            pass

    def _retry(self, call: Callable[[], Any]) -> Any:
        while True:
            try:
                return call()
            except FileExistsError:
                raise
            except OSError:
                self._ask(("sleep", lambda: None))

    def _append(self, record: Record, *, is_fact: bool = False) -> None:
        record = {**record, "token": next(self.world.numbers), "epoch": None if is_fact else self.log._own_epoch}
        commit_id = f"commit {record['token']}"
        fenced = self._is_fenced and not is_fact
        self._retry(lambda: self.log.append([record], fenced=fenced, commit_id=commit_id))
        self.world.acknowledged.add(record["token"])

    def _report(self, row: int, attempt: float, event: AttemptEvent, **fields: Any) -> None:
        record = {"event": event.value, "batch": "b", "row": row, "attempt": attempt, **fields}
        self._append(record, is_fact=event is not AttemptEvent.INTENT)

    def _process_row(self, row: int) -> None:
        state = self._state(row)
        if state.is_done:
            return
        if state.accepted:
            self._poll(row, state.accepted[0])
        elif state.intents:
            until = max(state.intents) + LIFETIME + TIMEOUT
            while self.world.now < until:
                self._ask(("sleep", lambda: None))
            self._retry(self.log.catch_up)
            state = self._state(row)
            for attempt in [] if state.is_done or state.accepted else state.intents:
                if self.world.now >= attempt + LIFETIME + TIMEOUT:
                    self._report(row, attempt, AttemptEvent.IN_DOUBT, key=row)
        else:
            self._submit(row)

    def _submit(self, row: int) -> None:
        attempt = self.world.time()
        self._report(row, attempt, AttemptEvent.INTENT)
        state = self._state(row)
        if state.is_done or state.accepted or self.world.now - attempt > LIFETIME:
            self._report(row, attempt, AttemptEvent.REJECTED)
            return
        self.world.check_intent(row, attempt)
        sent_at = self.world.now
        try:
            self._ask(("submit", lambda: self.world.submissions.append((row, attempt))))
            is_lost = self.world.now - sent_at > TIMEOUT
        except OSError:
            is_lost = True
        if is_lost:
            self._report(row, attempt, AttemptEvent.IN_DOUBT, key=row)
            self._append(result_record("b", row, attempt, "no answer", may_succeed=True))
        else:
            self._report(row, attempt, AttemptEvent.ACCEPTED, url="u")

    def _poll(self, row: int, attempt: float) -> None:
        def poll() -> None:
            self._ask(("poll", lambda: None))

        self._retry(poll)
        error = "" if int(attempt * 1000) % 3 else "the run failed"
        self._append(result_record("b", row, attempt, error, may_succeed=True), is_fact=True)


class World:
    """The storage, the platform, the clock and the scheduler."""

    def __init__(self, *, is_fenced: bool = True, is_atomic: bool = True) -> None:
        self.scheduler = getcurrent()
        self.numbers = itertools.count()
        self.store = MemoryStore({})
        self.is_atomic = is_atomic
        self._is_fenced = is_fenced
        self.now = 1000.0
        self.delayed: list[Callable[[], Any]] = []
        self.acknowledged: set[int] = set()
        self.submissions: list[tuple[int, float]] = []
        self.processes: list[Process] = []
        header = Header("b", "f", ROWS, 0, [], "2026-01-01T00:00:00+00:00")
        CommitLog(self.store, lambda record: None).claim([header.record()], "a worker that begins")

    def time(self) -> float:
        """Return the time, which is different at each call, as on a real clock."""
        self.now += 0.001
        return self.now

    def start(self, *, requeues: bool) -> Process:
        self.processes.append(Process(self, is_fenced=self._is_fenced, requeues=requeues))
        return self.processes[-1]

    def commits(self) -> list[list[Record]]:
        numbers = itertools.takewhile(lambda n: commit_name(n) in self.store.objects, itertools.count())
        return [list(map(json.loads, self.store.objects[commit_name(n)].splitlines())) for n in numbers]

    def check_intent(self, row: int, attempt: float) -> None:
        """Check that the intent of a submission is committed."""
        found = (
            (record.get("event"), record.get("row"), record.get("attempt")) for c in self.commits() for record in c
        )
        assert ("intent", row, attempt) in found

    def check(self) -> None:
        """Check the invariants of the log."""
        commits = self.commits()
        assert len(commits) == len(self.store.objects), "no number is left out"
        records = [record for _, *records in commits for record in records]
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

    def finish(self) -> None:
        """Thaw all processes, start another one, run all until they finish, and check the outcome."""
        while self.delayed:
            self._deliver()
        self.start(requeues=False)
        for process in self.processes:
            for _ in range(10_000):
                if not process.is_alive:
                    break
                if process.request and process.request[0] == "sleep":
                    self.now += LIFETIME
                process.move()
        self.check()
        assert not any(process.is_alive for process in self.processes)
        ledger = Ledger()
        log = CommitLog(self.store, ledger.apply)
        log.catch_up()
        results = list(filter(ledger.result_filter(), log.read()))
        assert sorted(result["row"] for result in results) == list(range(ROWS)), "each row has one result"
        again = Counter(row for row, _ in self.submissions) - Counter(range(ROWS))
        requeued = Counter(row for (row, _), has_failed in self._ended_attempts().items() if has_failed)
        assert again - requeued <= Counter(ledger.orphaned), "submissions beyond the rows are named"

    def _deliver(self) -> None:
        with suppress(FileExistsError):
            self.delayed.pop(0)()

    def _ended_attempts(self) -> dict[tuple[int, float], bool]:
        """Return for each attempt with a result whether its run has failed, so that its row may be submitted again."""
        found = (record for _, *records in self.commits() for record in records if record["event"] == "result")
        return {(record["row"], record["attempt"]): record["error"] == "the run failed" for record in found}
