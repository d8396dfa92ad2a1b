"""What a result path tells, whoever writes there: also one who stood still until Airflow had started another one."""

from __future__ import annotations

import fcntl
import os
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_aixplain.batch.rows import Row
from airflow_provider_aixplain.batch.state import Deleted, Header, Progress, State, Superseded, result_of
from airflow_provider_aixplain.batch.storage import ObjectStorage, storage_at
from airflow_provider_aixplain.exceptions import AixplainPermanentError
from tests.unit.batch.batches import (
    Trouble,
    about,
    batch_of,
    begun,
    end,
    forget_failed,
    header_of,
    note,
    progress_of,
    published,
    results,
    rows_of,
    run,
)

pytestmark = pytest.mark.usefixtures("connection")


def names(place: str) -> list[str]:
    """Names of all files that are there."""
    storage = storage_at(place)
    return storage.names("") if isinstance(storage, ObjectStorage) else os.listdir(place.removeprefix("file://"))


# What records tell

ROWS = 2
numbers = st.sampled_from([1.0, 2.0])
records = st.fixed_dictionaries(
    {
        "row": st.integers(0, ROWS - 1),
        "attempt": numbers,
        "is": st.sampled_from(["begun", "accepted", "not sent", "orphaned", "over"]),
        "url": st.just("u"),
        "key": st.just("k"),
        "cost": st.just([1.0, 0, 0.0]),
    }
)
ends = st.sampled_from(  # status, may_succeed, is_known, used_credits
    [("SUCCESS", False, True, 1), ("FAILED", False, True, 1), ("FAILED", True, True, 1), ("FAILED", True, False, 0)]
)


@st.composite
def results_told(draw: st.DrawFn) -> dict[str, Any]:
    status, may_succeed, is_known, used_credits = draw(ends)
    return {
        "row": draw(st.integers(0, ROWS - 1)),
        "attempt": draw(numbers),
        "status": status,
        "may_succeed": may_succeed,
        "is_known": is_known,
        "used_credits": used_credits,
        "ended_at": str(draw(st.uuids())),
        "tokens": 0,
        "run_time": 0,
    }


@given(st.lists(results_told()), st.lists(records), st.randoms())
def test_the_order_of_results_does_not_matter(
    ended: list[dict[str, Any]], submissions: list[dict[str, Any]], dice: random.Random
) -> None:
    """In an object storage it is that of their writers' names."""
    first = Progress.told(ROWS, ended, submissions)
    dice.shuffle(ended)
    second = Progress.told(ROWS, ended, submissions)
    assert (first.done, first.totals.credits, set(first.failed)) == (
        second.done,
        second.totals.credits,
        set(second.failed),
    )
    assert (first.accepted, first.begun) == (second.accepted, second.begun)


@given(st.lists(results_told()), st.lists(records))
def test_a_success_counts_and_else_a_failure_whose_attempt_is_not_over_if_no_other_is_open(
    ended: list[dict[str, Any]], submissions: list[dict[str, Any]]
) -> None:
    progress = Progress.told(ROWS, ended, submissions)
    counted = list(filter(progress.counting(), ended))
    assert len({result["row"] for result in counted}) == len(counted) == progress.totals.done
    succeeded = {result["row"] for result in ended if result["status"] == "SUCCESS"}
    assert {result["row"] for result in counted if result["status"] == "SUCCESS"} == succeeded
    assert progress.totals.succeeded == len(succeeded)
    over = {(record["row"], record["attempt"]) for record in submissions if record["is"] == "over"}
    known = {(result["row"], result["attempt"]) for result in ended if result["is_known"]}
    told = Progress.told(ROWS, [], submissions)
    for row in range(ROWS):
        assert progress.done[row] == (row in succeeded or row in progress.failed)
        left = {attempt for attempt in told.open(row) if (row, attempt) not in known}
        assert progress.open(row) == (set() if progress.done[row] else left)
        failed = {result["attempt"] for result in ended if result["row"] == row} - {
            over for at, over in over if at == row
        }
        may_count = any(left <= {attempt} for attempt in failed)
        assert (row in progress.failed) == (row not in succeeded and may_count)


@given(st.lists(results_told()), st.lists(records))
def test_an_attempt_that_is_over_is_so_for_good_and_costs_once(
    ended: list[dict[str, Any]], submissions: list[dict[str, Any]]
) -> None:
    again = [record for record in submissions if record["is"] == "over"]
    over = {(record["row"], record["attempt"]) for record in again}
    progress = Progress.told(ROWS, ended, [*submissions, *again])
    known = sum(result["used_credits"] for result in filter(progress.counting(), ended))
    assert progress.totals.credits == known + len(over)
    for row, attempt in over:
        assert attempt not in progress.open(row)


