"""The answer of a model: ``ModelResponse``, and how it is read from what the platform sends."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import Enum
from typing import Any

from airflow_provider_aixplain.protocol.failure import Failure
from airflow_provider_aixplain.protocol.values import as_text, number, printable, storable, time


class ResponseStatus(str, Enum):
    """The states of a run that the platform knows."""

    IN_PROGRESS = "IN_PROGRESS"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"

    def __str__(self) -> str:
        """Return the platform's word for it."""
        return self.value


@dataclass(repr=False)
class ModelResponse:
    """What the platform says of a run.

    Its fields can be read and set as items too: ``response["data"]``. So can the additional ones, and ``usedCredits``
    and ``runTime`` by the platform's spelling.

    A field holds what the platform sent, null included, with three exceptions on which callers can build: ``status`` is
    one of the three known ones, ``completed`` a truth value and ``error_message`` a text. What was sent there and is
    none stays in ``additional_fields``.

    :param status: the state of the run.
    :param data: the output of the model: text, or any JSON value.
    :param details: further output, an object or a list.
    :param completed: whether the run is over.
    :param error_message: what went wrong, in the platform's words; empty if nothing did.
    :param used_credits: what the run cost, in credits.
    :param run_time: how long the model ran, in seconds.
    :param usage: token counts (``prompt_tokens``, ``completion_tokens``, ``total_tokens``) where the supplier counts;
        depending on the supplier numbers, texts that hold numbers, ``"NaN"`` or null.
    :param url: the poll URL of a run that was accepted.
    :param error_code: the platform's own code of an error.
    :param asset: which asset answered (``assetId``, ``id``).
    :param additional_fields: every other key of the answer.
    :param failure: why the request failed, for the caller; none of the platform's fields and so not in :meth:`to_dict`.
    """

    status: ResponseStatus
    data: Any = ""
    details: Any = field(default_factory=dict)
    completed: bool = False
    error_message: str = ""
    used_credits: Any = 0
    run_time: Any = 0
    usage: Any = None
    url: str | None = None
    error_code: Any = None
    asset: Any = None
    additional_fields: dict[str, Any] = field(default_factory=dict)
    failure: Failure | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON types all the way down, the way they go into XCom."""
        return {name: storable(getattr(self, name)) for name in FIELDS}

    def get(self, key: str, default: Any = None) -> Any:
        """Return an item, or ``default`` if there is none of that name."""
        try:
            return self[key]
        except KeyError:
            return default

    def __getitem__(self, key: str) -> Any:
        """Return a field, an additional field, ``usedCredits`` or ``runTime``.

        :raises KeyError: if the response has none of that name.
        """
        holder, name = self._place(key)
        return holder[name]

    def __setitem__(self, key: str, value: Any) -> None:
        """Set what :meth:`__getitem__` returns.

        :raises KeyError: if the response has none of that name.
        """
        holder, name = self._place(key)
        holder[name] = value

    def __contains__(self, key: object) -> bool:
        """Whether there is an item of that name."""
        try:
            self._place(key)
        except KeyError:
            return False
        return True

    def __repr__(self) -> str:
        """Return what is worth seeing: the fields that say something, long values shortened."""
        said = [(name, value) for name in FIELDS[1:-1] if (value := getattr(self, name))]
        shown = [f"{name}={_short.repr(value)}" for name, value in [*said, *self.additional_fields.items()]]
        return f"{type(self).__name__}({', '.join([f'status={self.status}', *shown])})"

    def _place(self, key: Any) -> tuple[dict[str, Any], str]:
        if isinstance(key, str):
            if key in FIELDS:
                return self.__dict__, key
            if key in self.additional_fields:
                return self.additional_fields, key
            if key in _SPELLINGS:
                return self.__dict__, _SPELLINGS[key]
        raise KeyError(f"the response has no {key!r}")


def told_cost(response: ModelResponse | Mapping[str, Any]) -> str:
    """Return what a run took and cost, for a log.

    :param response: a :class:`ModelResponse`, or one as a dict.
    """
    usage = response["usage"]
    tokens = number(usage.get("total_tokens")) if isinstance(usage, Mapping) else None
    told = f"{response['run_time']} s, for {response['used_credits']} credits"
    return printable(told if tokens is None else f"{told} and {tokens:.0f} tokens")


FIELDS = [f.name for f in fields(ModelResponse) if f.name != "failure"]
_SPELLINGS = {"usedCredits": "used_credits", "runTime": "run_time"}
_short = reprlib.Repr()
_short.maxstring = _short.maxother = 200
_short.maxdict = _short.maxlist = 10


def read_response(body: dict[str, Any], *, otherwise: ResponseStatus) -> ModelResponse:
    """Return the response that an answer's JSON object holds.

    Where the platform has two spellings of a key the seed's wins, unless it is null; the other one stays in
    ``additional_fields``.

    :param otherwise: the status of an answer that names none of the three known ones.
    """
    rest = dict(body)

    def take(default: Any, *keys: str) -> Any:
        if rest.keys().isdisjoint(keys):
            return default
        said = [key for key in keys if key in rest]
        for key in said:
            if rest[key] is None:
                del rest[key]
        told = next((key for key in said if key in rest), None)
        return None if told is None else rest.pop(told)

    def figure(of_parts: Callable[[dict[str, Any]], float | None], *keys: str) -> Any:
        told = take(0, *keys)
        data = body.get("data")
        if not isinstance(data, dict) or any(body.get(key) is not None for key in keys):
            return told
        measured = of_parts(data)
        return told if measured is None else measured

    status, completed = rest.get("status"), rest.get("completed")
    known = isinstance(status, str) and status in _KNOWN
    if known or status is None:
        rest.pop("status", None)
    if isinstance(completed, bool) or completed is None:
        rest.pop("completed", None)
    error_message = take("", "error_message", "errorMessage")
    if error_message in ("", None):
        error_message = as_text(rest.get("error") or None)
        if rest.get("supplierError") is not None:
            error_message = f"{error_message} - {as_text(rest['supplierError'])}"
    return ModelResponse(
        status=ResponseStatus(status) if known else otherwise,
        data=take("", "data"),
        details=take({}, "details"),
        completed=completed is True,
        error_message=as_text(error_message),
        used_credits=figure(_credits_of_parts, "usedCredits", "used_credits"),
        run_time=figure(_run_time_of_parts, "runTime", "run_time"),
        usage=take(None, "usage"),
        url=take(None, "url"),
        error_code=take(None, "error_code"),
        asset=take(None, "asset"),
        additional_fields=rest,
    )


_KNOWN = {status.value for status in ResponseStatus}


def _credits_of_parts(data: dict[str, Any]) -> float | None:
    """Return the credits that a run of several steps tells with its output: for all of them, else their sum."""
    whole = _figure(_statistics(data), "credits", "usedCredits", "used_credits", "totalCredits", "total_credits")
    parts = [_figure(step, "usedCredits", "used_credits", "credits") for step in _steps(data)]
    return whole if whole is not None else _sum(parts)


def _run_time_of_parts(data: dict[str, Any]) -> float | None:
    """Return the seconds that a run of several steps tells with its output.

    For all of them; else from the start of the first to the end of the last, as steps may overlap; else their sum.
    """
    whole = _figure(_statistics(data), "runtime", "runTime", "run_time", "duration")
    if whole is not None:
        return whole
    steps = _steps(data)
    starts = [found for step in steps if (found := _time(step, "start_time", "startTime"))]
    ends = [found for step in steps if (found := _time(step, "end_time", "endTime"))]
    if starts and ends and ends[-1] >= starts[0]:
        return (ends[-1] - starts[0]).total_seconds()
    return _sum([_figure(step, "runTime", "run_time", "runtime") for step in steps])


def _statistics(data: dict[str, Any]) -> dict[str, Any]:
    found = data.get("executionStats") or data.get("execution_stats")
    return found if isinstance(found, dict) else {}


def _steps(data: dict[str, Any]) -> list[dict[str, Any]]:
    steps = data.get("steps")
    return [step for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []


def _figure(mapping: dict[str, Any], *keys: str) -> float | None:
    return next((found for key in keys if (found := number(mapping.get(key))) is not None), None)


def _sum(parts: list[float | None]) -> float | None:
    said = [part for part in parts if part is not None]
    try:
        return math.fsum(said) if said else None
    except OverflowError:
        return None


def _time(step: dict[str, Any], *keys: str) -> datetime | None:
    return next((found for key in keys if (found := time(step.get(key)))), None)
