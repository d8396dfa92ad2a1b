"""Why a request failed or is invalid, and whether a retry can help."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class ErrorCategory(str, Enum):
    """The platform's classes of errors, by HTTP status code."""

    VALIDATION = "validation"
    AUTHENTICATION = "authentication"
    BILLING = "billing"
    RESOURCE = "resource"
    RATE_LIMIT = "rate limit"
    SUPPLIER = "supplier"
    PLATFORM = "platform or network"
    INTERNAL = "internal"
    SIZE = "answer too large"
    """This client's own: the answer exceeds its reader's size limit."""

    @classmethod
    def of(cls, status_code: int) -> ErrorCategory:
        """Return the category of an HTTP status code that is not a success."""
        return next((category for category, codes in _STATUS_CODES.items() if status_code in codes), cls.INTERNAL)


_STATUS_CODES = {
    ErrorCategory.VALIDATION: {400, *range(490, 500)},
    ErrorCategory.AUTHENTICATION: {401},
    ErrorCategory.BILLING: {402, *range(470, 480)},
    ErrorCategory.RESOURCE: {403, 404, *range(460, 470)},
    ErrorCategory.RATE_LIMIT: {429},
    ErrorCategory.SUPPLIER: set(range(480, 490)),
    ErrorCategory.PLATFORM: {500, 502, 503, 504},
}

RETRYABLE = {ErrorCategory.RATE_LIMIT, ErrorCategory.SUPPLIER, ErrorCategory.PLATFORM}
"""The categories of temporary errors."""


@dataclass(frozen=True)
class Failure:
    """Why a request failed.

    :param category: the class of the error.
    :param status_code: the HTTP status code, or None if there was no HTTP answer.
    :param is_sent: whether the platform may have received the request.
    :param retry_after: the seconds that the platform asks to wait before the next request, if any.
    """

    category: ErrorCategory
    status_code: int | None = None
    is_sent: bool = True
    retry_after: float | None = None

    @property
    def retryable(self) -> bool | None:
        """Whether the same request can succeed later; None if that is unknown (501, 505 and above)."""
        if self.category in RETRYABLE:
            return True
        if self.category is ErrorCategory.INTERNAL and not 400 <= (self.status_code or 0) <= 499:
            return None
        return False

    @property
    def may_be_accepted(self) -> bool:
        """Whether a submission that failed this way may have started a run: the platform has not refused it."""
        return self.is_sent and not 400 <= (self.status_code or 0) <= 499

    @property
    def is_too_large(self) -> bool:
        """Whether the answer exceeds the size limit of its reader."""
        return self.category is ErrorCategory.SIZE

    @property
    def is_denied(self) -> bool:
        """Whether the platform refused the key, or does not know the run, model or agent."""
        return self.category in (ErrorCategory.AUTHENTICATION, ErrorCategory.RESOURCE)


class InvalidInput(ValueError):
    """An argument that cannot be sent; the message names it and the remedy."""


class RequestFailed(Exception):
    """A request failed whose result is not a :class:`~airflow_provider_aixplain.protocol.response.ModelResponse`.

    :param failure: why.
    :param message: what happened.
    """

    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(message)
        self.failure = failure
