"""How the ledger applies the records of a batch, in the order of the log."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_aixplain.batch.ledger import AttemptEvent, Header, Ledger, RowState
from tests.unit.batch.batches import result_record

ROWS = 2
INTENT, ACCEPTED, REJECTED, IN_DOUBT = list(AttemptEvent)[:4]
names = st.sampled_from([1.0, 2.0, 3.0])


def event(row: int, name: float, what: AttemptEvent) -> dict[str, Any]:
    return {"event": what.value, "batch": "b", "row": row, "attempt": name, "url": "u", "key": row + 1}


events = st.builds(event, st.integers(0, ROWS - 1), names, st.sampled_from([INTENT, ACCEPTED, REJECTED, IN_DOUBT]))
results = st.builds(
    lambda row, name, how, ended: {
        **result_record("b", row, name, how[0], credits=1, may_succeed=how[1], is_known=how[2]),
        "ended_at": str(ended),
    },
    st.integers(0, ROWS - 1),
    names,
    st.sampled_from([("", False, True), ("failed", True, True), ("failed", False, True), ("time is up", True, False)]),
    st.uuids(),
)
histories = st.lists(events | results | st.just({"event": "requeue", "batch": "b"}), max_size=30)


def fold(records: list[dict[str, Any]]) -> Ledger:
    ledger = Ledger()
    ledger.apply(Header("b", "f", ROWS, 0, [], "2026-01-01T00:00:00+00:00").record())
    for record in records:
        ledger.apply(record)
    return ledger


def state_of(ledger: Ledger, row: int) -> RowState:
    state = ledger.state("b", row)
    assert state is not None
    return state


def succeeded(records: list[dict[str, Any]]) -> set[int]:
    return {record["row"] for record in records if record.get("status") == "SUCCESS"}


@given(histories)
def test_a_row_has_at_most_one_result(records: list[dict[str, Any]]) -> None:
    ledger = fold(records)
    found = list(filter(ledger.result_filter(), records))
    assert [sum(result["row"] == row for result in found) for row in range(ROWS)] == list(ledger.done)
    assert ledger.totals.done == len(found) == ledger.totals.succeeded + len(ledger.failed)
    assert {result["row"] for result in found if result["status"] == "SUCCESS"} == succeeded(records)
    assert ledger.totals.succeeded == len(succeeded(records))


@given(histories)
def test_a_row_fails_only_if_no_attempt_is_open(records: list[dict[str, Any]]) -> None:
    ledger = fold(records)
    for row in range(ROWS):
        state = state_of(ledger, row)
        if row not in succeeded(records):
            assert not state.is_done or not (state.accepted or state.intents)
        assert (row in ledger.failed) == (state.is_done and row not in succeeded(records))


@given(histories)
def test_each_known_end_of_an_attempt_is_paid_once(records: list[dict[str, Any]]) -> None:
    known = {(record["row"], record["attempt"]) for record in records if record.get("is_known")}
    assert fold(records).totals.credits <= len(known)
    assert fold([*records, *records]).totals.credits <= len(known)
    if records and not succeeded(records):
        assert fold(records).totals.credits == len(known)


@given(st.lists(st.tuples(names, st.sampled_from([INTENT, ACCEPTED, IN_DOUBT])), max_size=8), st.randoms())
def test_facts_of_different_processes_commute(history: list[tuple[float, AttemptEvent]], dice: random.Random) -> None:
    """Each process reports its own attempt in order; how the log interleaves them does not matter."""
    by_name: dict[float, list[dict[str, Any]]] = {}
    for name, what in history:
        by_name.setdefault(name, []).append(event(0, name, what))

    def interleave() -> list[dict[str, Any]]:
        left = {name: list(records) for name, records in by_name.items()}
        order = [name for name, records in left.items() for _ in records]
        dice.shuffle(order)
        return [left[name].pop(0) for name in order]

    first, second = fold(interleave()), fold(interleave())
    assert state_of(first, 0) == state_of(second, 0)
    assert sorted(first.orphaned) == sorted(second.orphaned)


def test_a_requeued_attempt_is_closed_for_good() -> None:
    def end(name: float, error: str = "failed", **flags: bool) -> dict[str, Any]:
        return result_record("b", 0, name, error, credits=1, **flags)

    requeue = {"event": "requeue", "batch": "b"}

    def check(records: list[Any]) -> tuple[bool, float]:
        ledger = fold(records)
        return state_of(ledger, 0).is_done, ledger.totals.credits

    history = [event(0, 1.0, INTENT), event(0, 1.0, ACCEPTED), end(1.0)]
    assert check(history) == (True, 1)
    history += [requeue, end(1.0), event(0, 1.0, ACCEPTED)]
    assert check(history) == (False, 1), "a late failure of another process that has polled the same run"
    history += [event(0, 2.0, INTENT), end(1.0), event(0, 2.0, IN_DOUBT)]
    assert check(history) == (False, 1)
    assert fold(history).orphaned == [1]
    assert fold([*history, event(0, 2.0, ACCEPTED)]).orphaned == [1], "there may be a second run"
    assert fold([*history, event(0, 2.0, REJECTED)]).orphaned == [], "it was not submitted after all"
    assert check([*history, end(1.0, "")]) == (True, 1), "a success counts whenever it comes, and is paid once"


def test_records_of_an_earlier_batch_change_nothing() -> None:
    header = Header("later", "f", 1, 0, [], "2026-01-01T00:00:00+00:00")
    ledger = fold([result_record("b", 0, 1.0), header.record(), result_record("b", 0, 1.0)])
    assert ledger.state("b", 0) is None
    assert (ledger.batch, ledger.generation, ledger.totals.done) == ("later", 2, 0)


def test_costs_are_added_in_decimal() -> None:
    records = [result_record("b", 0, 1.0), result_record("b", 1, 2.0)]
    for record, credits in zip(records, (0.1, 0.2), strict=True):
        record.update(used_credits=credits, run_time=credits, tokens="7")
    totals = fold(records).totals
    assert (totals.credits, totals.run_time, totals.tokens) == (0.3, 0.3, 14)
