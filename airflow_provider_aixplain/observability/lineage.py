"""The OpenLineage facet of a task's run: its model or agent, cost and duration.

It is imported only if Airflow's openlineage provider is installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from airflow.providers.openlineage.extractors import OperatorLineage
from openlineage.client.facet_v2 import RunFacet

from airflow_provider_aixplain import __version__
from airflow_provider_aixplain.observability.metrics import TOKENS
from airflow_provider_aixplain.protocol.assets import Asset
from airflow_provider_aixplain.protocol.values import parse_number


@attrs.define
class AixplainRunFacet(RunFacet):
    """A run on aiXplain. Unknown values are None.

    :param modelId: the model's id on the platform.
    :param agentId: the agent's id on the platform.
    :param pollUrl: the poll URL of the run.
    :param status: the status that the platform reported.
    :param usedCredits: the cost, in credits.
    :param runTime: the duration of the run, in seconds.
    :param promptTokens: tokens read.
    :param completionTokens: tokens written.
    """

    modelId: str | None = None
    agentId: str | None = None
    pollUrl: str | None = None
    status: str | None = None
    usedCredits: float | None = None
    runTime: float | None = None
    promptTokens: float | None = None
    completionTokens: float | None = None

    @staticmethod
    def _get_schema() -> str:
        return f"https://pypi.org/project/airflow-provider-aixplain/{__version__}/#AixplainRunFacet"


def lineage_of(asset: Asset, response: Mapping[str, Any] | None) -> OperatorLineage[Any, Any]:
    """Return the lineage of a task's run; empty until the run has finished.

    :param asset: what was run.
    :param response: the ModelResponse as a dict, or None.
    """
    if response is None:
        return OperatorLineage()
    usage: Any = response["usage"] if isinstance(response["usage"], dict) else {}
    facet = AixplainRunFacet(
        modelId=asset.id or None if asset.kind == "model" else None,
        agentId=asset.id or None if asset.kind == "agent" else None,
        pollUrl=response["url"],
        status=response["status"],
        usedCredits=parse_number(response["used_credits"]),
        runTime=parse_number(response["run_time"]),
        promptTokens=parse_number(usage.get(TOKENS["prompt"])),
        completionTokens=parse_number(usage.get(TOKENS["completion"])),
    )
    return OperatorLineage(run_facets={"aixplain_run": facet})
