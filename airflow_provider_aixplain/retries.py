"""A retry policy that knows what aiXplain's errors say (Airflow 3.3 and later)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.common.compat.sdk import RetryDecision, RetryPolicy

from airflow_provider_aixplain.exceptions import (
    AixplainError,
    AixplainInputError,
    AixplainRunFailed,
    AixplainRunTimeout,
)
from airflow_provider_aixplain.protocol.failure import ErrorCategory

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

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
"""What is done with a class of errors unless somebody says otherwise. What no retry can mend comes to no policy: it
fails its task at once."""

LONGEST_ASKED = timedelta(hours=1)
"""How long a retry waits at most because the platform asks for it."""


class AixplainRetryPolicy(RetryPolicy):
    """Retries as the platform's errors ask for; within the task's ``retries``, which no policy can exceed.

    :param actions: what to do, by class of error: ``fail`` at once; retry ``now``; retry ``after`` the time that the
        platform has asked for with ``Retry-After``, up to an hour, or else after the task's ``retry_delay``; or
        ``default``, as without a policy. The classes are ``rate limit``, ``supplier``, ``platform or network`` and
        ``internal``, as an error's ``category`` says, ``run failed`` (:class:`AixplainRunFailed`) and ``run timeout``
        (:class:`AixplainRunTimeout`; where the task is ``durable`` and not a stream, the next try goes on with the same
        run). Those that are not named do as
        :data:`ACTIONS` says. Other errors than the provider's are left to Airflow.
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
        """Return what to do about an error."""
        if not isinstance(exception, AixplainError):
            return RetryDecision.default()
        kind = _kind(exception)
        action = self.actions.get(kind, "default")
        if action == "fail":
            return RetryDecision.fail(f"{kind}: not to be retried")
        if action == "now":
            return RetryDecision.retry(timedelta(0), f"{kind}: retried at once")
        asked = exception.retry_after
        if action == "after" and asked is not None:
            delay = min(timedelta(seconds=asked), LONGEST_ASKED)
            return RetryDecision.retry(
                delay, f"{kind}: retried after {delay.total_seconds():g} s, as the platform asks"
            )
        return RetryDecision.default()

    def serialize(self) -> dict[str, Any]:
        """Return this policy as plain JSON types."""
        return {"actions": self.actions}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> AixplainRetryPolicy:
        """Return the policy that :meth:`serialize` has told of."""
        return cls(data["actions"])


def _kind(error: AixplainError) -> str:
    if isinstance(error, AixplainRunFailed):
        return RUN_FAILED
    if isinstance(error, AixplainRunTimeout):
        return RUN_TIMEOUT
    return error.category or ""
