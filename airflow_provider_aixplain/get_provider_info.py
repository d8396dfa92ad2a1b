"""What Airflow asks the ``apache_airflow_provider`` entry point for."""

from __future__ import annotations

from typing import Any

from airflow_provider_aixplain import __version__


def get_provider_info() -> dict[str, Any]:
    """Describe the provider to Airflow.

    :return: a dict as ``airflow/provider_info.schema.json`` defines it.
    """
    integration = "aiXplain"
    return {
        "package-name": "airflow-provider-aixplain",
        "name": "aiXplain",
        "description": "Run AI models hosted on `aiXplain <https://aixplain.com/>`__ as deferred tasks.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": integration,
                "external-doc-url": "https://docs.aixplain.com/",
                "tags": ["service"],
            }
        ],
        "hooks": [
            {
                "integration-name": integration,
                "python-modules": ["airflow_provider_aixplain.hooks.aixplain"],
            }
        ],
        "operators": [
            {
                "integration-name": integration,
                "python-modules": ["airflow_provider_aixplain.operators.aixplain"],
            }
        ],
        "triggers": [
            {
                "integration-name": integration,
                "python-modules": ["airflow_provider_aixplain.triggers.aixplain"],
            }
        ],
        "connection-types": [
            {
                "connection-type": "aixplain",
                "hook-class-name": "airflow_provider_aixplain.hooks.aixplain.AixplainHook",
                "hook-name": "aiXplain",
            }
        ],
    }
