"""The metrics of runs and waits."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_aixplain.exceptions import AixplainError, AixplainPermanentError, AixplainRunFailed
from airflow_provider_aixplain.observability.metrics import RunMetrics, clean_tag, outcome_of
from airflow_provider_aixplain.observability.progress import send_metrics
from airflow_provider_aixplain.protocol.assets import Asset
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus
from airflow_provider_aixplain.protocol.wait import Outcome
from tests.support.deployment import AIRFLOW_3

MODEL = Asset("model", "m")
TASK = SimpleNamespace(dag_id="d", task_id="t")
OF_TASK = {"dag_id": "d", "task_id": "t"}


class Stats:
    """Airflow's Stats, which stores the metrics here."""

    def __init__(self) -> None:
        self.metrics: list[Any] = []

    def incr(self, stat: str, count: float = 1, *_: Any, tags: Any = None) -> None:
        self.metrics.append((stat, count, tags))

    def timing(self, stat: str, dt: Any, *, tags: Any = None) -> None:
        self.metrics.append((stat, dt, tags))

    gauge = incr


def statsd_logger(client: Any) -> Any:
    """Return Airflow's logger for StatsD with tags in InfluxDB's format."""
    if AIRFLOW_3:
        from airflow.sdk._shared.observability.metrics.statsd_logger import SafeStatsdLogger

        return SafeStatsdLogger(client, influxdb_tags_enabled=True, statsd_influxdb_enabled=True)
    from airflow.metrics.statsd_logger import SafeStatsdLogger

    return SafeStatsdLogger(client, influxdb_tags_enabled=True)


def response(**fields: Any) -> dict[str, Any]:
    return ModelResponse(ResponseStatus.SUCCESS, completed=True, **fields).to_dict()


