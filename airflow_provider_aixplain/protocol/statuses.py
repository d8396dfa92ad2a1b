"""The status, the reason and the cost of a run, read from an answer of the platform.

Polls, submissions and streams use :func:`decide_status`; ``wire.read_submission`` also considers the poll URL, and
``stream`` whether the stream is complete.

================================  =================  ==========================================================
``status`` (any case)             ``completed``      the run
================================  =================  ==========================================================
SUCCESS, COMPLETED                true or absent     succeeded
SUCCESS, COMPLETED                false              is running
FAILED, ABORTED, CANCELLED,       any                failed
CANCELED, ERROR
IN_PROGRESS or absent             false or absent    is running
IN_PROGRESS or absent             true               succeeded, or failed if the answer has a reason
any other                         false or absent    is running
any other                         true               succeeded if the answer has ``data`` and no reason, or failed
================================  =================  ==========================================================

An unknown status of a completed run is always reported in ``error_message``. The platform's own clients disagree about
it: the model class of ``aixplain.modules`` ignores it, its team agents and ``aixplain.v2`` treat it as a failure. Here
the run has succeeded if the answer has output, which is billed, and failed otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from enum import Enum
from typing import Any

from airflow_provider_aixplain.protocol.values import parse_number, parse_time, sum_decimals, to_printable, to_text


class ResponseStatus(str, Enum):
    """The states of a run."""

    IN_PROGRESS = "IN_PROGRESS"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"

    def __str__(self) -> str:
        """Return the platform's spelling."""
        return self.value


NO_REASON = "the platform gives no reason"

_SUCCEEDED = frozenset({"SUCCESS", "COMPLETED"})
_FAILED = frozenset({"FAILED", "ABORTED", "CANCELLED", "CANCELED", "ERROR"})
_RUNNING = frozenset({"", "IN_PROGRESS"})
_REASONS = frozenset({"error_message", "errorMessage", "errorDetails", "error", "supplierError"})

# The keys of costs, in order of precedence: at the top level of an answer, in data.executionStats, in data itself, and
# in each of data.steps.
CREDITS = (
    ("usedCredits", "used_credits"),
    ("credits", "usedCredits", "used_credits", "totalCredits", "total_credits"),
    ("usedCredits", "used_credits"),
    ("usedCredits", "used_credits", "credits"),
)
RUN_TIME = (
    ("runTime", "run_time"),
    ("runtime", "runTime", "run_time", "duration"),
    ("runTime", "run_time"),
    ("runTime", "run_time", "runtime"),
)


def decide_status(
    body: Mapping[str, Any], *, has_data: bool | None = None, completed: bool | None = None
) -> tuple[ResponseStatus, bool, str]:
    """Return the status of a run, whether it has finished, and the reason of a failure or a warning.

    :param body: an answer of the platform.
    :param has_data: whether the run has output; default: whether the answer's ``data`` is not empty.
    :param completed: replaces the answer's ``completed``.
    """
    status = normalize_status(body)
    reason = find_reason(body)
    if completed is None and isinstance(body.get("completed"), bool):
        completed = body["completed"]
    if status in _FAILED:
        reason = reason or _text(body.get("message"))
        return ResponseStatus.FAILED, True, reason if status == "FAILED" else f"{status}: {reason or NO_REASON}"
    if not completed and not (status in _SUCCEEDED and completed is None):
        return ResponseStatus.IN_PROGRESS, False, reason
    if status in _SUCCEEDED:
        return ResponseStatus.SUCCESS, True, reason
    if status in _RUNNING:
        return (ResponseStatus.FAILED if reason else ResponseStatus.SUCCESS), True, reason
    unknown = f"the platform reports the unknown status {to_printable(repr(body['status']))}"
    if reason:
        return ResponseStatus.FAILED, True, f"{unknown}: {reason}"
    if not (has_output(body) if has_data is None else has_data):
        return ResponseStatus.FAILED, True, f"{unknown} and no data"
    return ResponseStatus.SUCCESS, True, f"{unknown}; the run counts as a success, as its answer has data"


def normalize_status(body: Mapping[str, Any]) -> str:
    """Return the status of an answer in upper case; empty if there is none. A status that is no string becomes JSON."""
    status = body.get("status")
    return re.sub("[- ]", "_", to_text(status).strip().upper()) if status else ""


def is_running(status: str) -> bool:
    """Return whether a normalized status is "in progress" or empty."""
    return status in _RUNNING


def is_success(status: str) -> bool:
    """Return whether a normalized status is a success."""
    return status in _SUCCEEDED


def has_output(body: Mapping[str, Any]) -> bool:
    """Return whether an answer's ``data`` is output. 0 and false are; null, empty strings and collections are not."""
    data = body.get("data")
    return data is not None and data not in ("", {}, [])


