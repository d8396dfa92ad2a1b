"""The commit log and the ledger, under interleavings of processes that Hypothesis generates."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from airflow_provider_aixplain.batch.commit_log import SEGMENT_LENGTH, CommitLog, Fenced, segment_name
from tests.unit.batch.simulation import MemoryStore, World

OUTCOMES = st.sampled_from(["ok", "hold", "lost", "fail", "delay"])


class Processes(RuleBasedStateMachine):
    """Processes that claim one batch, freeze, thaw and are killed at any moment, on a storage that loses answers."""

    options: ClassVar[dict[str, bool]] = {}

    @initialize()
    def begin(self) -> None:
        self.world = World(**self.options)

    @rule(requeues=st.booleans())
    @precondition(lambda self: sum(process.is_alive for process in self.world.processes) < 4)
    def start(self, requeues: bool) -> None:
        self.world.start(requeues=requeues)

    def alive(self, number: int) -> Any:
        alive = [process for process in self.world.processes if process.is_alive]
        return alive[number % len(alive)] if alive else None

    @rule(number=st.integers(0, 3), steps=st.integers(1, 12))
    def run(self, number: int, steps: int) -> None:
        """Run one process while all others are frozen."""
        for _ in range(steps):
            if process := self.alive(number):
                process.move()

    @rule(number=st.integers(0, 3), outcome=OUTCOMES)
    def disturb(self, number: int, outcome: Any) -> None:
        if process := self.alive(number):
            process.move(outcome)

    @rule(number=st.integers(0, 3))
    def kill(self, number: int) -> None:
        if process := self.alive(number):
            process.kill()

    @rule(seconds=st.sampled_from([1.0, 6.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.world.now += seconds

    @rule()
    @precondition(lambda self: self.world.delayed)
    def deliver(self) -> None:
        """Serve a delayed put, which its process considers lost."""
        self.world._deliver()

    @invariant()
    def check(self) -> None:
        if hasattr(self, "world"):
            self.world.check()
            self.world.check_epochs()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.finish()


THOROUGH = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
)


def test_processes_share_one_log() -> None:
    run_state_machine_as_test(Processes, settings=THOROUGH)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("missing", ["is_fenced", "is_atomic"])
def test_without_fence_or_atomic_create_the_checks_fail(missing: str) -> None:
    class Broken(Processes):
        options: ClassVar[dict[str, bool]] = {missing: False}

    found = settings(THOROUGH, max_examples=1000, phases=[Phase.generate], report_multiple_bugs=False)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Broken, settings=found)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("is_fenced", [True, False])
def test_without_the_fence_a_second_submission_is_not_named(is_fenced: bool) -> None:
    world = World(is_fenced=is_fenced)
    old = world.start(requeues=False)
    old.move_until(lambda: not old.log.is_fenced)
    old.move_until(lambda: old.request is not None and old.request[0] == "put")  # frozen before it commits an intent
    new = world.start(requeues=False)
    new.move_until(lambda: world.submissions)
    old.move_until(lambda: len(world.submissions) == 2 or not old.is_alive)
    with nullcontext() if is_fenced else pytest.raises(AssertionError, match="submissions beyond the rows are named"):
        world.finish()


# One process after the other


def numbers(log: CommitLog) -> list[int]:
    return [record["n"] for record in log.read()]


def log_of(store: MemoryStore) -> tuple[CommitLog, list[int]]:
    applied: list[int] = []
    return CommitLog(store, lambda record: applied.append(record["n"])), applied


def test_many_commits_are_read_from_segments() -> None:
    store = MemoryStore({}, is_file_system=False)
    log, _ = log_of(store)
    log.claim([], "owner")
    count = 2 * SEGMENT_LENGTH + 7
    for number in range(count):
        log.append([{"n": number}], fenced=True)
    store.reads.clear()
    reader, applied = log_of(store)
    reader.catch_up()
    assert applied == numbers(reader) == list(range(count))
    assert store.reads.total() < 2 * 30, "two segments, and the last few commits"
    assert {segment_name(0), segment_name(SEGMENT_LENGTH)} <= set(store.objects)
    del store.objects[segment_name(0)]
    reader, applied = log_of(store)
    reader.catch_up()
    assert applied == list(range(count)), "a segment only repeats commits"


def test_the_check_of_a_claim_sees_commits_of_other_processes() -> None:
    store = MemoryStore({})
    (first, _), (second, seen) = log_of(store), log_of(store)

    def check() -> None:
        if not seen:
            first.append([{"n": 1}], fenced=False)
        elif 1 in seen:
            raise Fenced("another process was faster")

    with pytest.raises(Fenced, match="faster"):
        second.claim([{"n": 2}], "second", check)
    assert numbers(second) == [1]
