"""Usage records: their validation, their sums per day, and what the page shows of them. Pure functions."""

from __future__ import annotations

import heapq
import json
import math
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from decimal import Context, Decimal
from itertools import compress, islice
from typing import Annotated, Any, NamedTuple

from pydantic import Field, NonNegativeFloat, NonNegativeInt, TypeAdapter
from typing_extensions import Required, TypedDict

EXACT = Context(prec=80)
"""Adds without rounding: a record's credits have at most 50 digits, and 30 of them after the point."""

TOP_STACKS, TOP_TASKS, MAX_OPTIONS = 9, 10, 1000

RATIO = 1.1
"""Ratio of the limits of a bucket of durations: their geometric mean is at most 5 % from each."""

SHORTEST = 1e-3
"""Seconds: shorter durations count as none."""

NOTHING = Decimal(0)


class Batch(TypedDict):
    """The progress of a batch, in rows."""

    rows: NonNegativeInt
    done: NonNegativeInt
    failed: NonNegativeInt
    in_flight: NonNegativeInt
    started_at: datetime
    updated_at: datetime
    is_finished: bool


Seconds = Annotated[NonNegativeFloat, Field(allow_inf_nan=False)]


class Usage(TypedDict, total=False):
    """The usage record of a task instance, see :mod:`airflow_provider_aixplain.protocol.usage`, without other fields.

    A million are read, so it is what pydantic reads fastest: no class, and the credits as text.
    """

    model_id: str
    agent_id: str
    page: str
    runs: Required[dict[Annotated[str, Field(max_length=50)], NonNegativeInt]]
    credits: Required[Annotated[str, Field(pattern=r"^\d{1,20}(\.\d{1,30})?$")]]
    tokens: Annotated[NonNegativeInt, Field(lt=2**63)]
    run_time: Seconds | None
    wait_time: Seconds | None
    batch: Batch
    revision: NonNegativeInt


class _State(TypedDict, total=False):
    usage: Usage | None


_read_usage = TypeAdapter(Usage).validate_json
_read_state = TypeAdapter(_State).validate_json


def parse_xcom(text: str) -> Usage:
    """Return the record in the JSON of an XCom, which Airflow may have encoded twice.

    :raises ValueError: if it is malformed.
    """
    return _check(_read_usage(json.loads(text) if text.startswith('"') else text))


def parse_state(text: str) -> Usage | None:
    """Return the record in the JSON of a task's state; None if it has none.

    :raises ValueError: if it is malformed.
    """
    usage = _read_state(text).get("usage")
    return _check(usage) if usage else None


def _check(usage: Usage) -> Usage:
    if "model_id" not in usage and "agent_id" not in usage:
        raise ValueError("neither model_id nor agent_id")
    return usage


def asset_of(usage: Usage) -> str:
    """Return ``model:ID`` or ``agent:ID``."""
    return f"agent:{usage['agent_id']}" if "agent_id" in usage else f"model:{usage['model_id']}"


def outcomes_of(usage: Usage) -> dict[str, int]:
    """Return the number of runs by outcome, without zeros."""
    return {outcome: number for outcome, number in usage["runs"].items() if number}


class DagRun(NamedTuple):
    """The identity of a DAG run."""

    id: int
    dag_id: str
    run_id: str
    run_after: datetime


class Record(NamedTuple):
    """The usage of a task instance."""

    dag_run: DagRun
    task_id: str
    map_index: int
    usage: Usage

    @property
    def key(self) -> tuple[int, str, int]:
        """DAG run, task and map index."""
        return self.dag_run.id, self.task_id, self.map_index

    @property
    def order(self) -> tuple[datetime, int, str, int]:
        """What the table is sorted by."""
        return self.dag_run.run_after, *self.key


# Sums per day


class Group(NamedTuple):
    """The sums of those task instances of a day that differ in nothing that the page filters or stacks by."""

    dag_id: str
    task_id: str
    asset: str
    outcomes: tuple[str, ...]
    tasks: int
    credits: Decimal
    tokens: int
    runs: tuple[int, ...]
    """For each of the outcomes."""
    run_times: bytes
    """The bucket of each duration."""
    wait_times: bytes


class Rows(NamedTuple):
    """The task instances of a day in the order of their DAG runs, in columns, as there may be a million in a year."""

    group: array[int]
    dag_run_id: array[int]
    map_index: array[int]
    credits: array[float]


class Day(NamedTuple):
    """What is kept of a day, or of a part of it."""

    groups: list[Group]
    rows: Rows


