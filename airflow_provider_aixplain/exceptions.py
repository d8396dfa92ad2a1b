"""The errors that DAGs can see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from airflow_provider_aixplain.compat import AirflowException, AirflowFailException
from airflow_provider_aixplain.protocol.assets import Asset
from airflow_provider_aixplain.protocol.failure import Failure, InvalidInput, RequestFailed
from airflow_provider_aixplain.protocol.response import ModelResponse, failure_reason


class AixplainError(AirflowException):
    """An error with aiXplain.

    :param message: what happened and what to do; never contains the key.
    :param status_code: the HTTP status code of the platform's answer, if there was one.
    :param category: the platform's class of the error, such as ``validation`` or ``rate limit``, if known.
    :param retryable: whether the same call can succeed later; None if unknown.
    :param retry_after: the seconds that the platform asks to wait before another request, if any.
    """

    status_code: int | None  # type: ignore[assignment] # Airflow's own exceptions hold the status that its API shows
    retryable: bool | None = None

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        category: str | None = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.category = category
        self.retry_after = retry_after
        if retryable is not None:
            self.retryable = retryable


class AixplainPermanentError(AixplainError, AirflowFailException):
    """An error that retrying cannot fix: the task fails immediately, without retrying."""

    retryable = False


class AixplainConfigurationError(AixplainPermanentError):
    """An invalid Connection; the message names the field and the remedy."""


class AixplainInputError(AixplainPermanentError, ValueError):
    """An invalid argument; nothing was sent."""


class AixplainNoStreaming(AixplainInputError, AssertionError):
    """Streaming was requested of a model that does not support it, or is not known to; nothing was sent."""


class AixplainUntrustedUrl(AixplainPermanentError):
    """A URL whose origin may not receive the key."""


class AixplainRunFailed(AixplainError):
    """The model or agent ran and failed, or an agent's answer does not match its ``expected_output``."""


class AixplainAwaitedRunFailed(AixplainRunFailed, AixplainPermanentError):
    """A run that a sensor waited for has failed: a retry would poll the same run."""


class AixplainRunTimeout(AixplainError):
    """The run did not finish in time. It continues, as the platform cannot cancel it."""


def error_from_failure(failure: Failure, message: str) -> AixplainError:
    """Return the error for a request that failed: a permanent one if retrying cannot fix it.

    :param failure: why the request failed.
    :param message: what happened.
    """
    kind = AixplainPermanentError if failure.retryable is False else AixplainError
    return kind(
        message,
        status_code=failure.status_code,
        category=failure.category.value,
        retryable=failure.retryable,
        retry_after=failure.retry_after,
    )


def submission_error(response: ModelResponse, asset: Asset, what: str = "the submission") -> AixplainError:
    """Return the error for a submission that was not accepted, or that was answered with the failure of its run.

    :param response: the response to the submission.
    :param asset: what was to be run.
    :param what: what was sent, for the message.
    """
    reason = failure_reason(response)
    if response.failure is None:
        return AixplainRunFailed(f"{asset.title}: the run failed: {reason}")
    return error_from_failure(response.failure, f"{asset.title}: {what} failed: {reason}")


def to_event(error: AixplainError) -> dict[str, Any]:
    """Return an error as plain JSON types, for a trigger's event."""
    fields = {name: getattr(error, name) for name in ("status_code", "category", "retryable", "retry_after")}
    return {"kind": type(error).__name__, "message": str(error), **fields}


def from_event(event: Mapping[str, Any]) -> AixplainError:
    """Return the error of :func:`to_event`."""
    kinds: list[type[AixplainError]] = [AixplainError, *_subclasses(AixplainError)]
    fields = dict(event)
    kind, message = fields.pop("kind"), fields.pop("message")
    return next(known for known in kinds if known.__name__ == kind)(message, **fields)


def _subclasses(kind: type[AixplainError]) -> Iterator[type[AixplainError]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


@contextmanager
def translate_protocol_errors() -> Iterator[None]:
    """Raise errors of ``protocol/`` as errors that DAGs can see.

    :raises AixplainInputError: for invalid input.
    :raises AixplainError: for a request that failed.
    """
    try:
        yield
    except InvalidInput as error:
        raise AixplainInputError(str(error)) from None
    except RequestFailed as error:
        raise error_from_failure(error.failure, str(error)) from None
