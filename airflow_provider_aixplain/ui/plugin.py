"""The plugin that adds the page to Airflow's UI. Workers and schedulers import it too, so it imports very little."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from airflow.providers.common.compat.sdk import AirflowPlugin

from airflow_provider_aixplain import __version__, compat

Message = MutableMapping[str, Any]

# Relative to the address of Airflow's UI, which may have a base path.
_PAGE = {"name": "aiXplain", "bundle_url": f"aixplain/static/aixplain.js?v={__version__}"}


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Answer a request, by an app that is imported at the first one: only the API server imports FastAPI."""
    from airflow_provider_aixplain.ui import api

    await api.app(scope, receive, send)


class AixplainPlugin(AirflowPlugin):
    """The page in the navigation and as a tab of each DAG, and its API. Below Airflow 3.1 it adds nothing."""

    name = "aixplain"
    if compat.is_at_least(3, 1):
        react_apps = [
            {**_PAGE, "destination": "nav", "url_route": "aixplain", "nav_top_level": True},
            {**_PAGE, "destination": "dag", "url_route": "aixplain-dag"},
        ]
        fastapi_apps = [{"name": "aixplain", "url_prefix": "/aixplain", "app": app}]