def find_reason(body: Mapping[str, Any]) -> str:
    """Return the platform's message: why a run failed, or a warning. It is empty if there is none."""
    data = body.get("data")
    if not isinstance(data, dict) and body.keys().isdisjoint(_REASONS):
        return ""
    error = data.get("error") if isinstance(data, dict) else None
    reasons = (
        body.get("error_message"),
        body.get("errorMessage"),
        body.get("errorDetails"),
        body.get("error"),
        # data is the model's output: a number in its "error", such as an error rate, is not a reason.
        error if isinstance(error, (str, dict)) else None,
        _governance_reason(data),
    )
    reason = next((text for value in reasons if (text := _text(value))), "")
    supplier = _text(body.get("supplierError"))
    return f"{reason} - {supplier}" if supplier and supplier not in reason else reason


def find_error_code(body: Mapping[str, Any]) -> Any:
    """Return the platform's code of an error, or None."""
    details = [body.get("errorDetails"), body.get("error")]
    codes = [body.get("error_code"), *(detail.get("code") for detail in details if isinstance(detail, dict))]
    return next((code for code in codes if code is not None), None)


def find_credits(body: Mapping[str, Any]) -> Any:
    """Return the cost of a run, in credits: the first value above 0; otherwise the top-level value as sent, or 0."""
    return _find_figure(body, CREDITS, lambda steps: None)


def find_run_time(body: Mapping[str, Any]) -> Any:
    """Return the duration of a run, in seconds: the first value above 0; otherwise the top-level value, or 0."""
    return _find_figure(body, RUN_TIME, _measure_span)


def _find_figure(
    body: Mapping[str, Any], keys: tuple[tuple[str, ...], ...], measure: Callable[[list[dict[str, Any]]], float | None]
) -> Any:
    """Return the first value above 0. ``measure`` returns the total of all steps, or None to add up their values."""
    top, in_statistics, in_data, in_steps = keys
    top_values = [body[key] for key in top if key in body]
    for value in top_values:
        if is_figure(value):
            return value
    data = body.get("data")
    if isinstance(data, dict):
        statistics = data.get("executionStats") or data.get("execution_stats")
        steps = data.get("steps")
        steps = [step for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []
        totals = (measure(steps), _sum(steps, in_steps))
        for value in (*_values(statistics, in_statistics), *_values(data, in_data), *totals):
            if is_figure(value):
                return parse_number(value)
    return next((value for value in top_values if value is not None), None if top_values else 0)


def is_figure(value: Any) -> bool:
    """Return whether a value is a cost or a duration above 0: a number or a numeric string."""
    return (parse_number(value) or 0) > 0


def _values(holder: Any, keys: Iterable[str]) -> list[Any]:
    return [holder.get(key) for key in keys] if isinstance(holder, dict) else []


def _measure_span(steps: list[dict[str, Any]]) -> float | None:
    """Return the seconds from the start of the first step to the end of the last. Steps may overlap."""
    starts = [time for step in steps if (time := _time(step, "start_time", "startTime"))]
    ends = [time for step in steps if (time := _time(step, "end_time", "endTime"))]
    return (ends[-1] - starts[0]).total_seconds() if starts and ends else None


def find_step_figures(step: dict[str, Any]) -> tuple[float, float]:
    """Return the duration of an agent's step, in seconds, and its cost, in credits; 0 if they are unknown."""
    seconds = _sum([step], RUN_TIME[3]) or _measure_span([step]) or 0
    return max(seconds, 0), _sum([step], CREDITS[3])


def _sum(steps: list[dict[str, Any]], keys: tuple[str, ...]) -> float:
    figures = (next(filter(is_figure, _values(step, keys)), 0) for step in steps)
    return sum_decimals(parse_number(figure) or 0 for figure in figures)


def _time(step: dict[str, Any], *keys: str) -> datetime | None:
    return next((time for key in keys if (time := parse_time(step.get(key)))), None)


def _governance_reason(data: Any) -> str:
    """Return why the platform ended an agent's run early, such as at the cap of its budget; empty if it did not."""
    status = to_text(data.get("governanceStatus")) if isinstance(data, dict) else ""
    return f"{status}: {_text(data.get('governanceReason')) or NO_REASON}" if status.startswith("BLOCKED") else ""


def _text(value: Any) -> str:
    """Return a reason as a string: a string unchanged, an object's message and code, anything else as JSON."""
    if isinstance(value, dict) and value.get("message"):
        code = value.get("code")
        return to_text(value["message"]) + ("" if code is None else f" (error code {to_text(code)})")
    return to_text(value) if value else ""
