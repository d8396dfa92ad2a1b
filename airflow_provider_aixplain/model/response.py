"""The answer of a model: ``ModelResponse``."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from airflow_provider_aixplain.model.failure import Failure


class ResponseStatus(str, Enum):
    """The states of a run that the platform knows."""

    IN_PROGRESS = "IN_PROGRESS"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"

    def __str__(self) -> str:
        """Return the platform's word for it."""
        return self.value


@dataclass
class ModelResponse:
    """What the platform says of a run.

    :param status: the state of the run.
    :param data: the output of the model: text, or any JSON value.
    :param details: further output, an object or a list.
    :param completed: whether the run is over.
    :param error_message: what went wrong, in the platform's words; empty if nothing did.
    :param used_credits: what the run cost, in credits.
    :param run_time: how long the model ran, in seconds.
    :param usage: token counts (``prompt_tokens``, ``completion_tokens``, ``total_tokens``) where the supplier counts.
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
    failure: Failure | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON types, the way they go into XCom."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "failure"}
        plain["status"] = self.status.value
        return plain