@given(st.lists(records), st.integers(0, ROWS - 1), numbers)
def test_what_is_told_of_an_attempt_tells_of_no_other(
    submissions: list[dict[str, Any]], row: int, attempt: float
) -> None:
    def left(told: list[dict[str, Any]]) -> set[float]:
        return Progress.told(ROWS, [], told).open(row) - {attempt}

    others = [told for told in submissions if (told["row"], told["attempt"]) != (row, attempt)]
    assert left(others) == left(submissions)


def test_a_failure_does_not_count_while_another_attempt_is_open(place: str) -> None:
    state = begun(place, ["a"])
    end(state, 0, 1.0, "failed")
    note(state, 0, 2.0, "begun")
    assert (progress_of(state).totals.done, progress_of(state).begun) == (0, {0: {2.0}})
    note(state, 0, 2.0, "orphaned", key=1)
    assert progress_of(state).totals.failed == 1
    note(state, 0, 2.0, "begun")  # the same, written again as the answer of the storage was lost
    assert progress_of(state).totals.failed == 1


def test_a_late_failure_of_an_attempt_that_is_over_changes_nothing(place: str) -> None:
    state = begun(place, ["a"])
    note(state, 0, 1.0, "begun")
    note(state, 0, 1.0, "accepted", url="u")
    end(state, 0, 1.0, "failed", credits=1)
    assert forget_failed(state) == 1
    note(state, 0, 2.0, "begun")
    for _ in range(2):  # by one who has polled the first run too, and stood still
        end(state, 0, 1.0, "failed", credits=1)
        assert (progress_of(state).totals.done, progress_of(state).begun) == (0, {0: {2.0}})
        assert forget_failed(state) == 0
    assert progress_of(state).begun == {0: {2.0}}, "a submission that may be in flight is not forgotten"
    end(state, 0, 1.0, "failed", credits=1)
    end(state, 0, 2.0, credits=5)
    assert [result["status"] for result in published(state)] == ["SUCCESS"]
    assert progress_of(state).totals.credits == 6


def test_a_success_counts_wherever_it_is_read(place: str) -> None:
    state, first, second = begun(place, ["a"]), State(place), State(place)
    first.claim(batch_of(state), "an engine")
    note(first, 0, 1.0, "begun")
    first.results.append([])
    second.claim(batch_of(state), "an engine")
    note(second, 0, 1.0, "accepted", url="u")
    end(second, 0, 1.0)
    end(first, 0, 1.0, "not over after 3 s", is_known=False)
    assert [result["status"] for result in published(state)] == ["SUCCESS"]
    assert forget_failed(state) == 0


