"""Fine-tuning: how far the training of a model is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from airflow_provider_aixplain.protocol.asset import AssetStatus, asset_status
from airflow_provider_aixplain.protocol.failure import InvalidInput
from airflow_provider_aixplain.protocol.values import parse_number, to_storable
from airflow_provider_aixplain.protocol.wire import Answer, NoResponse, read_object, unreadable

_FAILED = {AssetStatus.FAILED, AssetStatus.REJECTED, AssetStatus.CANCELED, AssetStatus.DELETED}


@dataclass(frozen=True)
class FinetuneStatus:
    """The state of a fine-tuning.

    :param status: the state of the training; a text if the platform uses a word that is not known here.
    :param model_status: the state of the model that is being made; likewise.
    :param epoch: the epoch that the losses are of, or None.
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
        """Whether the model is made and can be run."""
        return self.model_status == AssetStatus.ONBOARDED

    @property
    def has_failed(self) -> bool:
        """Whether the model will not be made."""
        return not _FAILED.isdisjoint((self.status, self.model_status))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON types."""
        plain: dict[str, Any] = to_storable(asdict(self))
        return plain


def check_epoch(after_epoch: float | None) -> None:
    """Return if an epoch can be asked for.

    :raises InvalidInput: if it is no number, and not None.
    """
    if after_epoch is not None and (isinstance(after_epoch, bool) or not isinstance(after_epoch, (int, float))):
        raise InvalidInput(f"after_epoch is {after_epoch!r}: give the number of an epoch, or None")


def read_finetune_status(outcome: Answer | NoResponse, after_epoch: float | None = None) -> FinetuneStatus:
    """Return what the training logs say.

    Of the epochs the last one counts, or the first one later than ``after_epoch``. Several logs of one epoch are one:
    the first, with the losses that later ones tell. Logs without an epoch count for nothing.

    :param outcome: what came back for the request.
    :param after_epoch: the epoch that the caller knows already.
    :raises RequestFailed: if the platform refuses, or what it answers is no fine-tuning.
    """
    body = read_object(outcome, "fine-tuning")
    status, model_status = asset_status(body.get("finetuneStatus")), asset_status(body.get("modelStatus"))
    if status is None or model_status is None:
        raise unreadable("fine-tuning", "does not name finetuneStatus and modelStatus", body)
    logs = body.get("logs")
    logs = [log for log in logs if isinstance(log, dict)] if isinstance(logs, list) else []
    epochs = [epoch for log in logs if (epoch := _epoch(log)) is not None]
    if after_epoch is None:
        epoch = max(epochs, default=None)
    else:
        epoch = min((epoch for epoch in epochs if epoch > after_epoch), default=None)
    if epoch is None:
        return FinetuneStatus(status, model_status)
    told = [log for log in logs if _epoch(log) == epoch]
    return FinetuneStatus(status, model_status, epoch, _last(told, "trainLoss"), _last(told, "evalLoss"))


def _epoch(log: dict[str, Any]) -> float | None:
    return None if (epoch := parse_number(log.get("epoch"))) is None else float(epoch)


def _last(logs: list[dict[str, Any]], name: str) -> float | None:
    losses = [loss for log in logs if (loss := parse_number(log.get(name))) is not None]
    return float(losses[-1]) if losses else None