@pytest.mark.parametrize(("asset", "name"), [(MODEL, "model_id"), (Asset("agent", "m"), "agent_id")])
def test_all_figures_of_a_run_are_counted(asset: Asset, name: str) -> None:
    stats = Stats()
    usage = {"prompt_tokens": 3, "completion_tokens": "4", "total_tokens": 7}
    RunMetrics().add_end(asset, "success", response(used_credits=0.25, run_time=1.5, usage=usage)).send(
        TASK, lambda: stats
    )
    tags = {**OF_TASK, name: "m", "outcome": "success"}
    assert stats.metrics == [
        ("aixplain.run_duration", timedelta(seconds=1.5), tags),
        ("aixplain.runs", 1, tags),
        ("aixplain.credits", 250_000, tags),
        ("aixplain.tokens", 3, {**tags, "kind": "prompt"}),
        ("aixplain.tokens", 4, {**tags, "kind": "completion"}),
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
    RunMetrics().add_end(MODEL, "failed", response(**fields)).send(TASK, lambda: stats)
    assert stats.metrics == [("aixplain.runs", 1, {**OF_TASK, "model_id": "m", "outcome": "failed"})]


@pytest.mark.parametrize("outcome", ["submitted", "timeout", "error", "orphaned", "refused"])
def test_only_a_finished_run_has_a_cost(outcome: str) -> None:
    """The run may be counted again, when it has finished."""
    stats = Stats()
    RunMetrics().add_end(MODEL, outcome, response(used_credits=1, run_time=1, usage={"prompt_tokens": 1})).send(
        TASK, lambda: stats
    )
    assert [name for name, *_ in stats.metrics] == ["aixplain.runs"]


@pytest.mark.parametrize(
    ("used_credits", "counted"),
    [(0.1 + 0.2, 300_000), (0.0000005, 0), ("0.0000015", 2), (1.42e-06, 1), (2, 2_000_000), (1234.567891, 1234567891)],
)
def test_credits_are_whole_millionths(used_credits: Any, counted: int) -> None:
    stats = Stats()
    RunMetrics().add_end(MODEL, "success", response(used_credits=used_credits)).send(TASK, lambda: stats)
    counts = [count for name, count, _ in stats.metrics if name == "aixplain.credits"]
    assert counts == ([counted] if counted else [])
    assert all(type(count) is int for count in counts)


def test_what_is_added_up_is_sent_once() -> None:
    metrics, stats = RunMetrics(), Stats()
    for _ in range(3):
        metrics.add_end(MODEL, "success", response(used_credits=0.1, run_time=2))
    metrics.add_wait(MODEL, Outcome("success", ""), 2, 4.0)
    metrics.send(TASK, lambda: stats)
    metrics.send(TASK, lambda: stats)
    tags = {**OF_TASK, "model_id": "m", "outcome": "success"}
    assert stats.metrics == [
        *[("aixplain.run_duration", timedelta(seconds=2), tags)] * 3,
        ("aixplain.wait_duration", timedelta(seconds=4), tags),
        ("aixplain.runs", 3, tags),
        ("aixplain.credits", 300_000, tags),
        ("aixplain.polls", 2, tags),
    ]


@given(st.lists(st.integers(0, 30), max_size=20))
def test_fractions_of_a_millionth_add_up(costs: list[int]) -> None:
    metrics, stats = RunMetrics(), Stats()
    for cost in costs:
        metrics.add_end(MODEL, "success", response(used_credits=cost / 10_000_000))
        metrics.send(TASK, lambda: stats)
    counted = sum(count for name, count, _ in stats.metrics if name == "aixplain.credits")
    assert abs(counted * 10 - sum(costs)) <= 5


def test_the_response_may_name_the_model() -> None:
    stats = Stats()
    RunMetrics().add_end(Asset(), "success", response(asset={"assetId": "asset-id"})).send(TASK, lambda: stats)
    RunMetrics().add_end(Asset(), "timeout", None).send(TASK, lambda: stats)
    assert [tags["model_id"] for *_, tags in stats.metrics] == ["asset-id", "unknown"]


@pytest.mark.parametrize(
    "asset_id",
    ["a,outcome:success|#x=1", "line\nend", "\ud800\0é", "x" * 10**6, {"odd": ["|"]}, "gpt-4o:1.5@eu", "a/b-c.1"],
)
def test_a_hostile_asset_id_is_cleaned(asset_id: Any) -> None:
    stats = Stats()
    RunMetrics().add_end(Asset(), "success", {"asset": {"assetId": asset_id}}).send(TASK, lambda: stats)
    ((_, _, tags),) = stats.metrics
    assert re.fullmatch(r"[\w./-]{1,55}", tags["model_id"], re.ASCII)
    assert tags["model_id"] == asset_id or asset_id != "a/b-c.1"


@given(st.sets(st.text(alphabet="ab/é数", min_size=50, max_size=60), min_size=2, max_size=20))
def test_long_and_foreign_names_stay_distinct(names: set[str]) -> None:
    assert len({clean_tag(name) for name in names}) == len(names)


def test_what_names_no_task_is_unknown() -> None:
    """As the trigger in ``dag.test()``, whose task instance is None."""
    stats = Stats()
    RunMetrics().add_end(MODEL, "success", None).send(None, lambda: stats)
    ((_, _, tags),) = stats.metrics
    assert (tags["dag_id"], tags["task_id"]) == ("unknown", "unknown")


def test_statsd_accepts_the_longest_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow drops names of more than 250 characters, with their tags, and some characters."""
    monkeypatch.setenv("AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED", "True")
    task = SimpleNamespace(dag_id="d" * 250, task_id="t é:+" * 50)
    asset, sent = Asset("agent", "a@" * 100), Stats()
    stats = statsd_logger(sent)
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    RunMetrics().add_end(asset, "success", response(used_credits=1, run_time=1, usage=usage)).send(task, lambda: stats)
    RunMetrics().add_end(asset, "submitted", None).send(task, lambda: stats)
    RunMetrics().add_wait(asset, Outcome("success", ""), 1, 1.0).send(task, lambda: stats)
    totals = SimpleNamespace(done=1, failed=1, credits=1.5)
    ledger = SimpleNamespace(totals=totals, batch=f"{10**6}-{'f' * 12}")
    engine: Any = SimpleNamespace(asset=asset, in_flight=1, ledger=ledger, metrics=RunMetrics())
    send_metrics(engine, task, lambda: stats)
    assert len(sent.metrics) == 12
    assert sent.metrics[-1][1] == 1_500_000
    assert all(",batch_id=1000000-ffffffffffff" in name for name, *_ in sent.metrics[-4:])


def test_a_wait_is_counted() -> None:
    stats = Stats()
    RunMetrics().add_wait(MODEL, Outcome("timeout", "late"), 12, 90).send(TASK, lambda: stats)
    tags = {**OF_TASK, "model_id": "m", "outcome": "timeout"}
    assert stats.metrics == [("aixplain.wait_duration", timedelta(seconds=90), tags), ("aixplain.polls", 12, tags)]


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


def test_errors_of_metrics_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def timing(self, *_: Any, **__: Any) -> None:
            raise OSError("no such host")

    metrics = RunMetrics()
    for _ in range(3):  # as a batch does, many times
        metrics.add_end(MODEL, "success", response(run_time=1)).send(TASK, Broken)
    RunMetrics().add_end(MODEL, "success", response(run_time=1)).send(TASK, object)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


@pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2's own logger for OpenTelemetry is another")
def test_opentelemetry_accepts_the_metrics() -> None:
    """The real instruments."""
    from airflow.sdk._shared.observability.metrics.otel_logger import SafeOtelLogger
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    stats = SafeOtelLogger(MeterProvider([reader]))
    for _ in range(2):
        RunMetrics().add_end(MODEL, "success", response(used_credits=0.25, run_time=1.5)).send(TASK, lambda: stats)
    RunMetrics().add_wait(MODEL, Outcome("success", ""), 3, 2.0).send(TASK, lambda: stats)
    data: Any = reader.get_metrics_data()
    metrics = {one.name: one.data.data_points[0] for one in data.resource_metrics[0].scope_metrics[0].metrics}
    assert metrics["airflow.aixplain.runs"].value == 2
    assert metrics["airflow.aixplain.credits"].value == 500_000
    assert metrics["airflow.aixplain.polls"].value == 3
    assert dict(metrics["airflow.aixplain.credits"].attributes) == {**OF_TASK, "model_id": "m", "outcome": "success"}
    assert {"airflow.aixplain.run_duration", "airflow.aixplain.wait_duration"} <= set(metrics)
