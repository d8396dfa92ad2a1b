"""Whether a later try of a task re-attaches to the run of an earlier one, submits another run, or fails.

Workers and triggers call :func:`decide`. They read the records and make the polls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import TYPE_CHECKING, Any

from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus
from airflow_provider_aixplain.protocol.values import to_printable

if TYPE_CHECKING:
    from typing_extensions import Self

CLEARED = "the task was cleared after it had received its result, so it is submitted again, which is billed"
NOT_DURABLE = (
    "this is a later try, and no submission of an earlier try is recorded: that needs Airflow 3.3 and durable=True."
    " The run may be submitted again, which is billed"
)


class Action(Enum):
    """What a try does about the submission of an earlier try."""

    REATTACH = "reattach"
    RESUBMIT = "resubmit"
    FAIL = "fail"


@dataclass(frozen=True)
class Decision:
    """An action and its reason.

    :param action: what to do.
    :param reason: why, for the log; empty if there is nothing to report.
    :param is_expected: whether the user has asked for it; anything else is logged as a warning.
    """

    action: Action
    reason: str = ""
    is_expected: bool = False


@dataclass(frozen=True)
class Submission:
    """A recorded submission of a task.

    :param fingerprint: identifies the endpoint, the model or agent, and the input.
    :param submitted_at: the time of the submission, in ISO 8601.
    :param poll_url: where to poll the run; None until the platform has accepted the submission.
    :param is_delivered: whether the task has received the result.
    :param response: the response as a dict, if the submission was answered with a final one.
    """

    fingerprint: str
    submitted_at: str
    poll_url: str | None = None
    is_delivered: bool = False
    response: dict[str, Any] | None = None

    @classmethod
    def from_stored(cls, record: Mapping[str, Any]) -> Self:
        """Return a stored record; unknown fields, as of another version, are ignored."""
        return cls(**{field.name: record[field.name] for field in fields(cls) if field.name in record})

    @property
    def is_answered(self) -> bool:
        """Whether the platform's answer is recorded."""
        return bool(self.poll_url or self.response)

    def final_response(self) -> ModelResponse | None:
        """Return the response, if the submission was answered with a final one."""
        if self.response is None:
            return None
        return ModelResponse(**{**self.response, "status": ResponseStatus(self.response["status"])})

    @property
    def run_id(self) -> str:
        """What identifies its run in the usage record: the poll URL, or the time of a submission without one."""
        return self.poll_url or self.submitted_at

    @property
    def orphan_message(self) -> str:
        """The description of a submission whose answer is not known."""
        return (
            f"an earlier try started a submission at {self.submitted_at}, and it is unknown whether the platform"
            " accepted it: there may be a billed run that no task waits for"
        )


def decide(
    earlier: Submission | None,
    fingerprint: str,
    *,
    on_orphaned: str,
    response: ModelResponse | None = None,
    is_same_try: bool = False,
    is_durable: bool = True,
    is_cleared: bool = False,
) -> Decision:
    """Decide about the submission of an earlier try, or of an earlier start of the same try.

    Without a response, ``REATTACH`` of another try's run is provisional: poll the run and decide again.

    :param earlier: the recorded submission; None if there is none.
    :param fingerprint: of what this try would submit.
    :param on_orphaned: ``resubmit`` or ``fail``: what to do if it is unknown whether the platform accepted it.
    :param response: the answer to a poll of the run. A failed poll, except with a 404, does not describe the run.
    :param is_same_try: whether this try made the submission, and its trigger was started again.
    :param is_durable: whether submissions of other tries may be used.
    :param is_cleared: whether the task was cleared after it had received the result of ``earlier``.
    """
    if is_cleared:
        return Decision(Action.RESUBMIT, CLEARED, is_expected=True)
    if not is_durable and not is_same_try:
        return Decision(Action.RESUBMIT, NOT_DURABLE, is_expected=True)
    if earlier is None:
        return Decision(Action.RESUBMIT)
    if not earlier.is_answered:
        return Decision(Action.FAIL if on_orphaned == "fail" else Action.RESUBMIT, earlier.orphan_message)
    reason = "" if is_same_try else _reason_not_resumable(earlier, fingerprint, response)
    return Decision(Action.RESUBMIT, reason) if reason else Decision(Action.REATTACH)


def is_not_found(response: ModelResponse) -> bool:
    """Whether the platform does not know the run that was polled."""
    return response.failure is not None and response.failure.status_code == 404


def is_rejected(response: ModelResponse) -> bool:
    """Whether there is no run that a later try could use: the submission was refused, or its run has failed."""
    failure = response.failure
    return response.status is ResponseStatus.FAILED and not (failure and failure.may_be_accepted)


def _reason_not_resumable(earlier: Submission, fingerprint: str, response: ModelResponse | None) -> str:
    url = to_printable(earlier.poll_url)
    if earlier.fingerprint != fingerprint:
        return f"model or agent, input or endpoint differ from those of the earlier try, whose run continues: {url}"
    if response is not None and is_not_found(response):
        return f"the platform does not know the run of the earlier try: {url}"
    if response is not None and response.completed and response.status is ResponseStatus.FAILED:
        return f"the run of the earlier try has failed: {url}"
    return ""
