"""The recipe of docs/metrics.md: what a real Airflow has sent, in Debian's Prometheus."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from tests.support.deployment import RUN_SECONDS, Processes, wait_until
from tests.support.documentation import ROOT
from tests.support.monitored import Monitored
from tests.support.services import Prometheus, missing

if absent := missing("prometheus"):
    pytest.skip(absent, allow_module_level=True)

DAG = "monitored"


def blocks(language: str) -> list[str]:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Configured as the page states, except that it reads the exporter more often."""
    mapping, config = blocks("yaml")
    with Processes(tmp_path_factory.mktemp("prometheus") / "home") as processes:
        yield Prometheus(processes, mapping, config.replace("15s", "1s"))


def cost_of(result: Any) -> Decimal:
    """The credits that a task has returned."""
    return Decimal(str(result.get("credits", result.get("used_credits")))) if isinstance(result, dict) else Decimal(0)


def test_the_cost_of_a_dag_is_exact(monitored: Monitored, prometheus: Prometheus) -> None:
    run_id = monitored.finished
    tasks = [(task["task_id"], task["map_index"]) for task in monitored.airflow.tasks(DAG, run_id)]
    spent = sum((cost_of(monitored.airflow.xcoms(DAG, run_id, *task)["return_value"]) for task in tasks), Decimal(0))
    total, daily = blocks("promql")

    def cost(query: str, at: float) -> Decimal:
        values = {series["metric"]["dag_id"]: series["value"][1] for series in prometheus.query(query, at)}
        return Decimal(values.get(DAG, 0))

    def time_at(credits: Decimal) -> float:
        """When the DAG has cost this much."""

        def now_if_equal() -> float | None:
            now = round(time.time(), 3)
            return now if cost(total, now) == credits else None

        return float(wait_until(now_if_equal, f"{credits} credits in Prometheus", 20))

    prometheus.send(monitored.lines)
    first = time_at(spent)
    assert spent > 0
    assert cost(daily, first) == spent, "nothing was spent a day before"
    (gauge,) = prometheus.query(f'airflow_aixplain_batch_credits{{dag_id="{DAG}"}}', first)
    assert int(gauge["value"][1]) == 1_000_000 * cost_of(monitored.airflow.xcoms(DAG, run_id, "batch")["return_value"])
    (seconds,) = prometheus.query(f'airflow_aixplain_run_duration_sum{{dag_id="{DAG}", task_id="run"}}', first)
    assert float(seconds["value"][1]) == RUN_SECONDS
    prometheus.send(monitored.lines)
    second = time_at(2 * spent)
    assert cost(daily.replace("1d", f"{1000 * (second - first):.0f}ms"), second) == spent
