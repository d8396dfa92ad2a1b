"""What Airflow asks the ``apache_airflow_provider`` entry point for."""

from __future__ import annotations

from typing import Any

from airflow_provider_aixplain import __version__

PACKAGE = "airflow_provider_aixplain"
INTEGRATION = "aiXplain"
MODULES = {
    "hooks": ["aixplain"],
    "operators": ["aixplain", "batch"],
    "sensors": ["aixplain"],
    "triggers": ["aixplain", "batch"],
}

CONN_FIELDS: dict[str, Any] = {
    "models_run_url": {
        "label": "Execution URL",
        "description": "Default: the public one; with a host of your own {host}/api/v1/execute",
        "schema": {"type": ["string", "null"]},
    },
    "key_type": {
        "label": "Kind of API key",
        "description": "Whose key it is: a team's, if nothing is chosen, or a person's",
        "schema": {"type": ["string", "null"], "enum": ["team", "personal"]},
    },
    "trusted_origins": {
        "label": "Trusted origins",
        "description": "Further origins that poll URLs may name, and so receive the key: https://files.example.com, …",
        "schema": {"type": ["string", "null"]},
    },
    "timeout": {
        "label": "Request timeout",
        "description": "The longest time that one request may take, in seconds",
        "schema": {"type": ["number", "null"], "default": 60},
    },
    "max_answer_mib": {
        "label": "Largest answer",
        "description": "How much of an answer is read at most, in MiB",
        "schema": {"type": ["integer", "null"], "default": 256},
    },
    "proxy": {
        "label": "Proxy URL",
        "description": "Such as http://proxy.example.com:3128; default: that of the environment",
        "schema": {"type": ["string", "null"], "format": "password"},
    },
    "verify": {
        "label": "Verify TLS certificates",
        "description": "true, false, or the path of a CA file",
        "schema": {"type": ["string", "null"], "default": "true"},
    },
    "allow_insecure": {
        "label": "Allow plain http",
        "description": "Send the key unencrypted to other machines than Airflow's own",
        "schema": {"type": ["boolean", "null"], "default": False},
    },
    "web_url": {
        "label": "Site with the models' pages",
        "description": "Where the link of a task leads; default: https://platform.aixplain.com",
        "schema": {"type": ["string", "null"]},
    },
}
"""What the form for Connections shows beside the standard fields: the keys of their extra."""

# The port stays: the button "Test Connection" of Airflow 3.3.2 sends 0 for one that is not set, and is refused for it.
HIDDEN_FIELDS = ["login", "schema", "extra"]
RELABELING = {"password": "API key", "host": "Backend URL"}
PLACEHOLDERS = {
    "password": "from the platform's settings",
    "host": "https://platform-api.aixplain.com",
    "port": "enter 443 if the URL names no port, or Airflow's Test button fails",
    "models_run_url": "https://models.aixplain.com/api/v1/execute",
    "trusted_origins": "https://files.example.com, https://other.example.com",
    "proxy": "http://proxy.example.com:3128",
    "web_url": "https://platform.aixplain.com",
}


def get_provider_info() -> dict[str, Any]:
    """Describe the provider to Airflow.

    :return: a dict as ``airflow/provider_info.schema.json`` defines it.
    """
    return {
        "package-name": "airflow-provider-aixplain",
        "name": INTEGRATION,
        "description": "Run AI models hosted on `aiXplain <https://aixplain.com/>`__ as deferred tasks.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": INTEGRATION,
                "external-doc-url": "https://docs.aixplain.com/",
                "tags": ["service"],
            }
        ],
        **{
            kind: [{"integration-name": INTEGRATION, "python-modules": [f"{PACKAGE}.{kind}.{name}" for name in names]}]
            for kind, names in MODULES.items()
        },
        "task-decorators": [
            {"name": "aixplain", "class-name": f"{PACKAGE}.decorators.aixplain.aixplain_task"},
            {"name": "aixplain_batch", "class-name": f"{PACKAGE}.decorators.batch.aixplain_batch_task"},
        ],
        "config": {
            "aixplain": {
                "description": "Settings of the aiXplain provider.",
                "options": {
                    "deferrable": {
                        "description": "Whether aiXplain's operators, sensors and decorators wait in the triggerer,"
                        " unless their argument ``deferrable`` is given.",
                        "version_added": "0.1.0",
                        "type": "boolean",
                        "example": "False",
                        "default": "True",
                    }
                },
            }
        },
        "extra-links": [f"{PACKAGE}.observability.links.AixplainModelLink"],
        "connection-types": [
            {
                "connection-type": "aixplain",
                "hook-class-name": f"{PACKAGE}.hooks.aixplain.AixplainHook",
                "hook-name": INTEGRATION,
                "conn-fields": CONN_FIELDS,
                "ui-field-behaviour": {
                    "hidden-fields": HIDDEN_FIELDS,
                    "relabeling": RELABELING,
                    "placeholders": PLACEHOLDERS,
                },
            }
        ],
    }