def test_what_failed_attempts_have_cost_counts_once_though_more_have_failed_since(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = begun(place, ["a", "b"])
    for row in range(2):
        note(state, row, 1.0, "begun")
        end(state, row, 1.0, "failed", credits=1)
        with monkeypatch.context() as patch, suppress(OSError):
            Trouble(patch, type(state.results), "rewrite", {1} if row == 0 else set())
            forget_failed(state)
    assert progress_of(state).totals.credits == 2


def test_an_attempt_is_orphaned_once(place: str) -> None:
    state = begun(place, ["a"])
    for attempt in (1.0, 1.0, 2.0):
        note(state, 0, attempt, "orphaned", key=1)
    assert progress_of(state).orphaned == [1, 1]


# Who begins, goes on, or writes late


def test_of_two_who_begin_one_has_begun(place: str) -> None:
    first, second = State(place), State(place)

    def rows() -> Iterator[Row]:
        yield Row(1, "{}")
        second.begin(iter(rows_of(["a", "b", "c"])), about(3))
        second.results.append([{"batch": batch_of(second), **result_of(0, 1, 1.0, None, "", may_succeed=False)}])
        yield Row(2, "{}")

    with pytest.raises(Superseded, match="has begun"):
        first.begin(rows(), about(2))
    batch = batch_of(second)
    assert [row.key for row in State(place).rows(batch)] == [1, 2, 3]
    assert progress_of(second).totals.succeeded == 1


def test_of_two_who_begin_anew_one_has_begun(place: str) -> None:
    first, second = begun(place, ["old"]), State(place)
    earlier = first.header()

    def rows() -> Iterator[Row]:
        second.begin(iter(rows_of(["a", "b"])), about(2), earlier)
        yield Row(1, "{}")

    with pytest.raises(Superseded, match="Another process"):
        first.begin(rows(), about(1), earlier)
    header = header_of(State(place))
    assert (header.rows, header.number) == (2, 2)
    assert [row.key for row in State(place).rows(header.batch)] == [1, 2]


def test_who_tells_late_that_he_has_not_submitted_tells_it_of_himself(place: str) -> None:
    """He stood still, has seen then that he is superseded, and his successor has submitted the row and was killed."""
    state = begun(place, ["a"])
    for what, attempt in (("begun", 1.0), ("begun", 2.0), ("not sent", 1.0)):
        note(state, 0, attempt, what)
    assert progress_of(state).begun == {0: {2.0}}
    note(state, 0, 2.0, "not sent")
    assert progress_of(state).begun == {}


def test_who_begins_anew_lets_nobody_submit_for_the_old_batch_meanwhile(place: str) -> None:
    state, old = begun(place, ["old"]), State(place)
    old.claim(batch_of(state), "an engine")

    def rows() -> Iterator[Row]:
        old.submissions.append([{"batch": "old", "row": 0}])
        assert old.submissions.is_superseded
        yield Row(1, "{}")

    state.begin(rows(), about(1), state.header())


def test_who_stood_still_when_it_had_begun_leaves_it_to_his_successor(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = State(place), State(place)
    create = type(first.storage).create

    def stands_still(*arguments: Any) -> None:
        create(*arguments)
        second.claim(batch_of(second), "a worker")

    monkeypatch.setattr(type(first.storage), "create", stands_still)
    header = first.begin(iter(rows_of(["a"])), about(1))
    with pytest.raises(Superseded):
        first.forget_failed(header)
    assert second.forget_failed(header) == 0


def test_an_input_that_is_refused_leaves_nothing(place: str) -> None:
    state = State(place)

    def refused(batch: str, number: int) -> Header:
        raise AixplainPermanentError("bad rows")

    with pytest.raises(AixplainPermanentError, match="bad rows"):
        state.begin(iter(rows_of(["a"])), refused)
    assert state.header() is None
    assert not [name for name in names(place) if "rows" in name]


def test_who_is_not_told_that_it_has_begun_has_begun(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the answer of an object storage is lost."""
    state = State(place)
    create = type(state.storage).create

    def lost(*arguments: Any) -> None:
        create(*arguments)
        raise OSError("reset")

    monkeypatch.setattr(type(state.storage), "create", lost)
    with pytest.raises(OSError, match="reset"):
        state.begin(iter(rows_of(["a", "b"])), about(2))
    assert len(list(State(place).rows(batch_of(state)))) == 2


def stands_still_then(monkeypatch: pytest.MonkeyPatch, state: State, meanwhile: Callable[[], Any]) -> None:
    """Let others go on before the next one rewrites; it holds no lock, as if its host had been frozen for long."""
    kind = type(state.results)
    rewrite = kind.rewrite

    def late(self: Any, keep: Any) -> None:
        monkeypatch.setattr(kind, "rewrite", rewrite)
        meanwhile()
        rewrite(self, keep)

    monkeypatch.setattr(kind, "rewrite", late)
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)


def test_who_stood_still_forgets_no_failures_that_he_has_not_seen(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    state = begun(place, ["a", "b"], delay=0)
    run(state, model_id="fail")

    def meanwhile() -> None:
        forget_failed(state)
        run(state, model_id="fail")

    stands_still_then(monkeypatch, state, meanwhile)
    with suppress(OSError):  # somebody else has removed records
        forget_failed(state)
    assert len(results(state)) == 2


def test_who_stood_still_as_he_began_takes_no_results_of_a_later_batch(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = begun(place, ["old"], delay=0)
    run(state)

    def meanwhile() -> None:
        begun(place, ["new", "new too"], delay=0)
        run(state)

    stands_still_then(monkeypatch, state, meanwhile)
    with suppress(OSError):
        begun(place, ["in between"], delay=0)
    assert {result["data"] for result in results(state)} == {"new", "new too"}


@pytest.mark.parametrize("removes", [State.forget_failed, State.publish])
def test_who_is_superseded_removes_nothing(place: str, removes: Callable[[State, Header], Any]) -> None:
    state = begun(place, ["a", "b"], delay=0)
    old, new, batch = State(place), State(place), batch_of(state)
    old.claim(batch, "a worker")
    run(state, model_id="fail")
    new.claim(batch, "a worker")
    before = [list(journal.read()) for journal in (state.submissions, state.results)]
    with pytest.raises(Superseded):
        removes(old, header_of(old))
    assert [list(journal.read()) for journal in (state.submissions, state.results)] == before


def test_what_failed_tries_have_cost_counts_once_whoever_is_killed(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    state = begun(place, ["a", "b"], delay=0)
    before = run(state, model_id="fail").progress.totals
    with monkeypatch.context() as patch:
        Trouble(patch, type(state.results), "rewrite", {1, 2})
        for _ in range(2):
            with pytest.raises(OSError, match="SlowDown"):
                forget_failed(state)
    forget_failed(state)
    assert list(state.results.read()) == []
    assert progress_of(state).totals == replace(before, failed=0)


def test_who_begins_anew_late_does_not_take_the_place_of_a_batch_that_goes_on(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker with another input stood still; the input has changed back, and its successor has done what was left."""
    first, second = begun(place, ["a"], delay=0), State(place)
    earlier = header_of(first)
    kind = type(first.storage)
    create = kind.create

    def late(*arguments: Any) -> None:
        monkeypatch.setattr(kind, "create", create)
        second.go_on(earlier)
        run(second)
        create(*arguments)

    monkeypatch.setattr(kind, "create", late)
    with pytest.raises(Superseded, match="goes on with it"):
        first.begin(iter(rows_of(["b"])), about(1), earlier)
    assert batch_of(State(place)) == earlier.batch
    assert len(results(State(place))) == 1
    assert not [name for name in names(place) if name.startswith("rows-2")]


def test_of_two_who_go_on_one_does(place: str) -> None:
    state = begun(place, ["a"])
    header = header_of(state)
    assert State(str(state)).go_on(header).number == 2
    with pytest.raises(Superseded):
        State(str(state)).go_on(header)


def test_who_claims_late_a_batch_whose_place_another_one_has_taken_is_told(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or else a worker that finishes would take the results of the other one for those of nobody."""
    state = begun(place, ["old"], delay=0)
    batch, claim = batch_of(state), State._claim

    def late(self: State, *arguments: str) -> None:
        monkeypatch.setattr(State, "_claim", claim)
        begun(place, ["new"], delay=0)
        run(state)
        claim(self, *arguments)

    monkeypatch.setattr(State, "_claim", late)
    with pytest.raises(Deleted, match="another batch"):
        State(place).claim(batch, "a worker that finishes")
    assert [result["data"] for result in results(state)] == ["new"]


def test_a_batch_that_is_not_to_be_seen_yet_is_not_taken_for_deleted(place: str) -> None:
    """NFS shows a folder as it was, for up to a minute, to who has looked for the file before."""
    state = begun(place, ["a"])
    with pytest.raises(OSError, match="not to be seen yet"):
        state.claim("2-later", "an engine")


@pytest.mark.parametrize("name", ["results.parquet", "manifest.json"])
def test_who_writes_late_leaves_what_his_successor_has_written(place: str, name: str) -> None:
    state, old, new = begun(place, ["a"]), State(place), State(place)
    old.claim(batch_of(state), "a worker that finishes")

    def writes_late() -> None:
        with old.writing(name) as file:
            file.write(b"old, and much longer")
            new.claim(batch_of(state), "a worker that finishes")
            with new.writing(name) as other:
                other.write(b"new")
            file.write(b", and then some")

    with pytest.raises(Superseded):
        writes_late()
    assert state.storage.content(name) == b"new"
    assert [found for found in names(place) if name in found] == [name], "nothing else is left"


def test_a_success_that_comes_while_it_is_published_stays(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)  # NFS has taken the lock from who stands still
    state = begun(place, ["a"])
    note(state, 0, 1.0, "begun")
    end(state, 0, 1.0, "failed")
    progress, writer = State.progress, State(place)

    def stands_still(self: State, header: Header) -> Progress:
        found = progress(self, header)
        monkeypatch.setattr(State, "progress", progress)
        end(writer, 0, 2.0)
        return found

    monkeypatch.setattr(State, "progress", stands_still)
    finisher = State(place)
    finisher.publish(finisher.claim(batch_of(state), "a worker that finishes"))
    assert progress_of(state).totals.succeeded == 1


def test_what_a_failed_run_has_cost_is_kept_though_another_one_is_open(place: str) -> None:
    state = begun(place, ["a"])
    note(state, 0, 1.0, "accepted", url="u")
    end(state, 0, 2.0, "failed", credits=5)
    published(state)
    assert progress_of(state).totals.done == 0
    forget_failed(state)
    assert progress_of(state).totals.credits == 5
    assert progress_of(state).accepted == {0: {1.0: "u"}}
