"""The usage record of a task instance: what its runs have cost, with all tries added up.

The record is a dict of JSON types, so that Airflow can store it and pages can read it without parsing results:

=========================  ===========================================================================================
key                        value
=========================  ===========================================================================================
``model_id``/``agent_id``  the id of the model or agent that was run last; empty if it is not known
``page``                   the URL of its page on the platform; empty if it is not known
``runs``                   the number of runs by outcome, as in the metric ``aixplain.runs``; of a batch the number of
                           rows by result, ``success`` or ``failed``
``credits``                their cost in credits, as an exact decimal number in a string
``tokens``                 their tokens
``run_time``               the duration of the last run, in seconds; None for a batch, and if it is not known
``wait_time``              seconds from its submission until the task had the result; None likewise
``batch``                  only of a batch: ``rows``, ``done``, ``failed``, ``in_flight``, ``started_at``,
                           ``updated_at`` and ``is_finished``
``last_id``, ``earlier``   the id of the last run or batch, and the sums without it
``revision``               increases with each change, except with the progress of a batch
=========================  ===========================================================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from airflow_provider_aixplain.protocol.assets import Asset
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus
from airflow_provider_aixplain.protocol.resumption import Submission
from airflow_provider_aixplain.protocol.values import parse_number

USAGE_KEY = "aixplain_usage"
"""The key of the XCom with the record."""

TOKENS = {"prompt": "prompt_tokens", "completion": "completion_tokens"}
"""The fields of ``usage`` in a response that count tokens, by kind."""


@dataclass(frozen=True)
class RunUsage:
    """What a run, or a batch, has cost so far.

    :param id: identifies it: the poll URL of a run, the time of a submission without one, or the id of a batch; may be
        empty. A later figure of the same id replaces the earlier one, so that a run is counted once however often a
        task waits for it.
    :param runs: the number of runs by outcome.
    :param credits: the cost.
    :param tokens: the tokens.
    :param run_time: the duration that the platform reports, in seconds.
    :param wait_time: seconds from the submission until the task had the result.
    :param batch: the state of a batch, as in the record.
    """

    id: str
    runs: Mapping[str, int]
    credits: Decimal = Decimal(0)
    tokens: int = 0
    run_time: float | None = None
    wait_time: float | None = None
    batch: Mapping[str, Any] | None = None


def run_usage(
    outcome: str, response: Mapping[str, Any] | None, run_id: str = "", wait_time: float | None = None
) -> RunUsage:
    """Return what a single run has cost.

    :param outcome: as in the metric ``aixplain.runs``.
    :param response: the ModelResponse as a dict, if there is one.
    :param run_id: the ``id``; default: the poll URL in the response.
    :param wait_time: as in :class:`RunUsage`.
    """
    figures = response or {}
    return RunUsage(
        id=run_id or str(figures.get("url") or ""),
        runs={outcome: 1},
        credits=credits_of(figures),
        tokens=count_tokens(figures.get("usage")),
        run_time=max(0, parse_number(figures.get("run_time")) or 0) or None,
        wait_time=wait_time,
    )


def earlier_usage(submission: Submission, response: ModelResponse | None) -> RunUsage:
    """Return what the run of an earlier try has cost, as far as it is known.

    :param submission: the record of the earlier try.
    :param response: the answer to a poll of the run, if there is one.
    """
    if not submission.is_answered:
        return run_usage("orphaned", None, submission.run_id)
    if response is None or not response.completed:
        return run_usage("error", None, submission.run_id)
    outcome = "failed" if response.status is ResponseStatus.FAILED else "success"
    return run_usage(outcome, response.to_dict(), submission.run_id)


def credits_of(response: Mapping[str, Any] | ModelResponse) -> Decimal:
    """Return the ``used_credits`` of a response; 0 if it does not state them."""
    return Decimal(repr(max(0, parse_number(response.get("used_credits")) or 0)))


def count_tokens(usage: Any) -> int:
    """Return the number of tokens in the ``usage`` of a response; 0 if it does not state it."""
    if not isinstance(usage, Mapping):
        return 0
    total = parse_number(usage.get("total_tokens"))
    parts = sum(parse_number(usage.get(name)) or 0 for name in TOKENS.values())
    return max(0, int(parts if total is None else total))


def add_usage(record: Mapping[str, Any] | None, usage: RunUsage, asset: Asset, page: str = "") -> dict[str, Any]:
    """Return the record of a task instance with the usage of a further run, or with newer figures of its last one.

    :param record: the record so far, if there is one.
    :param usage: of the run or batch.
    :param asset: what was run.
    :param page: the URL of its page on the platform.
    """
    record = record or {}
    is_same = bool(usage.id) and usage.id == record.get("last_id")
    earlier = record["earlier"] if is_same else {name: record[name] for name in _SUMS if name in record}
    sums = {
        "runs": dict(Counter(earlier.get("runs", {})) + Counter(usage.runs)),
        "credits": f"{Decimal(earlier.get('credits', '0')) + usage.credits:f}",
        "tokens": earlier.get("tokens", 0) + usage.tokens,
    }
    return {
        asset.id_name: asset.id,
        "page": page,
        **sums,
        "run_time": usage.run_time,
        "wait_time": None if usage.wait_time is None else round(usage.wait_time, 3),
        **({"batch": dict(usage.batch)} if usage.batch else {}),
        "last_id": usage.id,
        "earlier": earlier,
        "revision": record.get("revision", 0) + 1,
    }


def latest(stored: Mapping[str, Any] | None, xcom: Mapping[str, Any] | None) -> Any:
    """Return the latest of the two replicas of a record: that of the XCom, unless the store's has a higher revision."""
    if xcom is None or (stored is not None and stored.get("revision", 0) > xcom.get("revision", 0)):
        return stored
    return xcom


def has_counted(record: Mapping[str, Any] | None, run_id: str) -> bool:
    """Return whether a record has the cost of this run, as far as it will ever be known."""
    if record is None or record["last_id"] != run_id:
        return False
    last = Counter(record["runs"]) - Counter(record["earlier"].get("runs", {}))
    return not last.keys() & {"timeout", "error"}


def spent(record: Mapping[str, Any] | None) -> Decimal:
    """Return the credits that the runs of a task instance have cost."""
    return Decimal(record["credits"]) if record else Decimal(0)


_SUMS = ("runs", "credits", "tokens")
