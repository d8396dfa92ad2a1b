"""Fine-tuning."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from airflow_provider_aixplain.protocol.failure import InvalidInput, RequestFailed
from airflow_provider_aixplain.protocol.finetune import FinetuneStatus, check_epoch, read_finetune_status
from airflow_provider_aixplain.protocol.model_record import AssetStatus
from airflow_provider_aixplain.protocol.wire import Answer
from tests.unit.protocol.strategies import JSON

LOGS = [
    {"epoch": 2, "trainLoss": 0.5, "evalLoss": None},
    {"epoch": "1", "trainLoss": "0.9", "evalLoss": 1},
    {"epoch": 2, "trainLoss": None, "evalLoss": 0.7},
    {"epoch": 10, "evalLoss": "NaN"},
]


def read(logs: Any = None, after_epoch: float | None = None, **body: Any) -> FinetuneStatus:
    status_report = {"finetuneStatus": "training", "modelStatus": "draft", "logs": logs, **body}
    return read_finetune_status(Answer(200, json.dumps(status_report).encode()), after_epoch)


@pytest.mark.parametrize(
    ("after_epoch", "epoch", "training_loss", "validation_loss"),
    [
        (None, 10, None, None),
        (0, 1, 0.9, 1),
        (1, 2, 0.5, 0.7),
        (2, 10, None, None),
        (9.5, 10, None, None),
        (10, None, None, None),
    ],
)
def test_the_last_or_next_epoch_is_reported(
    after_epoch: float | None, epoch: float | None, training_loss: float | None, validation_loss: float | None
) -> None:
    status = read(LOGS, after_epoch)
    assert (status.epoch, status.training_loss, status.validation_loss) == (epoch, training_loss, validation_loss)


def test_the_last_losses_of_an_epoch_count() -> None:
    logs = [{"epoch": 1, "trainLoss": 3}, {"epoch": 1, "trainLoss": 2, "evalLoss": 5}, {"epoch": 1, "trainLoss": None}]
    assert read(logs) == FinetuneStatus(AssetStatus.TRAINING, AssetStatus.DRAFT, 1, 2, 5)


@pytest.mark.parametrize("logs", [None, [], "odd", [None, "odd", {}, {"epoch": None}, {"epoch": "x"}]])
def test_without_logs_there_is_no_epoch(logs: Any) -> None:
    assert read(logs) == FinetuneStatus(AssetStatus.TRAINING, AssetStatus.DRAFT)


@given(JSON, JSON)
def test_malformed_logs_are_ignored(logs: Any, value: Any) -> None:
    read(logs)
    json.dumps(read([{"epoch": value, "trainLoss": value, "evalLoss": value}]).to_dict(), allow_nan=False)


@pytest.mark.parametrize("after_epoch", ["1", True, [1]])
def test_an_invalid_epoch_is_refused(after_epoch: Any) -> None:
    with pytest.raises(InvalidInput, match="after_epoch is"):
        check_epoch(after_epoch)


def test_a_valid_epoch_is_accepted() -> None:
    for after_epoch in (None, 0, 1.5):
        check_epoch(after_epoch)


@pytest.mark.parametrize("body", [{"finetuneStatus": None}, {"modelStatus": 5}, {"modelStatus": ""}])
def test_an_answer_without_a_state_is_an_error(body: dict[str, Any]) -> None:
    with pytest.raises(RequestFailed, match="does not name finetuneStatus and modelStatus"):
        read([], **body)


@pytest.mark.parametrize(
    ("status", "model_status", "is_ready", "has_failed"),
    [
        ("training", "training", False, False),
        ("completed", "onboarded", True, False),
        ("completed", "onboarding", False, False),
        ("failed", "draft", False, True),
        ("canceled", "draft", False, True),
        ("completed", "deleted", False, True),
        ("paused", "a word of tomorrow", False, False),
    ],
)
def test_readiness_and_failure_follow_from_the_states(
    status: str, model_status: str, is_ready: bool, has_failed: bool
) -> None:
    status_report = read([], finetuneStatus=status, modelStatus=model_status)
    assert (status_report.is_ready, status_report.has_failed) == (is_ready, has_failed)
    assert status_report.to_dict() == {
        "status": status,
        "model_status": model_status,
        "epoch": None,
        "training_loss": None,
        "validation_loss": None,
    }
