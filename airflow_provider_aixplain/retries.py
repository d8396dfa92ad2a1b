"""A retry policy for the platform's errors (Airflow 3.3 and later)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_aixplain import compat
from airflow_provider_aixplain.exceptions import (
    AixplainError,
    AixplainInputError,
    AixplainRunFailed,
    AixplainRunTimeout,
)
from airflow_provider_aixplain.protocol.failure import ErrorCategory

if TYPE_CHECKING:
    from airflow.sdk import Context, RetryDecision, RetryPolicy
else:
    RetryPolicy, RetryDecision = compat.retry_policy_types()

Action = Literal["fail", "now", "after", "default"]

RUN_FAILED = "run failed"
RUN_TIMEOUT = "run timeout"

ACTIONS: Mapping[str, Action] = MappingProxyType(
    {
        ErrorCategory.RATE_LIMIT.value: "after",
        ErrorCategory.SUPPLIER.value: "after",
        ErrorCategory.PLATFORM.value: "after",
        ErrorCategory.INTERNAL.value: "default",
        RUN_FAILED: "default",
        RUN_TIMEOUT: "default",
    }
)
"""The default action for each class of errors. Permanent errors reach no policy: Airflow fails the task at once."""

MAX_RETRY_AFTER = timedelta(hours=1)
"""The longest delay of a retry that the platform can request."""


class AixplainRetryPolicy(RetryPolicy):
    """Retries by class of error, within the task's ``retries``, which no policy can exceed.

    :param actions: the action for each class of errors: ``fail`` at once; retry ``now``; retry ``after`` the delay of
        the platform's ``Retry-After``, up to an hour, or else after the task's ``retry_delay``; or ``default``, as
        without a policy. The classes are ``rate limit``, ``supplier``, ``platform or network`` and ``internal``, as in
        an error's ``category``, ``run failed`` (:class:`AixplainRunFailed`) and ``run timeout``
        (:class:`AixplainRunTimeout`; the next try resumes the same run if the task is ``durable`` and does not stream).
        Default: :data:`ACTIONS`. Airflow decides about all other errors.
    :raises AixplainInputError: if there is no such class or action.
    """

    def __init__(self, actions: Mapping[str, Action] = MappingProxyType({})) -> None:
        for kind, action in actions.items():
            if kind not in ACTIONS:
                raise AixplainInputError(f"actions has {kind!r}: use {', '.join(ACTIONS)}")
            if action not in ("fail", "now", "after", "default"):
                raise AixplainInputError(f"actions[{kind!r}] is {action!r}: use fail, now, after or default")
        self.actions: dict[str, Action] = {**ACTIONS, **actions}

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """Return the decision about an error."""
        if not isinstance(exception, AixplainError):
            return RetryDecision.default()
        kind = _kind(exception)
        action = self.actions.get(kind, "default")
        if action == "fail":
            return RetryDecision.fail(f"{kind}: not retried, by the task's retry policy")
        if action == "now":
            return RetryDecision.retry(timedelta(0), f"{kind}: retried at once")
        retry_after = exception.retry_after
        if action == "after" and retry_after is not None:
            delay = min(timedelta(seconds=retry_after), MAX_RETRY_AFTER)
            return RetryDecision.retry(
                delay, f"{kind}: retried after {delay.total_seconds():g} s, as the platform requests"
            )
        return RetryDecision.default()

    def serialize(self) -> dict[str, Any]:
        """Return this policy as plain JSON types."""
        return {"actions": self.actions}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> AixplainRetryPolicy:
        """Return the policy that :meth:`serialize` describes."""
        return cls(data["actions"])


def _kind(error: AixplainError) -> str:
    if isinstance(error, AixplainRunFailed):
        return RUN_FAILED
    if isinstance(error, AixplainRunTimeout):
        return RUN_TIMEOUT
    return error.category or ""
