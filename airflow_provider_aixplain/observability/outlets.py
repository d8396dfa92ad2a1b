"""What a run has cost, in the events of its task's outlets."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_aixplain.protocol.values import parse_number

if TYPE_CHECKING:
    from airflow_provider_aixplain.protocol.assets import Asset

log = logging.getLogger(__name__)

EXTRA_KEY = "aixplain"
"""The key in the extra of an event. A value that the user has set under it is kept."""


def add_to_outlet_events(context: Mapping[str, Any], task: Any, result: Mapping[str, Any]) -> None:
    """Add the cost of a task to the events of its outlets (Assets; in Airflow 2 Datasets). Errors are only logged.

    :param context: the task's context.
    :param task: the operator, with ``outlets`` and ``asset``.
    :param result: the ModelResponse as a dict, or the manifest of a batch.
    """
    try:
        for outlet in task.outlets:
            with suppress(TypeError):  # it is no asset, but metadata for OpenLineage
                context["outlet_events"][outlet].extra.setdefault(EXTRA_KEY, describe(task.asset, result))
    except Exception as error:
        log.warning("The events of the outlets have no cost: %s: %s", type(error).__name__, error)


def describe(asset: Asset, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the event of an outlet, and lineage, state of a run or of a batch. Unknown figures are None.

    :param asset: what was run.
    :param result: the ModelResponse as a dict, or the manifest of a batch.
    """
    return {
        asset.id_name: asset.id,
        "credits": parse_number(result.get("used_credits", result.get("credits"))),
        "run_time": parse_number(result.get("run_time")),
        **{name: result[name] for name in ("rows", "succeeded", "failed", "path") if name in result},
    }
