"""The link from a task to the page aiXplain, filtered for its DAG.

The plugin registers it, so the API server computes it whenever a user opens a task. Airflow 3 stores the links that an
operator lists as XComs, with one request for each whenever a worker has executed the task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from airflow_provider_aixplain.compat import BaseOperatorLink
from airflow_provider_aixplain.observability.links import airflow_url

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class AixplainUsageLink(BaseOperatorLink):
    """The link from a task that pays for runs to the page aiXplain (Airflow 3.1 and later)."""

    name = "aiXplain usage"

    @property
    def operators(self) -> list[type[BaseOperator]]:  # type: ignore[override]
        """The operators whose tasks have the link. Imported late: workers import the plugin too, but not these."""
        from airflow_provider_aixplain.decorators.aixplain import (
            AixplainAgentDecoratedOperator,
            AixplainDecoratedOperator,
        )
        from airflow_provider_aixplain.decorators.batch import AixplainBatchDecoratedOperator
        from airflow_provider_aixplain.operators.aixplain import AixplainRunAgentOperator, AixplainRunModelOperator
        from airflow_provider_aixplain.operators.batch import AixplainBatchRunOperator

        return [
            AixplainRunModelOperator,
            AixplainRunAgentOperator,
            AixplainBatchRunOperator,
            AixplainDecoratedOperator,
            AixplainAgentDecoratedOperator,
            AixplainBatchDecoratedOperator,
        ]

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL of the page."""
        return airflow_url(f"plugin/aixplain?{urlencode({'dag_id': ti_key.dag_id})}")
