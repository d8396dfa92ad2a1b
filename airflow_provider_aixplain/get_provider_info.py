"""The provider's description for Airflow, for the entry point ``apache_airflow_provider``."""

from __future__ import annotations

from typing import Any

from airflow_provider_aixplain import __version__

PACKAGE = "airflow_provider_aixplain"
INTEGRATION = "aiXplain"
MODULES = {
    "hooks": ["agents", "aixplain"],
    "operators": ["aixplain", "batch"],
    "sensors": ["aixplain"],
    "triggers": ["aixplain", "batch"],
}


def _field(label: str, description: str, kind: str = "string", **schema: Any) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": [kind, "null"], **schema}}


CONN_FIELDS = {
    "models_run_url": _field("Execution URL", "Default: the public one, or {Backend URL}/api/v1/execute"),
    "key_type": _field("Kind of API key", "Team key (default) or personal key", enum=["team", "personal"]),
    "trusted_origins": _field(
        "Trusted origins",
        "Further origins that poll URLs may have and that receive the key, such as https://files.example.com, …",
    ),
    "timeout": _field("Request timeout", "Time limit of a request, in seconds", "number", default=60),
    "max_answer_mib": _field("Largest answer", "Size limit of an answer, in MiB", "integer", default=256),
    "proxy": _field(
        "Proxy URL",
        "For example http://proxy.example.com:3128; default: the environment's proxy",
        format="password",
    ),
    "verify": _field("Verify TLS certificates", "true, false, or the path of a CA file", default="true"),
    "allow_insecure": _field(
        "Allow plain http", "Send the key unencrypted to machines other than localhost", "boolean", default=False
    ),
    "web_url": _field(
        "Site with the pages of models and agents",
        "Used for the link of a task; default: https://platform.aixplain.com",
    ),
}
"""The additional fields of the Connection form: the keys of the extra."""

# The port is not hidden: Airflow 3.3.2's button "Test Connection" sends 0 for an empty port, which is refused.
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
    """Return the provider's description, as defined by ``airflow/provider_info.schema.json``."""
    return {
        "package-name": "airflow-provider-aixplain",
        "name": INTEGRATION,
        "description": "Run AI agents and models hosted on `aiXplain <https://aixplain.com/>`__ as deferrable tasks.",
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
            {"name": "aixplain_agent", "class-name": f"{PACKAGE}.decorators.aixplain.aixplain_agent_task"},
            {"name": "aixplain_batch", "class-name": f"{PACKAGE}.decorators.batch.aixplain_batch_task"},
        ],
        "config": {
            "aixplain": {
                "description": "Settings of the aiXplain provider.",
                "options": {
                    "deferrable": {
                        "description": "Whether aiXplain's operators, sensors and decorators wait in the triggerer,"
                        " unless the argument ``deferrable`` is set.",
                        "version_added": "0.1.0",
                        "type": "boolean",
                        "example": "False",
                        "default": "True",
                    }
                },
            }
        },
        "extra-links": [
            f"{PACKAGE}.observability.links.Aixplain{kind}Link" for kind in ("Asset", "Manifest", "Results")
        ],
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
