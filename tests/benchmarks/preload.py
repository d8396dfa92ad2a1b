"""Lets Airflow import the provider before it forks task processes, as ``docs/sizing.md`` describes."""

from __future__ import annotations

from pathlib import Path

SETTINGS = """
import airflow_provider_aixplain.operators.aixplain
import airflow_provider_aixplain.transport.sync
import airflow_provider_aixplain.triggers.aixplain
"""


def preload(home: Path) -> None:
    """Write the file ``airflow_local_settings.py`` of an Airflow that has not been started.

    :param home: its ``AIRFLOW_HOME``.
    """
    (file := home / "config" / "airflow_local_settings.py").parent.mkdir()
    file.write_text(SETTINGS)
