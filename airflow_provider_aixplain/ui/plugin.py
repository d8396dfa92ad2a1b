"""The plugin that adds the page to Airflow's UI. Workers and schedulers import it too, so it imports very little."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_aixplain import __version__, compat
from airflow_provider_aixplain.compat import AirflowPlugin, conf
from airflow_provider_aixplain.ui.links import AixplainUsageLink

Message = MutableMapping[str, Any]

# With the base path of Airflow's UI: below 3.3 Airflow imports the address unchanged, and a relative one fails.
_BASE_PATH = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
_PAGE = {"name": "aiXplain", "bundle_url": f"{_BASE_PATH}/aixplain/static/aixplain.js?v={__version__}"}


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Answer a request, by an app that is imported at the first one: only the API server imports FastAPI."""
    from airflow_provider_aixplain.ui import api

    await api.app(scope, receive, send)


class AixplainPlugin(AirflowPlugin):
    """The page in the navigation and as a tab of each DAG, its API, and the links from tasks to it.

    Below Airflow 3.1 it adds nothing.
    """

    name = "aixplain"
    if compat.is_at_least(3, 1):
        react_apps = [
            {**_PAGE, "destination": "nav", "url_route": "aixplain", "nav_top_level": True},
            {**_PAGE, "destination": "dag", "url_route": "aixplain-dag"},
        ]
        fastapi_apps = [{"name": "aixplain", "url_prefix": "/aixplain", "app": app}]
        operator_extra_links = [AixplainUsageLink()]
