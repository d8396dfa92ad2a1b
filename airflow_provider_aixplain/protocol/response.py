"""``ModelResponse``, and how it is read from an answer of the platform."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from airflow_provider_aixplain.protocol import statuses
from airflow_provider_aixplain.protocol.failure import Failure
from airflow_provider_aixplain.protocol.statuses import NO_REASON
from airflow_provider_aixplain.protocol.statuses import ResponseStatus as ResponseStatus
from airflow_provider_aixplain.protocol.values import parse_number, to_printable, to_storable


@dataclass(repr=False)
class ModelResponse:
    """What the platform reports of a run.

    Fields and additional fields can also be read and set as items, as in ``response["data"]``; ``used_credits`` and
    ``run_time`` also as ``usedCredits`` and ``runTime``, the platform's spelling.

    Fields hold what the platform sent, including null. Only three have a fixed type: ``status`` is a
    :class:`ResponseStatus`, ``completed`` a boolean and ``error_message`` a string, all derived by
    :mod:`~airflow_provider_aixplain.protocol.statuses`. A status in another spelling is kept in ``additional_fields``.

    :param status: the state of the run.
    :param data: the output of the model: a string, or any other JSON value; for an agent an object
        with fields such as ``output`` and ``steps``.
    :param details: further output, an object or a list.
    :param completed: whether the run has finished.
    :param error_message: the platform's message: why the run failed, or a warning if it succeeded; otherwise empty.
    :param used_credits: the cost of the run, in credits; 0 if the platform does not state it.
    :param run_time: how long the model or agent ran, in seconds; 0 if the platform does not state it.
    :param usage: token counts (``prompt_tokens``, ``completion_tokens``, ``total_tokens``) if the supplier reports
        them: numbers, numeric strings, ``"NaN"`` or null.
    :param url: the poll URL of an accepted run.
    :param error_code: the platform's code of an error.
    :param asset: the asset that answered (``assetId``, ``id``).
    :param additional_fields: every other key of the answer.
    :param failure: why the request failed. The platform does not send it, so it is not in :meth:`to_dict`.
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
        """Return the fields as plain JSON types, as they are stored in XComs."""
        return {name: to_storable(getattr(self, name)) for name in FIELDS}

    def get(self, key: str, default: Any = None) -> Any:
        """Return an item, or ``default`` if it does not exist."""
        try:
            return self[key]
        except KeyError:
            return default

    def __getitem__(self, key: str) -> Any:
        """Return a field, an additional field, ``usedCredits`` or ``runTime``.

        :raises KeyError: if it does not exist.
        """
        holder, name = self._locate(key)
        return holder[name]

    def __setitem__(self, key: str, value: Any) -> None:
        """Set what :meth:`__getitem__` returns.

        :raises KeyError: if it does not exist.
        """
        holder, name = self._locate(key)
        holder[name] = value

    def __contains__(self, key: object) -> bool:
        """Return whether an item exists."""
        try:
            self._locate(key)
        except KeyError:
            return False
        return True

    def __repr__(self) -> str:
        """Return the fields that are not empty, with long values cut."""
        named = {k: v for k in FIELDS if k not in ("status", "additional_fields") and (v := getattr(self, k))}
        parts = [f"status={self.status}", *(f"{k}={v!r:.200}" for k, v in (named | self.additional_fields).items())]
        return f"{type(self).__name__}({', '.join(parts)})"

    def _locate(self, key: Any) -> tuple[dict[str, Any], str]:
        if isinstance(key, str):
            if key in FIELDS:
                return self.__dict__, key
            if key in _SPELLINGS:
                return self.__dict__, _SPELLINGS[key]
            if key in self.additional_fields:
                return self.additional_fields, key
        raise KeyError(f"the response has no {key!r}")


def failure_reason(response: ModelResponse) -> str:
    """Return why a run or a request failed, as text for errors and logs."""
    return to_printable(response.error_message or NO_REASON)


def format_cost(response: ModelResponse | Mapping[str, Any]) -> str:
    """Return the duration and the cost of a run, as text for logs.

    :param response: a :class:`ModelResponse`, or one as a dict.
    """
    usage = response["usage"]
    tokens = parse_number(usage.get("total_tokens")) if isinstance(usage, Mapping) else None
    cost = f"{parse_number(response['run_time']) or 0:.1f} s, for {response['used_credits']} credits"
    return to_printable(cost if tokens is None else f"{cost} and {tokens:.0f} tokens")


FIELDS = [f.name for f in fields(ModelResponse) if f.name != "failure"]
_SPELLINGS = {"usedCredits": "used_credits", "runTime": "run_time"}


def read_response(
    body: dict[str, Any], *, has_data: bool | None = None, completed: bool | None = None
) -> ModelResponse:
    """Return the response of an answer's JSON object.

    If the answer spells a key in two ways, one becomes the field, and the other is kept in ``additional_fields``.

    :param has_data: whether the run has output; default: whether the answer's ``data`` is output.
    :param completed: replaces the answer's ``completed``.
    """
    status, is_completed, message = statuses.decide_status(body, has_data=has_data, completed=completed)
    rest = dict(body)

    def pop_first(default: Any, *keys: str) -> Any:
        """Remove all nulls of these keys, and remove and return the first other value."""
        if rest.keys().isdisjoint(keys):
            return default
        sent = [key for key in keys if key in rest]
        for key in sent:
            if rest[key] is None:
                del rest[key]
        chosen = next((key for key in sent if key in rest), None)
        return None if chosen is None else rest.pop(chosen)

    if rest.get("status") in (None, status.value):
        rest.pop("status", None)
    if isinstance(rest.get("completed"), (bool, type(None))):
        rest.pop("completed", None)
    if rest.get("error_message") in (None, ""):
        rest.pop("error_message", None)
    pop_first("", *filter(rest.get, ("error_message", "errorMessage")))  # the one that becomes the reason
    for keys in (statuses.CREDITS[0], statuses.RUN_TIME[0]):
        if not rest.keys().isdisjoint(keys):  # for speed: a run in progress has none of them
            pop_first(0, *sorted(keys, key=lambda key: not statuses.is_figure(rest.get(key))))
    pop_first(None, "error_code")
    return ModelResponse(
        status=status,
        data=pop_first("", "data"),
        details=pop_first({}, "details"),
        completed=is_completed,
        error_message=message,
        used_credits=statuses.find_credits(body),
        run_time=statuses.find_run_time(body),
        usage=pop_first(None, "usage"),
        url=pop_first(None, "url"),
        error_code=statuses.find_error_code(body),
        asset=pop_first(None, "asset"),
        additional_fields=rest,
    )