def count_day(records: Iterable[Record]) -> Day:
    """Sum up the records of a day."""
    found: dict[tuple[str, str, str, tuple[str, ...]], list[Usage]] = {}
    numbers: dict[tuple[str, str, str, tuple[str, ...]], int] = {}
    rows: list[tuple[int, int, int, float]] = []
    for record in sorted(records, key=lambda record: record.order):
        usage = record.usage
        key = record.dag_run.dag_id, record.task_id, asset_of(usage), tuple(sorted(outcomes_of(usage)))
        found.setdefault(key, []).append(usage)
        number = numbers.setdefault(key, len(numbers))
        rows.append((number, record.dag_run.id, record.map_index, float(usage["credits"])))
    columns = zip(*rows, strict=True) if rows else ((), (), (), ())
    kept = Rows(*(array(kind, column) for kind, column in zip("Iqid", columns, strict=True)))
    return Day([_sum_up(key, usages) for key, usages in found.items()], kept)


def _sum_up(key: tuple[str, str, str, tuple[str, ...]], usages: list[Usage]) -> Group:
    return Group(
        *key,
        tasks=len(usages),
        credits=add(Decimal(usage["credits"]) for usage in usages),
        tokens=sum(usage.get("tokens", 0) for usage in usages),
        runs=tuple(sum(usage["runs"][outcome] for usage in usages) for outcome in key[3]),
        run_times=bytes(bucket(time) for usage in usages if (time := usage.get("run_time")) is not None),
        wait_times=bytes(bucket(time) for usage in usages if (time := usage.get("wait_time")) is not None),
    )


def add(values: Iterable[Decimal]) -> Decimal:
    """Add without rounding."""
    total = NOTHING
    for value in values:
        total = EXACT.add(total, value)
    return total


def bucket(seconds: float) -> int:
    """Return the number of a duration's bucket. The last one has all durations above a year."""
    return 0 if seconds < SHORTEST else min(255, 1 + int(math.log(seconds / SHORTEST, RATIO)))


def quantile(buckets: Counter[int], share: float) -> float | None:
    """Return the duration that this share does not exceed, in seconds; None without any duration."""
    rank = math.ceil(share * buckets.total())
    for number in sorted(buckets):
        rank -= buckets[number]
        if rank <= 0:
            return float(f"{SHORTEST * RATIO ** (number - 0.5):.4g}") if number else 0.0
    return None


# What the page shows


class Filters(NamedTuple):
    """What a user wants to see. An empty filter accepts everything."""

    dag_ids: Collection[str] = ()
    assets: Collection[str] = ()
    outcomes: Collection[str] = ()

    def accept(self, dag_id: str, asset: str, outcomes: Iterable[str]) -> bool:
        """Return whether a task instance is shown; by outcome if it has at least one run with it."""
        return (
            (not self.dag_ids or dag_id in self.dag_ids)
            and (not self.assets or asset in self.assets)
            and (not self.outcomes or any(outcome in self.outcomes for outcome in outcomes))
        )


STACKS: dict[str, Callable[[Group], str]] = {
    "asset": lambda group: group.asset,
    "dag": lambda group: f"dag:{group.dag_id}",
    "kind": lambda group: f"kind:{group.asset.partition(':')[0]}",
}
"""What a day's credits are stacked by."""


