"""The link from a task to the page."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_aixplain.ui.links import AixplainUsageLink
from airflow_provider_aixplain.ui.plugin import AixplainPlugin
from tests.support.deployment import AIRFLOW_3


@pytest.mark.skipif(not AIRFLOW_3, reason="the page needs Airflow 3.1")
def test_the_link_filters_the_page_by_dag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://localhost:8080/airflow/")
    (link,) = AixplainPlugin.operator_extra_links
    operator: Any = None
    page = link.get_link(operator, ti_key=SimpleNamespace(dag_id="a.dag-1"))
    assert page == "http://localhost:8080/airflow/plugin/aixplain?dag_id=a.dag-1"


def test_all_operators_that_pay_have_the_link() -> None:
    """Airflow compares classes, so those of the decorators are listed too."""
    paying = {"RunModel", "RunAgent", "BatchRun", "Decorated", "AgentDecorated", "BatchDecorated"}
    assert {kind.__name__ for kind in AixplainUsageLink().operators} == {f"Aixplain{name}Operator" for name in paying}
