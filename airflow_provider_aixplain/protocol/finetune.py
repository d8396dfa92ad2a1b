"""The progress of a fine-tuning."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from airflow_provider_aixplain.protocol.failure import InvalidInput
from airflow_provider_aixplain.protocol.model_record import AssetStatus, to_member
from airflow_provider_aixplain.protocol.values import parse_number, to_storable
from airflow_provider_aixplain.protocol.wire import Answer, NoResponse, read_object, unusable_answer_error

_FAILED = {AssetStatus.FAILED, AssetStatus.REJECTED, AssetStatus.CANCELED, AssetStatus.DELETED}


@dataclass(frozen=True)
class FinetuneStatus:
    """The state of a fine-tuning.

    :param status: the state of the training; a string if the platform sends an unknown state.
    :param model_status: the state of the resulting model, in the same form.
    :param epoch: the epoch of the losses, or None.
    :param training_loss: the loss on the training data after that epoch, or None.
    :param validation_loss: the loss on the validation data after that epoch, or None.
    """

    status: AssetStatus | str
    model_status: AssetStatus | str
    epoch: float | None = None
    training_loss: float | None = None
    validation_loss: float | None = None

    @property
    def is_ready(self) -> bool:
        """Whether the model is ready to run."""
        return self.model_status == AssetStatus.ONBOARDED

    @property
    def has_failed(self) -> bool:
        """Whether the fine-tuning has failed or was cancelled."""
        return not _FAILED.isdisjoint((self.status, self.model_status))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON types."""
        plain: dict[str, Any] = to_storable(asdict(self))
        return plain


def check_epoch(after_epoch: float | None) -> None:
    """Check the argument ``after_epoch``.

    :raises InvalidInput: if it is neither a number nor None.
    """
    if after_epoch is not None and (isinstance(after_epoch, bool) or not isinstance(after_epoch, (int, float))):
        raise InvalidInput(f"after_epoch is {after_epoch!r}: give the number of an epoch, or None")


def read_finetune_status(outcome: Answer | NoResponse, after_epoch: float | None = None) -> FinetuneStatus:
    """Return the status of a fine-tuning from its training logs.

    The losses are those of the last epoch, or of the first one after ``after_epoch``. If an epoch has several log
    entries, the last value of each loss counts. Entries without an epoch are ignored.

    :param outcome: the answer to the request for the logs.
    :param after_epoch: the last epoch that the caller knows.
    :raises RequestFailed: if the platform refuses, or the answer does not describe a fine-tuning.
    """
    body = read_object(outcome, "fine-tuning")
    status, model_status = (to_member(AssetStatus, body.get(key)) for key in ("finetuneStatus", "modelStatus"))
    if status is None or model_status is None:
        raise unusable_answer_error("fine-tuning", "does not name finetuneStatus and modelStatus", body)
    logs = body.get("logs")
    logs = [log for log in logs if isinstance(log, dict)] if isinstance(logs, list) else []
    epochs = [epoch for log in logs if (epoch := _epoch(log)) is not None]
    if after_epoch is None:
        epoch = max(epochs, default=None)
    else:
        epoch = min((epoch for epoch in epochs if epoch > after_epoch), default=None)
    if epoch is None:
        return FinetuneStatus(status, model_status)
    logs = [log for log in logs if _epoch(log) == epoch]
    return FinetuneStatus(status, model_status, epoch, _last(logs, "trainLoss"), _last(logs, "evalLoss"))


def _epoch(log: dict[str, Any]) -> float | None:
    return None if (epoch := parse_number(log.get("epoch"))) is None else float(epoch)


def _last(logs: list[dict[str, Any]], name: str) -> float | None:
    losses = [loss for log in logs if (loss := parse_number(log.get(name))) is not None]
    return float(losses[-1]) if losses else None