class Summary:
    """Sums, charts and options of the filters, of one day after the other.

    :param readable: the DAGs that the user may read. Others are left out before anything is added up.
    :param stack: a key of :data:`STACKS`.
    """

    def __init__(self, readable: Collection[str], filters: Filters, stack: str) -> None:
        self.readable = readable
        self.filters = filters
        self._stack_of = STACKS[stack]
        self._stacks: dict[str, dict[str, Decimal]] = {}
        self._outcomes: dict[str, Counter[str]] = {}
        self._per_task: dict[tuple[str, str], tuple[Decimal, int, str]] = {}
        self._run_times, self._wait_times = Counter[int](), Counter[int]()
        self._tasks = self._tokens = 0
        self._dag_ids, self._assets, self._seen_outcomes = set[str](), set[str](), set[str]()

    def add_day(self, day: str, groups: Sequence[Group]) -> bytearray:
        """Add a day, and return for each of its groups whether it is shown."""
        stacked: dict[str, Decimal] = {}
        counts = Counter[str]()
        shown = bytearray(len(groups))
        for index, group in enumerate(groups):
            if group.dag_id not in self.readable:
                continue
            self._dag_ids.add(group.dag_id)
            self._assets.add(group.asset)
            self._seen_outcomes.update(group.outcomes)
            if not self.filters.accept(group.dag_id, group.asset, group.outcomes):
                continue
            shown[index] = True
            self._tasks += group.tasks
            self._tokens += group.tokens
            for outcome, number in zip(group.outcomes, group.runs, strict=True):
                counts[outcome] += number
            stack, task = self._stack_of(group), (group.dag_id, group.task_id)
            stacked[stack] = EXACT.add(stacked.get(stack, NOTHING), group.credits)
            spent, runs, _ = self._per_task.get(task, (NOTHING, 0, ""))
            self._per_task[task] = EXACT.add(spent, group.credits), runs + sum(group.runs), group.asset
        accepted = list(compress(groups, shown))
        self._run_times.update(b"".join(group.run_times for group in accepted))
        self._wait_times.update(b"".join(group.wait_times for group in accepted))
        if accepted:
            self._stacks[day], self._outcomes[day] = stacked, counts
        return shown

    def answer(self) -> dict[str, Any]:
        """Return what the API answers, except for what is read from the database."""
        per_stack: dict[str, Decimal] = {}
        for stacked in self._stacks.values():
            for stack, value in stacked.items():
                per_stack[stack] = EXACT.add(per_stack.get(stack, NOTHING), value)
        largest = set(heapq.nlargest(TOP_STACKS, per_stack, key=lambda stack: (per_stack[stack], stack)))
        outcomes = sum(self._outcomes.values(), Counter[str]())
        tasks = heapq.nlargest(TOP_TASKS, self._per_task.items(), key=lambda item: (item[1][0], item[0]))
        return {
            "totals": {
                "credits": show(add(per_stack.values())),
                "runs": outcomes.total(),
                "tasks": self._tasks,
                "tokens": self._tokens,
                "outcomes": dict(outcomes),
            },
            "days": [{"day": day, "credits": _merge_small(of, largest)} for day, of in sorted(self._stacks.items())],
            "outcomes_by_day": [{"day": day, "outcomes": dict(of)} for day, of in sorted(self._outcomes.items())],
            "durations": {"run_time": describe(self._run_times), "wait_time": describe(self._wait_times)},
            "tasks": [
                {"dag_id": dag_id, "task_id": task_id, "credits": show(spent), "runs": runs, **asset_fields(asset)}
                for (dag_id, task_id), (spent, runs, asset) in tasks
            ],
            "total_runs_rows": self._tasks,
            "filters": {
                "dag_ids": sorted(self._dag_ids)[:MAX_OPTIONS],
                "model_ids": _ids("model:", self._assets),
                "agent_ids": _ids("agent:", self._assets),
                "outcomes": sorted(self._seen_outcomes)[:MAX_OPTIONS],
            },
        }


def describe(buckets: Counter[int]) -> dict[str, float | int | None]:
    """Return median, 95th percentile and number of durations."""
    return {"median": quantile(buckets, 0.5), "p95": quantile(buckets, 0.95), "count": buckets.total()}


def show(value: Decimal) -> str:
    """Return all digits of a number, without an exponent and trailing zeros."""
    return format(value.normalize(EXACT), "f")


def asset_fields(asset: str) -> dict[str, str]:
    """Return an asset as the field ``model_id`` or ``agent_id``."""
    kind, _, asset_id = asset.partition(":")
    return {f"{kind}_id": asset_id}


def _ids(kind: str, assets: Iterable[str]) -> list[str]:
    return sorted(asset.removeprefix(kind) for asset in assets if asset.startswith(kind) and asset != kind)[
        :MAX_OPTIONS
    ]


def _merge_small(stacked: dict[str, Decimal], largest: set[str]) -> dict[str, str]:
    shown = {stack: show(value) for stack, value in stacked.items() if stack in largest}
    rest = [value for stack, value in stacked.items() if stack not in largest]
    return {**shown, "other": show(add(rest))} if rest else shown


def select_rows(days: Sequence[tuple[Rows, bytearray]], sort: str, limit: int, offset: int) -> list[tuple[int, int]]:
    """Return one page of the table, as indexes of day and row.

    :param days: the rows of each day in order of time, and which of its groups are shown.
    :param sort: ``run_after`` or ``credits``; with a ``-``, descending.
    """
    step = -1 if sort.startswith("-") else 1
    found = (
        (rows.credits[row], day, row)
        for day, (rows, shown) in list(enumerate(days))[::step]
        for row in range(len(rows.group))[::step]
        if shown[rows.group[row]]
    )
    if sort.endswith("run_after"):
        return [(day, row) for _, day, row in islice(found, offset, offset + limit)]
    pick = heapq.nlargest if step < 0 else heapq.nsmallest
    return [(day, row) for _, day, row in pick(offset + limit, found)[offset:]]
