"""The metrics of runs and waits."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_aixplain.exceptions import AixplainError, AixplainPermanentError, AixplainRunFailed
from airflow_provider_aixplain.observability.metrics import count_end, count_wait, outcome_of
from airflow_provider_aixplain.protocol.assets import Asset
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus
from airflow_provider_aixplain.protocol.wait import Outcome
from tests.support.deployment import AIRFLOW_3

MODEL = Asset("model", "m")


class Stats:
    """Airflow's Stats, which stores the metrics here."""

    def __init__(self) -> None:
        self.metrics: list[Any] = []

    def incr(self, stat: str, count: float = 1, *, tags: Any = None) -> None:
        self.metrics.append((stat, count, tags))

    def timing(self, stat: str, dt: Any, *, tags: Any = None) -> None:
        self.metrics.append((stat, dt, tags))


def response(**fields: Any) -> dict[str, Any]:
    return ModelResponse(ResponseStatus.SUCCESS, completed=True, **fields).to_dict()


@pytest.mark.parametrize(("asset", "name"), [(MODEL, "model_id"), (Asset("agent", "m"), "agent_id")])
def test_all_figures_of_a_run_are_counted(asset: Asset, name: str) -> None:
    stats = Stats()
    usage = {"prompt_tokens": 3, "completion_tokens": "4", "total_tokens": 7}
    count_end(asset, "success", response(used_credits=0.25, run_time=1.5, usage=usage), lambda: stats)
    tags = {name: "m", "outcome": "success"}
    assert stats.metrics == [
        ("aixplain.runs", 1, tags),
        ("aixplain.credits", 0.25, tags),
        ("aixplain.tokens", 3, {**tags, "kind": "prompt"}),
        ("aixplain.tokens", 4, {**tags, "kind": "completion"}),
        ("aixplain.run_duration", timedelta(seconds=1.5), tags),
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"used_credits": None, "run_time": None, "usage": None},
        {"used_credits": "NaN", "run_time": "NaN", "usage": {"prompt_tokens": "NaN"}},
        {"used_credits": -1, "run_time": -1, "usage": [1]},
        {"used_credits": 1e300, "run_time": "1" * 400, "usage": {"prompt_tokens": 2**62, "completion_tokens": "1e999"}},
        {"used_credits": math.inf, "run_time": 10**400, "usage": {"prompt_tokens": math.nan}},
    ],
)
def test_invalid_figures_are_not_counted(fields: dict[str, Any]) -> None:
    stats = Stats()
    count_end(MODEL, "failed", response(**fields), lambda: stats)
    assert stats.metrics == [("aixplain.runs", 1, {"model_id": "m", "outcome": "failed"})]


def test_the_response_may_name_the_model() -> None:
    stats = Stats()
    count_end(Asset(), "success", response(asset={"assetId": "asset-id"}), lambda: stats)
    count_end(Asset(), "timeout", None, lambda: stats)
    assert [tags["model_id"] for *_, tags in stats.metrics] == ["asset-id", "unknown"]


@pytest.mark.parametrize(
    "asset_id",
    ["a,outcome:success|#x=1", "line\nend", "\ud800\0é", "x" * 10**6, {"odd": ["|"]}, "openai/gpt-4o:1.5@eu"],
)
def test_a_hostile_asset_id_is_cleaned(asset_id: Any) -> None:
    stats = Stats()
    count_end(Asset(), "success", {"asset": {"assetId": asset_id}}, lambda: stats)
    ((_, _, tags),) = stats.metrics
    assert re.fullmatch(r"[\w./:@+-]{1,200}", tags["model_id"], re.ASCII)
    assert tags["model_id"] == asset_id or asset_id != "openai/gpt-4o:1.5@eu"


def test_a_wait_is_counted() -> None:
    stats = Stats()
    count_wait(MODEL, Outcome("timeout", "late"), 12, 90, lambda: stats)
    tags = {"model_id": "m", "outcome": "timeout"}
    assert stats.metrics == [("aixplain.polls", 12, tags), ("aixplain.wait_duration", timedelta(seconds=90), tags)]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (AixplainRunFailed("a"), "failed"),
        (AixplainPermanentError("a"), "refused"),
        (AixplainError("a", status_code=429), "refused"),
        (AixplainError("a", status_code=503), "orphaned"),
        (AixplainError("a"), "orphaned"),
    ],
)
def test_an_error_has_an_outcome(error: AixplainError, outcome: str) -> None:
    assert outcome_of(error) == outcome


def test_errors_of_metrics_lose_no_result(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def incr(self, *_: Any, **__: Any) -> None:
            raise OSError("no such host")

    count_end(MODEL, "success", response(), Broken)
    count_end(MODEL, "success", response(run_time=1), object)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


@pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2's own logger for OpenTelemetry is another")
def test_opentelemetry_accepts_the_metrics() -> None:
    """The real instruments, with fractions and tags."""
    from airflow.sdk._shared.observability.metrics.otel_logger import SafeOtelLogger
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    stats = SafeOtelLogger(MeterProvider([reader]))
    for _ in range(2):
        count_end(MODEL, "success", response(used_credits=0.25, run_time=1.5), lambda: stats)
    count_wait(MODEL, Outcome("success", ""), 3, 2.0, lambda: stats)
    data: Any = reader.get_metrics_data()
    metrics = {one.name: one.data.data_points[0] for one in data.resource_metrics[0].scope_metrics[0].metrics}
    assert metrics["airflow.aixplain.runs"].value == 2
    assert metrics["airflow.aixplain.credits"].value == 0.5
    assert metrics["airflow.aixplain.polls"].value == 3
    assert dict(metrics["airflow.aixplain.credits"].attributes) == {"model_id": "m", "outcome": "success"}
    assert {"airflow.aixplain.run_duration", "airflow.aixplain.wait_duration"} <= set(metrics)
