"""How the ledger applies the records of a batch, in the order of the log."""

from __future__ import annotations

import random
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_aixplain.batch.commit_log import Record
from airflow_provider_aixplain.batch.ledger import AttemptEvent, Ledger
from tests.unit.batch.batches import attempt_record, make_header, result_record, state_of

ROWS = 2
INTENT, ACCEPTED, REJECTED, IN_DOUBT = list(AttemptEvent)[:4]
REQUEUE = {"event": "requeue", "batch": "b"}


def event(row: int, name: float, what: AttemptEvent) -> Record:
    return attempt_record(row, name, what, url="u", key=row + 1)


rows, names = st.integers(0, ROWS - 1), st.sampled_from([1.0, 2.0, 3.0])
events = st.builds(event, rows, names, st.sampled_from([INTENT, ACCEPTED, REJECTED, IN_DOUBT]))
result = partial(st.builds, result_record, rows, names, ended_at=st.uuids().map(str))
failures = result(st.just("failed"), may_succeed=st.booleans())
expiries = result(st.just("time is up"), is_known=st.just(False))
histories = st.lists(events | result() | failures | expiries | st.just(REQUEUE), max_size=30)


def fold(records: list[Record]) -> Ledger:
    ledger = Ledger()
    for record in [make_header(rows=ROWS).record(), *records]:
        ledger.apply(record)
    return ledger


def succeeded(records: list[Record]) -> set[int]:
    return {record["row"] for record in records if record.get("status") == "SUCCESS"}


@given(histories)
def test_a_row_has_one_result_once_no_attempt_is_open(records: list[Record]) -> None:
    ledger = fold(records)
    found = list(filter(ledger.result_filter(), records))
    assert [sum(result["row"] == row for result in found) for row in range(ROWS)] == list(ledger.done)
    assert ledger.totals.done == len(found) == ledger.totals.succeeded + len(ledger.failed)
    assert succeeded(found) == succeeded(records)
    assert ledger.totals.succeeded == len(succeeded(records))
    for row in set(range(ROWS)) - succeeded(records):
        state = state_of(ledger, row)
        assert not state.is_done or not (state.accepted or state.intents)
        assert (row in ledger.failed) == state.is_done


@given(histories)
def test_each_known_end_of_an_attempt_is_paid_once(records: list[Record]) -> None:
    known = {(record["row"], record["attempt"]) for record in records if record.get("is_known")}
    assert fold(records).totals.credits <= len(known)
    assert fold([*records, *records]).totals.credits <= len(known)
    if records and not succeeded(records):
        assert fold(records).totals.credits == len(known)


@given(st.lists(st.tuples(names, st.sampled_from([INTENT, ACCEPTED, IN_DOUBT])), max_size=8), st.randoms())
def test_facts_of_different_processes_commute(history: list[tuple[float, AttemptEvent]], dice: random.Random) -> None:
    """Each process reports its own attempt in order; how the log interleaves them does not matter."""

    def interleave() -> list[Record]:
        order = [name for name, _ in history]
        dice.shuffle(order)
        left = {name: [event(0, name, what) for other, what in history if other == name] for name in order}
        return [left[name].pop(0) for name in order]

    first, second = fold(interleave()), fold(interleave())
    assert state_of(first, 0) == state_of(second, 0)
    assert sorted(first.orphaned) == sorted(second.orphaned)


def test_a_requeued_attempt_stays_closed() -> None:
    def check(records: list[Record]) -> tuple[bool, float]:
        ledger = fold(records)
        return state_of(ledger, 0).is_done, ledger.totals.credits

    failure = result_record(0, 1.0, "failed")
    history = [event(0, 1.0, INTENT), event(0, 1.0, ACCEPTED), failure]
    assert check(history) == (True, 1)
    history += [REQUEUE, failure, event(0, 1.0, ACCEPTED)]
    assert check(history) == (False, 1), "a late failure of another process that has polled the same run"
    history += [event(0, 2.0, INTENT), failure, event(0, 2.0, IN_DOUBT)]
    assert check(history) == (False, 1)
    assert fold(history).orphaned == [1]
    assert fold([*history, event(0, 2.0, ACCEPTED)]).orphaned == [1], "there may be a second run"
    assert fold([*history, event(0, 2.0, REJECTED)]).orphaned == [], "it was not submitted after all"
    assert check([*history, result_record(0, 1.0)]) == (True, 1), "a success counts whenever it comes, and is paid once"


def test_records_of_an_earlier_batch_change_nothing() -> None:
    ledger = fold([result_record(0, 1.0), make_header("later").record(), result_record(0, 1.0)])
    assert ledger.state("b", 0) is None
    assert (ledger.batch, ledger.generation, ledger.totals.done) == ("later", 2, 0)


def test_costs_are_added_in_decimal() -> None:
    costs: list[Record] = [{"used_credits": number, "run_time": number, "tokens": "7"} for number in (0.1, 0.2)]
    totals = fold([result_record(row, 1.0, **cost) for row, cost in enumerate(costs)]).totals
    assert (totals.credits, totals.run_time, totals.tokens) == (0.3, 0.3, 14)
