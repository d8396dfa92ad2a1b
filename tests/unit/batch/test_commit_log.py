"""The commit log and the ledger, under interleavings of processes that Hypothesis generates."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar, get_args

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from airflow_provider_aixplain.batch.commit_log import SEGMENT_LENGTH, CommitLog, commit_name, segment_name
from airflow_provider_aixplain.batch.object_store import LocalStore, ObjectStore
from tests.unit.batch.batches import fail_calls
from tests.unit.batch.simulation import MemoryStore, Outcome, Process, World


class Processes(RuleBasedStateMachine):
    """Processes that claim one batch, freeze, thaw and are killed at any moment, on a storage that loses answers."""

    options: ClassVar[dict[str, bool]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.world = World(**self.options)

    def alive(self) -> list[Process]:
        return [process for process in self.world.processes if process.request]

    def pick(self, number: int) -> Process:
        return self.alive()[number % len(self.alive())]

    @rule(requeues=st.booleans())
    @precondition(lambda self: len(self.alive()) < 4)
    def start(self, requeues: bool) -> None:
        Process(self.world, requeues=requeues)

    @rule(number=st.integers(0, 3), steps=st.integers(1, 25))
    @precondition(alive)
    def run(self, number: int, steps: int) -> None:
        """Run one process while all others are frozen."""
        process = self.pick(number)
        for _ in range(steps):
            process.move()

    @rule(number=st.integers(0, 3), outcome=st.sampled_from(get_args(Outcome)))
    @precondition(alive)
    def disturb(self, number: int, outcome: Any) -> None:
        self.pick(number).move(outcome)

    @rule(number=st.integers(0, 3))
    @precondition(lambda self: len(self.alive()) == 4)
    def kill(self, number: int) -> None:
        """Kill a process only to make room for another one, as a frozen one can still thaw."""
        self.pick(number).kill()

    @rule(seconds=st.sampled_from([1.0, 6.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.world.now += seconds

    @rule()
    @precondition(lambda self: self.world.delayed)
    def deliver(self) -> None:
        self.world.deliver()

    @invariant()
    def check(self) -> None:
        self.world.check()
        self.world.check_epochs()

    def teardown(self) -> None:
        self.world.finish()


THOROUGH = settings(max_examples=200, stateful_step_count=40, suppress_health_check=list(HealthCheck), derandomize=True)


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
    old = Process(world)
    old.move_until(lambda: not old.log.is_fenced)
    old.move_until(lambda: old.request and old.request[0] == "put")  # frozen before it commits an intent
    new = Process(world)
    new.move_until(lambda: world.submissions)
    old.move_until(lambda: len(world.submissions) == 2 or not old.request)
    with nullcontext() if is_fenced else pytest.raises(AssertionError, match="submissions beyond the rows are named"):
        world.finish()


# One process after the other


def log_of(store: ObjectStore) -> tuple[CommitLog, list[int]]:
    """Return a log that has applied all commits, and the numbers in them."""
    applied: list[int] = []
    log = CommitLog(store, lambda record: applied.append(record["n"]))
    log.catch_up()
    return log, applied


def test_many_commits_are_read_from_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Object storage, in a folder."""
    monkeypatch.setattr(LocalStore, "is_file_system", False)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    store = LocalStore(f"file://{tmp_path}")
    store.make()
    log, _ = log_of(store)
    log.claim([], "owner")
    count = 2 * SEGMENT_LENGTH + 7
    for number in range(count):
        log.append([{"n": number}], fenced=True)
    reads = fail_calls(monkeypatch, store._path.fs, "open", times=())
    reader, applied = log_of(store)
    assert applied == [record["n"] for record in reader.read()] == list(range(count))
    assert len(reads) < 2 * 30, "two segments, and the last few commits"
    assert (tmp_path / segment_name(SEGMENT_LENGTH)).is_file()
    (tmp_path / segment_name(0)).unlink()
    assert log_of(store)[1] == list(range(count)), "a segment only repeats commits"


def test_a_commit_that_cannot_be_read_yet_is_an_error() -> None:
    """As on NFS, which may show a folder as it was half a minute ago."""
    objects: dict[str, bytes] = {}
    log_of(MemoryStore(objects))[0].claim([], "first")
    stale = MemoryStore(objects, lambda kind, act: act() if kind == "put" else None)
    with pytest.raises(OSError, match="cannot be read yet"):
        log_of(stale)[0].claim([], "second")
    assert list(objects) == [commit_name(0)]
