"""Apache Airflow provider for aiXplain: run hosted AI agents and models as deferrable tasks."""

from __future__ import annotations

__version__ = "0.1.0"
